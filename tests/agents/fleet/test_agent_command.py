"""amc-sweep agent as a user runs it: what it refuses, when it begins no more trials, and how it ends."""

from __future__ import annotations

import signal
from concurrent.futures import Future
from typing import Any

import pytest
from click.testing import CliRunner
from client_scenarios import wait_until
from fleet_scenarios import Person, agents_of, send, side_by_side

from amc_agents.commands import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ab12cd34", "--gpus", "0", "--workers", "2"], "exclude each other"),
        (["ab12cd34", "--gpus", "first"], "nvidia-smi -L"),
        (["a/b/c/d", "--workers", "1"], "does not name a sweep"),
        (["ab12cd34", "--time-limit", "soon"], "write it like 7h30m"),
        (["ab12cd34", "--time-limit", "9" * 400 + "h"], "too long: at most 3650 d"),
        (["ab12cd34", "--workers", "1"], "Three ways to name a W&B"),
    ],
)
def test_wrong_arguments_are_refused_with_a_remedy(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(main, ["agent", *arguments])
    assert done.exit_code == 2
    assert words in done.output


def count_limits_the_trials_and_an_unknown_sweep_is_refused(person: Person) -> None:
    sweep = person.sweep_of(["nothing"], repeats=4)
    unknown = person.fleet("nosuch00", "--workers", "1")
    counted = person.fleet(sweep, "--workers", "2", "--count", "3")
    assert counted.wait() == 0, counted.stderr
    assert len(person.sweep(sweep)["runs"]) == 3
    assert counted.of("done")[0]["text"].startswith("all trials of --count have begun: 3 trials ended")
    assert unknown.wait() == 2
    assert "no sweep nosuch00" in unknown.stderr
    assert sweep in unknown.stderr, "the message names similar sweeps"
    assert counted.processes() == []


def max_failures_ends_the_fleet_with_the_reason(person: Person) -> None:
    sweep = person.sweep_of(["exception"], repeats=4)
    failing = person.fleet(sweep, "--workers", "1", "--max-failures", "1")
    assert failing.wait() == 1
    assert "1 trial failed (error): --max-failures 1" in failing.of("done")[0]["text"]
    assert [event["cause"] for event in failing.of("ended")] == ["error"]
    assert len(failing.of("halted")) == 1
    assert len(person.sweep(sweep)["runs"]) == 1


def the_first_ctrl_c_asks_trials_to_end_and_the_second_kills_them(person: Person) -> None:
    sweep = person.sweep_of(["deaf", "long"])
    fleet = person.fleet(sweep, "--workers", "2", "--time-limit", "1h", "--grace", "5m")
    acknowledged = {fault: person.acknowledged(sweep, fault) for fault in ("deaf", "long")}
    send(fleet.process.pid, signal.SIGINT)
    runs = person.runs(sweep)
    wait_until(lambda: fleet.cause(runs["long"]["id"]) == "interrupted", "the trial with a handler ends by itself")
    assert fleet.process.poll() is None, "the other trial still has its grace"
    assert agents_of(fleet) == [], "no agent is left to start another trial"
    send(fleet.process.pid, signal.SIGINT)
    assert fleet.wait(30) == 130
    assert fleet.cause(runs["deaf"]["id"]) == "killed_by_signal"
    assert fleet.processes() == []
    assert person.runs(sweep)["long"]["exitcode"] == 130
    for fault, epochs in acknowledged.items():
        assert set(epochs) <= set(person.epochs(runs[fault]["id"]))
    assert set(person.runs(sweep)) == {"deaf", "long"}


def a_killed_fleet_leaves_no_process_and_its_trial_has_saved(person: Person) -> None:
    sweep = person.sweep_of(["long"])
    fleet = person.fleet(sweep, "--workers", "1")
    person.acknowledged(sweep, "long")
    assert len(fleet.processes()) >= 3, "an agent, a trial, their clients"
    fleet.process.kill()
    fleet.process.wait()
    wait_until(
        lambda: "the fleet was killed: its guardian has ended" in fleet.stderr, "the guardian writes its line", 30
    )
    assert fleet.processes() == []
    run = person.runs(sweep)["long"]
    assert (run["state"], run["exitcode"]) == ("finished", 0), "after SIGTERM it stopped, saved and reported its end"
    assert person.epochs(run["id"]) == list(range(len(person.epochs(run["id"]))))


def no_trial_begins_that_would_not_end_in_time(person: Person) -> None:
    sweep = person.sweep_of(["long"], repeats=2)
    # The first trial lasts 33 s, more than half of the limit. So whenever it begins, a second one is too late.
    limits = ("--time-limit", "60s", "--late-exit-code", "75")
    fleet = person.fleet(sweep, "--workers", "1", *limits, EPOCHS="330")
    assert fleet.wait(240) == 75, fleet.stderr
    assert "no trial would end in time" in fleet.of("done")[0]["text"]
    states = [run["state"] for run in person.sweep(sweep)["runs"].values()]
    assert states == ["finished"] * len(fleet.of("began")), "a running trial continues"
    assert len(states) <= 1


def a_paused_sweep_is_named_when_the_time_is_over(person: Person) -> None:
    sweep = person.sweep_of(["nothing"], repeats=2)
    first = person.fleet(sweep, "--workers", "1", "--count", "1", unread=True)  # only a sweep that runs can be paused
    assert first.wait() == 0, "nobody reads its output, as after `| head`, and it goes on"
    assert [run["state"] for run in person.sweep(sweep)["runs"].values()] == ["finished"]
    person.wandb("sweep", "--pause", sweep)
    fleet = person.fleet(sweep, "--workers", "1", "--time-limit", "4s")
    assert fleet.wait() == 0, fleet.stderr
    assert [event["text"].partition(":")[0] for event in fleet.of("sweep")] == ["the sweep is paused"]
    assert "--time-limit is over while the sweep is paused" in fleet.of("done")[0]["text"]
    idle = person.fleet(sweep, "--workers", "2", "--idle-limit", "6s", "--stagger", "0.1s")
    assert idle.wait(60) == 0, idle.stderr
    assert "the sweep stayed paused for --idle-limit" in idle.of("done")[0]["text"]
    assert idle.processes() == []


STORIES = (
    a_paused_sweep_is_named_when_the_time_is_over,
    count_limits_the_trials_and_an_unknown_sweep_is_refused,
    max_failures_ends_the_fleet_with_the_reason,
    the_first_ctrl_c_asks_trials_to_end_and_the_second_kills_them,
    a_killed_fleet_leaves_no_process_and_its_trial_has_saved,
    no_trial_begins_that_would_not_end_in_time,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Any]]:
    return side_by_side(tmp_path_factory.mktemp("command"), STORIES, "unlisted_s=2")


@pytest.mark.client
@pytest.mark.parametrize("story", [story.__name__ for story in STORIES])
def test_in_a_fleet(results: dict[str, Future[Any]], story: str) -> None:
    results[story].result()
