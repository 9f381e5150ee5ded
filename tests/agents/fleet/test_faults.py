"""The table of faults in docs/fleet.md, row by row: the real client, the real agent, the real server."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from client_scenarios import wait_until
from fleet_scenarios import Fleet, Network, Person, agents_of, send, side_by_side

pytestmark = pytest.mark.client

# The rules behind these limits are tested with a clock of their own in test_states.py.
QUICK = ("silence_s=6", "unlisted_s=2", "stop_told_s=1", "stop_untold_s=1")
OF_A_TRIAL = (
    "nothing",
    "killed",
    "stopped",
    "nan",
    "out of memory",
    "stopped without a handler",
    "exception",
    "data gone",
)


@dataclass
class Ends:
    """What became of one trial for each fault, all of one fleet."""

    fleet: Fleet
    runs: dict[str, dict[str, Any]]
    epochs: dict[str, list[int]]
    acknowledged: dict[str, list[int]]

    def of(self, fault: str) -> tuple[str, str | None, int | None]:
        run = self.runs[fault]
        return run["state"], self.fleet.cause(run["id"]), self.fleet_saw(fault)

    def fleet_saw(self, fault: str) -> int | None:
        run = self.runs[fault]["id"]
        return next(event.get("exit_code") for event in self.fleet.of("ended") if event["run"] == run)

    def said(self, fault: str) -> str:
        run = self.runs[fault]["id"]
        return str(next(event["text"] for event in self.fleet.of("ended") if event["run"] == run))

    def lost(self, fault: str) -> int:
        return len(set(self.acknowledged.get(fault, [])) - set(self.epochs[fault]))


def one_trial_for_each_fault(person: Person) -> Ends:
    with small_disk(person.folder / "disk") as disk:
        faults = OF_A_TRIAL + (("disk full",) if disk else ())
        sweep = person.sweep_of(faults)
        fleet = person.fleet(sweep, "--workers", "3", SMALL_DISK=str(disk))
        acknowledged = {}
        for fault in ("killed", "stopped", "stopped without a handler"):
            acknowledged[fault] = person.acknowledged(sweep, fault)
            if fault == "killed":
                send(person.pid_of(fault), signal.SIGKILL)
            else:
                person.stop(person.runs(sweep)[fault]["id"])
        assert fleet.wait() == 0, fleet.complaint
        runs = person.runs(sweep)
        assert set(runs) == set(faults), "every configuration was handed out, none twice"
        assert fleet.processes() == []
        return Ends(fleet, runs, {fault: person.epochs(run["id"]) for fault, run in runs.items()}, acknowledged)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a disk of 8 MB, where that is allowed."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False)
    try:
        yield folder if mounted.returncode == 0 else None
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def a_preempted_trial_is_handed_out_again_and_goes_on_with_its_rows(person: Person) -> None:
    sweep = person.sweep_of(["preempted"])
    first = person.fleet(sweep, "--workers", "1", AMC_SIGTERM="preemption")
    before = person.acknowledged(sweep, "preempted")
    send(first.process.pid, signal.SIGTERM)
    assert first.wait() == 75
    run = person.runs(sweep)["preempted"]
    assert (run["state"], first.cause(run["id"])) == ("preempted", "preempted")
    assert first.processes() == []
    second = person.fleet(sweep, "--workers", "1")
    assert second.wait() == 0, second.complaint
    again = person.runs(sweep)["preempted"]
    assert (again["id"], again["state"], second.cause(again["id"])) == (run["id"], "finished", "completed")
    assert set(before) <= set(person.epochs(run["id"]))


def agents_that_die_leave_their_trials_alone_and_are_followed_by_new_ones(person: Person) -> None:
    sweep = person.sweep_of(["long", "preempted", "nothing"])
    fleet = person.fleet(sweep, "--gpus", "GPU-pretend", "--per-gpu", "2", EPOCHS="60")
    acknowledged = {fault: person.acknowledged(sweep, fault) for fault in ("long", "preempted")}
    agents = agents_of(fleet)
    assert len(agents) == 2
    environments = [Path(f"/proc/{person.pid_of(fault)}/environ").read_bytes() for fault in acknowledged]
    assert all(b"\0CUDA_VISIBLE_DEVICES=GPU-pretend\0" in environment for environment in environments)
    rival = person.fleet(sweep, "--gpus", "GPU-pretend")
    assert rival.wait() == 2
    assert f"belongs to another amc-sweep agent of yours (pid {fleet.process.pid})" in rival.complaint
    send(agents[0], signal.SIGKILL)
    send(agents[1], signal.SIGTERM)
    wait_until(lambda: len(fleet.of("agent_ended")) == 2, "both deaths are noticed")
    assert {event["exit_code"] for event in fleet.of("agent_ended")} == {-9, -15}
    assert fleet.wait() == 0, fleet.complaint
    runs = person.runs(sweep)
    assert {run["state"] for run in runs.values()} == {"finished"}
    for fault, epochs in acknowledged.items():
        assert person.epochs(runs[fault]["id"]) == list(range(60)), "its whole history, nothing doubled"
        assert set(epochs) <= set(range(60))
        assert fleet.cause(runs[fault]["id"]) == "completed"
    assert fleet.processes() == []


def no_row_is_lost_while_the_network_refuses_and_none_while_the_server_is_dead(person: Person) -> None:
    outage_s = 3.0  # half a minute each in tests/soak/test_soak_outages.py
    sweep = person.sweep_of(["long", "nothing"])
    network = Network(person.server)
    fleet = person.fleet(sweep, "--workers", "1", EPOCHS="150", WANDB_BASE_URL=network.base_url)
    person.acknowledged(sweep, "long")
    network.refuse()
    time.sleep(outage_s)
    network.restore()
    before = person.acknowledged(sweep, "long", least=40)
    person.server.kill()
    time.sleep(outage_s)
    person.server.restart()
    assert set(before) <= set(person.epochs(person.runs(sweep)["long"]["id"]))
    assert fleet.wait() == 0, fleet.complaint
    network.refuse()
    runs = person.runs(sweep)
    assert person.epochs(runs["long"]["id"]) == list(range(150))
    assert {run["state"] for run in runs.values()} == {"finished"}
    assert {fleet.cause(run["id"]) for run in runs.values()} == {"completed"}


def a_fleet_that_is_terminated_has_its_trial_stop_and_save(person: Person) -> None:
    sweep = person.sweep_of(["long"])
    fleet = person.fleet(sweep, "--workers", "1")
    before = person.acknowledged(sweep, "long")
    send(fleet.process.pid, signal.SIGTERM)
    assert fleet.wait() == 143
    run = person.runs(sweep)["long"]
    assert (run["state"], fleet.cause(run["id"])) == ("finished", "stopped")
    assert set(before) <= set(person.epochs(run["id"]))
    assert fleet.processes() == []


STORIES = (
    a_fleet_that_is_terminated_has_its_trial_stop_and_save,
    a_preempted_trial_is_handed_out_again_and_goes_on_with_its_rows,
    agents_that_die_leave_their_trials_alone_and_are_followed_by_new_ones,
    no_row_is_lost_while_the_network_refuses_and_none_while_the_server_is_dead,
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Any]]:
    return side_by_side(tmp_path_factory.mktemp("faults"), (one_trial_for_each_fault, *STORIES), *QUICK)


@pytest.fixture
def ends(told: dict[str, Future[Any]]) -> Ends:
    found = told[one_trial_for_each_fault.__name__].result()
    assert isinstance(found, Ends)
    return found


@pytest.mark.parametrize("story", [story.__name__ for story in STORIES])
def test_in_a_fleet(told: dict[str, Future[Any]], story: str) -> None:
    told[story].result()


def test_a_trial_that_ends_well_is_finished_and_completed(ends: Ends) -> None:
    assert ends.of("nothing") == ("finished", "completed", 0)
    assert ends.epochs["nothing"] == [0, 1, 2]


def test_a_trial_killed_outright_is_crashed_and_its_acknowledged_rows_stay(ends: Ends) -> None:
    assert ends.of("killed") == ("crashed", "killed_by_signal", -9)
    assert ends.lost("killed") == 0
    assert "SIGKILL" in ends.said("killed")


def test_a_trial_stopped_by_its_agent_saves_and_is_killed_by_wish(ends: Ends) -> None:
    assert ends.of("stopped") == ("killed", "stopped", 0)
    assert ends.epochs["stopped"] == list(range(len(ends.epochs["stopped"])))
    assert ends.lost("stopped") == 0


def test_a_script_without_a_handler_is_still_counted_as_stopped(ends: Ends) -> None:
    state, cause, code = ends.of("stopped without a handler")
    assert (state, cause) == ("killed", "stopped")
    assert code in {-signal.SIGTERM, 255, 130, -signal.SIGINT}, (
        "the agent's SIGTERM, or W&B's own stop if that is first"
    )
    assert ends.lost("stopped without a handler") == 0


def test_out_of_host_memory_is_failed_and_named(ends: Ends) -> None:
    assert ends.of("out of memory") == ("failed", "out_of_memory", 1)
    assert ends.epochs["out of memory"] == [0, 1, 2]
    assert "the configuration fails and is not tried again here: a=0, fault=out of memory" in ends.said("out of memory")


def test_nan_is_failed_and_diverged(ends: Ends) -> None:
    assert ends.of("nan") == ("failed", "diverged", 80)
    assert ends.epochs["nan"] == [0, 1, 2, 3]


def test_an_exception_is_failed_with_its_last_line(ends: Ends) -> None:
    assert ends.of("exception") == ("failed", "error", 1)
    assert "ValueError: the shapes do not match" in ends.said("exception")
    assert ends.epochs["exception"] == [0, 1, 2]


def test_a_data_file_that_vanishes_is_a_data_error(ends: Ends) -> None:
    assert ends.of("data gone") == ("failed", "data_error", 1)
    assert ends.epochs["data gone"] == [0, 1]


def test_a_full_disk_is_an_error_that_says_so(ends: Ends) -> None:
    if "disk full" not in ends.runs:
        pytest.skip("mounting a small disk is not allowed here")
    state, cause, _ = ends.of("disk full")
    assert (state, cause) == ("failed", "error")
    assert "No space left on device" in ends.said("disk full")
    assert ends.epochs["disk full"] == [0, 1, 2]
