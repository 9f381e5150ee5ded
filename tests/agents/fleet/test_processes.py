"""Exit codes and ends of processes that are not our children, with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from amc_agents.fleet.agent_slot import AgentSlot
from amc_agents.fleet.devices import Device
from amc_agents.fleet.processes import (
    PROCESS_TAG,
    children,
    end_all,
    environment_of,
    exit_code_of_zombie,
    is_trial,
    tagged,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# A small agent: it starts a trial in its own process group, and a helper in its own session.
AGENT = """
import subprocess, sys, time
trial = subprocess.Popen([sys.executable, "-c", sys.argv[1]], process_group=0)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(trial.pid, helper.pid, flush=True)
time.sleep(60)
"""


def _has_ended(pid: int) -> bool:
    """A dead process may be a zombie of the process that inherited it, even of this one."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("raise SystemExit(81)", 81),
        ("pass", 0),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("import os; os.abort()", -6),
    ],
)
def test_the_exit_code_of_another_process_s_child_is_read(end: str, code: int) -> None:
    command = [sys.executable, "-c", AGENT, end]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as agent:
        assert agent.stdout is not None
        trial, helper = map(int, agent.stdout.readline().split())
        try:
            until(lambda: exit_code_of_zombie(trial) is not None)
            assert exit_code_of_zombie(trial) == code
            assert sorted(children(agent.pid)) == sorted([trial, helper])
            assert is_trial(trial, agent.pid)
            assert not is_trial(helper, agent.pid)
            assert exit_code_of_zombie(helper) is None
        finally:
            agent.kill()
            os.kill(helper, signal.SIGKILL)


def test_the_environment_is_that_at_the_start_of_a_process() -> None:
    with subprocess.Popen(SLEEP, env={"A": "1", "B": "x=y"}) as process:
        until(lambda: environment_of(process.pid))
        assert environment_of(process.pid) == {"A": "1", "B": "x=y"}
        process.kill()
    assert environment_of(process.pid) == {}


def test_every_process_of_a_fleet_is_ended_with_orphans_and_those_that_ignore_sigterm() -> None:
    tag = f"test-{os.getpid()}"
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    orphan = f"import os, subprocess, sys; subprocess.Popen({SLEEP!r}, start_new_session=True)"
    env = {**os.environ, PROCESS_TAG: tag}
    subprocess.run([sys.executable, "-c", orphan], env=env, check=True)
    with subprocess.Popen([sys.executable, "-c", stubborn], env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: len(tagged(tag)) == 2)
        assert end_all(tag, grace_s=0.3) == 2
        assert process.wait(timeout=5) == -signal.SIGKILL
    assert tagged(tag) == []


# A subreaper with two children and two inherited processes of another session. All have ended.
HEIR = """
import json, os, subprocess, sys, time
from amc_agents.fleet.processes import become_subreaper, children, exit_code_of_zombie, reap, reap_inherited
become_subreaper()
own = [subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], start_new_session=new) for new in (False, True)]
seven = "[sys.executable, '-c', 'raise SystemExit(7)'], stdout=subprocess.DEVNULL"
agent = f"import subprocess, sys; print(*(subprocess.Popen({seven}).pid for _ in range(2)))"
printed = subprocess.run([sys.executable, "-c", agent], capture_output=True, text=True, start_new_session=True).stdout
trial, loader = map(int, printed.split())
everybody = [process.pid for process in own] + [trial, loader]
while any(exit_code_of_zombie(pid) is None for pid in everybody):
    time.sleep(0.02)
reap_inherited({trial})
left = sorted(children(os.getpid())) == sorted(everybody[:3])
print(json.dumps([left, reap(trial), [child.wait() for child in own]]))
"""


def test_only_inherited_zombies_are_reaped() -> None:
    done = subprocess.run([sys.executable, "-c", HEIR], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, 7, [3, 3]]


# A process that clears its environment, begins a session and outlives its parent; its id is printed.
QUIET = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
ESCAPE = f"import subprocess; print(subprocess.Popen({SLEEP!r}, env={{}}, start_new_session=True, {QUIET}).pid)"
# A subreaper that ends everything that it started; a bystander of it is spared.
ENDING = """
import json, os, subprocess, sys
from amc_agents.fleet.processes import Descendants, become_subreaper, end_all
become_subreaper()
bystander = subprocess.Popen(["sleep", "60"])
descendants = Descendants(os.getpid())
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
escaped = int(subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True).stdout)
count = end_all("no such tag", descendants, grace_s=2)
print(json.dumps([count, child.wait(timeout=5), bystander.poll(), escaped]))
bystander.kill()
"""


def test_a_process_that_drops_environment_and_session_is_ended_with_its_fleet() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING, ESCAPE], capture_output=True, text=True, check=True)
    count, child, bystander, escaped = json.loads(done.stdout)
    assert (count, child, bystander) == (2, -signal.SIGTERM, None)
    assert _has_ended(escaped)


# A small fleet: subreaper, guardian, one child, one inherited process that has ended and one that has escaped.
FLEET = """
import json, os, psutil, subprocess, sys, time
from amc_agents.fleet import processes
from amc_agents.fleet.processes import PROCESS_TAG, Guardian, become_subreaper, reap
processes._LOOK_EVERY_S = 0.02
become_subreaper()
guardian = Guardian(sys.argv[1], 5)
os.environ[PROCESS_TAG] = sys.argv[1]
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(sleep, start_new_session=True)
seven = "[sys.executable, '-c', 'raise SystemExit(7)'], stdout=subprocess.DEVNULL"
middle = f"import subprocess, sys; print(subprocess.Popen({seven}).pid)"
inherited = int(subprocess.run([sys.executable, "-c", middle], capture_output=True, text=True).stdout)
code = None
while code is None:
    code = reap(inherited)
    time.sleep(0.02)
escaped = int(subprocess.run([sys.executable, "-c", sys.argv[3]], capture_output=True, text=True).stdout)
waits = lambda: psutil.Process(guardian.pid).num_ctx_switches().voluntary
first = waits()
while waits() < first + 5:  # it waits once between two looks
    time.sleep(0.02)
facts = {"child": child.pid, "guardian": guardian.pid, "inherited": code, "escaped": escaped}
print(json.dumps(facts), flush=True)
if sys.argv[2] == "dismissed":
    os.kill(escaped, 9)
    child.kill()
    child.wait()
    guardian.dismiss()
else:
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["killed", "dismissed"])
def test_a_fleet_gets_exit_codes_of_orphans_and_its_guardian_ends_processes_after_a_kill(how: str) -> None:
    tag = f"test-{how}-{os.getpid()}"
    command = [sys.executable, "-c", FLEET, tag, how, ESCAPE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as fleet:
        assert fleet.stdout is not None
        assert fleet.stderr is not None
        facts = json.loads(fleet.stdout.readline())
        assert facts["inherited"] == 7
        if how == "killed":
            assert psutil.pid_exists(facts["child"])
            fleet.kill()
        until(lambda: _has_ended(facts["guardian"]))
        assert tagged(tag) == []
        assert _has_ended(facts["child"])
        assert _has_ended(facts["escaped"])
        assert ("its guardian has ended 2 processes" in fleet.stderr.read()) is (how == "killed")


def test_two_fleets_in_one_folder_write_logs_of_their_own(tmp_path: Path) -> None:
    device = Device("cpu0", "", "cpu0")
    slots = [AgentSlot("cpu0", device, tmp_path / "logs" / "cpu0.log", ["true"], {}) for _ in range(2)]
    for slot in slots:
        slot.start_agent()
        until(lambda slot=slot: slot.take_agent_exit() is not None)
    assert [slot.log.name for slot in slots] == ["cpu0.log", "cpu0-2.log"]
    assert all(slot.log.read_text().count("true") == 1 for slot in slots)


def test_an_agent_works_where_its_log_takes_nothing_any_more(tmp_path: Path) -> None:
    device, full = Device("cpu0", "", "cpu0"), tmp_path / "full"
    full.symlink_to("/dev/full")
    slots = [AgentSlot("cpu0", device, path, ["true"], {}) for path in (full, tmp_path / "logs" / "cpu0.log")]
    shutil.rmtree(tmp_path / "logs")
    for slot in slots:
        slot.start_agent()
        until(lambda slot=slot: slot.take_agent_exit() == 0)
    assert slots[1].agent_log() == ""
