"""The rows of the table of faults in docs/fleet.md, with the real client, agent and server."""

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

# tests/server/scheduling/test_state_inference.py tests the rules behind these limits with a simulated clock.
QUICK = ("silence_s=6", "unlisted_s=2", "stop_grace_s=1", "stop_delivery_s=1")
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
    """The ends of one trial for each fault, all in one fleet."""

    fleet: Fleet
    runs: dict[str, dict[str, Any]]
    epochs: dict[str, list[int]]
    acknowledged: dict[str, list[int]]

    def of(self, fault: str) -> tuple[str, str | None, int | None]:
        run = self.runs[fault]
        return run["state"], self.fleet.cause(run["id"]), self.exit_code(fault)

    def exit_code(self, fault: str) -> int | None:
        run = self.runs[fault]["id"]
        return next(event.get("exit_code") for event in self.fleet.of("ended") if event["run"] == run)

    def text(self, fault: str) -> str:
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
        assert fleet.wait() == 0, fleet.stderr
        runs = person.runs(sweep)
        assert set(runs) == set(faults), "every configuration began once"
        assert fleet.processes() == []
        return Ends(fleet, runs, {fault: person.epochs(run["id"]) for fault, run in runs.items()}, acknowledged)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a disk of 8 MB if that is allowed, else yield None."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False)
    try:
        yield folder if mounted.returncode == 0 else None
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def a_preempted_run_is_handed_out_again_and_keeps_its_rows(person: Person) -> None:
    sweep = person.sweep_of(["preempted"])
    first = person.fleet(sweep, "--workers", "1", AMC_SIGTERM="preemption")
    before = person.acknowledged(sweep, "preempted")
    send(first.process.pid, signal.SIGTERM)
    assert first.wait() == 75
    run = person.runs(sweep)["preempted"]
    assert (run["state"], first.cause(run["id"])) == ("preempted", "preempted")
    assert first.processes() == []
    second = person.fleet(sweep, "--workers", "1")
    assert second.wait() == 0, second.stderr
    again = person.runs(sweep)["preempted"]
    assert (again["id"], again["state"], second.cause(again["id"])) == (run["id"], "finished", "completed")
    assert set(before) <= set(person.epochs(run["id"]))


def trials_of_dead_agents_go_on_and_new_agents_follow(person: Person) -> None:
    sweep = person.sweep_of(["long", "preempted", "nothing"])
    fleet = person.fleet(sweep, "--gpus", "GPU-pretend", "--per-gpu", "2", EPOCHS="60")
    acknowledged = {fault: person.acknowledged(sweep, fault) for fault in ("long", "preempted")}
    agents = agents_of(fleet)
    assert len(agents) == 2
    environments = [Path(f"/proc/{person.pid_of(fault)}/environ").read_bytes() for fault in acknowledged]
    assert all(b"\0CUDA_VISIBLE_DEVICES=GPU-pretend\0" in environment for environment in environments)
    rival = person.fleet(sweep, "--gpus", "GPU-pretend")
    assert rival.wait() == 2
    assert f"belongs to another amc-sweep agent of yours (pid {fleet.process.pid})" in rival.stderr
    send(agents[0], signal.SIGKILL)
    send(agents[1], signal.SIGTERM)
    wait_until(lambda: len(fleet.of("agent_ended")) == 2, "both deaths are reported")
    assert {event["exit_code"] for event in fleet.of("agent_ended")} == {-9, -15}
    assert fleet.wait() == 0, fleet.stderr
    runs = person.runs(sweep)
    assert {run["state"] for run in runs.values()} == {"finished"}
    for fault, epochs in acknowledged.items():
        assert person.epochs(runs[fault]["id"]) == list(range(60)), "its whole history, without duplicates"
        assert set(epochs) <= set(range(60))
        assert fleet.cause(runs[fault]["id"]) == "completed"
    assert fleet.processes() == []


def no_row_is_lost_while_network_or_server_are_down(person: Person) -> None:
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
    assert fleet.wait() == 0, fleet.stderr
    network.refuse()
    runs = person.runs(sweep)
    assert person.epochs(runs["long"]["id"]) == list(range(150))
    assert {run["state"] for run in runs.values()} == {"finished"}
    assert {fleet.cause(run["id"]) for run in runs.values()} == {"completed"}


def a_terminated_fleet_lets_its_trial_stop_and_save(person: Person) -> None:
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
    a_terminated_fleet_lets_its_trial_stop_and_save,
    a_preempted_run_is_handed_out_again_and_keeps_its_rows,
    trials_of_dead_agents_go_on_and_new_agents_follow,
    no_row_is_lost_while_network_or_server_are_down,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Any]]:
    return side_by_side(tmp_path_factory.mktemp("faults"), (one_trial_for_each_fault, *STORIES), *QUICK)


@pytest.fixture
def ends(results: dict[str, Future[Any]]) -> Ends:
    ends = results[one_trial_for_each_fault.__name__].result()
    assert isinstance(ends, Ends)
    return ends


@pytest.mark.parametrize("story", [story.__name__ for story in STORIES])
def test_in_a_fleet(results: dict[str, Future[Any]], story: str) -> None:
    results[story].result()


def test_a_trial_that_ends_well_is_finished_and_completed(ends: Ends) -> None:
    assert ends.of("nothing") == ("finished", "completed", 0)
    assert ends.epochs["nothing"] == [0, 1, 2]


def test_a_killed_trial_is_crashed_and_keeps_its_acknowledged_rows(ends: Ends) -> None:
    assert ends.of("killed") == ("crashed", "killed_by_signal", -9)
    assert ends.lost("killed") == 0
    assert "SIGKILL" in ends.text("killed")


def test_a_trial_stopped_by_its_agent_saves_and_counts_as_stopped(ends: Ends) -> None:
    assert ends.of("stopped") == ("killed", "stopped", 0)
    assert ends.epochs["stopped"] == list(range(len(ends.epochs["stopped"])))
    assert ends.lost("stopped") == 0


def test_a_stopped_script_without_a_handler_counts_as_stopped(ends: Ends) -> None:
    state, cause, code = ends.of("stopped without a handler")
    assert (state, cause) == ("killed", "stopped")
    assert code in {-signal.SIGTERM, 255, 130, -signal.SIGINT}, "by the agent's SIGTERM, or by W&B's own stop"
    assert ends.lost("stopped without a handler") == 0


def test_out_of_host_memory_is_failed_with_its_configuration(ends: Ends) -> None:
    assert ends.of("out of memory") == ("failed", "out_of_memory", 1)
    assert ends.epochs["out of memory"] == [0, 1, 2]
    assert "the configuration fails and is not tried again here: a=0, fault=out of memory" in ends.text("out of memory")


def test_nan_is_failed_and_diverged(ends: Ends) -> None:
    assert ends.of("nan") == ("failed", "diverged", 80)
    assert ends.epochs["nan"] == [0, 1, 2, 3]


def test_an_exception_is_failed_with_its_last_line(ends: Ends) -> None:
    assert ends.of("exception") == ("failed", "error", 1)
    assert "ValueError: the shapes do not match" in ends.text("exception")
    assert ends.epochs["exception"] == [0, 1, 2]


def test_a_data_file_that_vanishes_is_a_data_error(ends: Ends) -> None:
    assert ends.of("data gone") == ("failed", "data_error", 1)
    assert ends.epochs["data gone"] == [0, 1]


def test_a_full_disk_is_an_environment_error_with_its_message(ends: Ends) -> None:
    if "disk full" not in ends.runs:
        pytest.skip("this machine does not allow mounting a small disk")
    state, cause, _ = ends.of("disk full")
    assert (state, cause) == ("failed", "environment_error")
    assert "No space left on device" in ends.text("disk full")
    assert ends.epochs["disk full"] == [0, 1, 2]
