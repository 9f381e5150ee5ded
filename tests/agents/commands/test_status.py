"""What amc-sweep status shows of small records; test_operating_commands.py uses real servers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from sweep_records import START, completed, run, sweep

from amc_agents.commands import main
from amc_agents.commands import status as command
from amc_agents.sweep_status import (
    Status,
    SweepAgent,
    failures_by_host,
    read_agents,
    summarise,
    time_left,
)
from amc_analysis.analyse import rank_runs
from amc_core.command_line import INTERRUPTED
from amc_sweeps.number_formats import duration
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.records import SweepUpdate
from amc_sweeps.runs.slurm_jobs import SlurmJob

ALIVE = SweepAgent("a", "gpu-1", runs=3, silent_s=4.0)
SILENT = SweepAgent("b", "gpu-2", runs=2, silent_s=600.0)


TIMEOUT = SlurmJob("4812_3", "4816", "amc-94fqx0gz", "TIMEOUT", "gpu-2", 0)
NODE_FAIL = SlurmJob("4812_4", "4817", "amc-94fqx0gz", "NODE_FAIL", "gpu-3", 1)
RUNNING = SlurmJob("4812_0", "4813", "amc-94fqx0gz", "RUNNING", "gpu-1")


def _status(
    *runs: Any, agents: tuple[SweepAgent, ...] = (ALIVE, SILENT), expected: int | None = 8, **more: Any
) -> Status:
    return summarise("local/amc/94fqx0gz", rank_runs(sweep(*runs, **more)), agents, expected=expected)


def test_slurm_jobs_are_shown_with_the_runs_that_they_ended_and_the_nodes_to_leave_out() -> None:
    record = sweep(
        completed("good", [0.5], host="gpu-1"),
        run("cut", [0.4], state="crashed", host="gpu-2", job=TIMEOUT),
        run("dead", [0.4], state="crashed", host="gpu-3", job=NODE_FAIL),
    )
    status = summarise("local/amc/94fqx0gz", rank_runs(record), (), expected=8, jobs=[RUNNING, TIMEOUT, NODE_FAIL])
    lines = command.as_lines(status)
    first = lines.index("Jobs      1 RUNNING, 1 TIMEOUT, 1 NODE_FAIL")
    assert set(lines[first + 1 : first + 3]) == {
        "            Slurm job 4812_3 on gpu-2: TIMEOUT; its run cut: preempted",
        "            Slurm job 4812_4 on gpu-3: NODE_FAIL; its run dead: node failure",
    }
    assert lines[first + 3 : first + 5] == [
        "Exclude   leave these nodes out of the next launch: --exclude gpu-3",
        "            gpu-3: Slurm job 4812_4 on gpu-3: NODE_FAIL",
    ]
    shown = json.loads(json.dumps(status.to_mapping()))["jobs"]
    assert shown["by_state"] == {"RUNNING": 1, "TIMEOUT": 1, "NODE_FAIL": 1}
    assert {"run": "cut", "job": "4812_3", "state": "TIMEOUT", "nodes": "gpu-2", "cause": "preempted"} in shown[
        "ended_runs"
    ]
    assert [node["node"] for node in shown["exclude"]] == ["gpu-3"]
    assert not any(line.startswith(("Jobs", "Exclude")) for line in command.as_lines(_status()))


def test_the_estimate_divides_the_remaining_work_among_living_agents() -> None:
    left = time_left(state="RUNNING", expected=10, begun=6, ended_s=[60, 120, 600], running_s=[30, 500], agents=2)
    assert left.seconds == (4 * 120 + 90) / 2
    assert left.because == "4 runs to come and 2 alive, at 2 min each (median of 3 ended runs), on 2 agents"


def test_the_estimate_covers_the_run_with_most_time_left() -> None:
    left = time_left(state="RUNNING", expected=3, begun=3, ended_s=[600], running_s=[10], agents=8)
    assert left.seconds == 590


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"state": "PAUSED"}, "the sweep is paused"),
        ({"expected": None}, "the sweep has no run_cap, and its search has no end"),
        ({"ended_s": []}, "no run has ended yet"),
        ({"agents": 0}, "no agent is alive"),
    ],
)
def test_an_unknown_time_has_a_reason(changes: dict[str, Any], because: str) -> None:
    arguments: dict[str, Any] = {
        "state": "RUNNING",
        "expected": 9,
        "begun": 2,
        "ended_s": [5],
        "running_s": [],
        "agents": 1,
    }
    left = time_left(**{**arguments, **changes})
    assert (left.seconds, left.because) == (None, because)


@pytest.mark.parametrize(
    ("search", "line"),
    [
        ({"method": "bayes", "seed": 7, "shuffle": False}, "Seed      7"),
        ({"method": "grid", "seed": 0, "shuffle": True}, "Seed      0, of the order of the grid"),
        ({"method": "grid", "seed": 7, "shuffle": False}, None),  # it has no effect
        ({"method": "random", "seed": None, "shuffle": False}, None),
        ({}, None),  # another server does not tell
    ],
)
def test_the_seed_is_shown_where_it_has_an_effect(search: dict[str, Any], line: str | None) -> None:
    status = replace(_status(completed("r", [0.4])), search=search)
    assert [text for text in command.as_lines(status) if text.startswith("Seed")] == ([] if line is None else [line])
    assert status.to_mapping()["sweep"]["seed"] == search.get("seed")


def test_status_says_what_the_search_was_told_of_runs() -> None:
    runs = [
        completed("r", [0.4]),
        completed("s", [0.5]),
        run("d", [0.1], "failed", exit_code=80, stop_recorded=False),
        run("l", [0.1], "crashed", stop_recorded=False),
        run("a", [0.1], "running", heartbeat_at=START + timedelta(hours=1)),
    ]
    config = {"method": "bayes", "metric": {"name": "val/combined_acc", "goal": "maximize"}}
    status = _status(*runs, config=config, crashed_runs="auto")
    assert "Search    bayes, crashed runs: auto; told: 2 peak, 1 constraint, 1 extrapolated" in command.as_lines(status)
    document = status.to_mapping()
    assert document["sweep"]["crashed_runs"] == "auto"
    assert document["runs"]["by_treatment"] == {"peak": 2, "constraint": 1, "extrapolated": 1}
    other = _status(*runs, config=config)  # a server of W&B
    assert other.treatments == {"peak": 2, "worst value": 2}
    grid = _status(*runs, config={**config, "method": "grid"})
    assert (grid.crashed_runs, grid.treatments) == (None, {})


def test_the_last_change_of_the_config_is_shown() -> None:
    configs = [{"method": "grid", "parameters": {"a": {"values": list(range(count))}}} for count in (1, 2, 3)]
    updates = (SweepUpdate(None, None, configs[0]), SweepUpdate(START, "ann@box", configs[1]))
    record = sweep(completed("r", [0.4]), config=configs[2], updates=updates)
    status = summarise("local/amc/s", rank_runs(record), (ALIVE,), expected=6)
    lines = command.as_lines(status)
    at = lines.index("Changed   on 2025-07-01 at 12:00 UTC by ann@box, 2 changes in all")
    assert lines[at + 1] == "            a: 2 is new"
    assert status.to_mapping()["updates"] == [
        {"at": None, "author": None, "changes": ["a: 1 is new"]},
        {"at": "2025-07-01T12:00:00+00:00", "author": "ann@box", "changes": ["a: 2 is new"]},
    ]


def test_prior_runs_are_counted_apart_from_run_cap() -> None:
    runs = [completed(f"r{number}", [0.4]) for number in range(4)]
    status = summarise("local/amc/s", rank_runs(sweep(*runs)), (ALIVE,), expected=6, prior=3)
    assert "Runs      1 of 6: 4 finished, 3 of them prior" in command.as_lines(status)
    assert status.to_mapping()["runs"] | {"by_cause": {}, "by_treatment": {}} == {
        **{"total": 1, "prior": 3, "expected": 6, "by_state": {"finished": 4}, "by_cause": {}, "unread": 0},
        "by_treatment": {},
    }
    assert status.time_left.because.startswith("5 runs to come")


def test_a_finished_sweep_waits_only_for_its_living_runs() -> None:
    arguments: dict[str, Any] = {"expected": 20, "begun": 5, "ended_s": [100], "agents": 1}
    assert time_left(state="FINISHED", running_s=[], **arguments).seconds == 0
    assert time_left(state="FINISHED", running_s=[40], **arguments).seconds == 60


def test_failures_are_counted_by_host_without_early_stops() -> None:
    ends = [("gpu-1", Cause.COMPLETED), ("gpu-1", Cause.EARLY_STOPPED), ("gpu-1", Cause.RUNNING)]
    ends += [("gpu-2", Cause.LOST), ("gpu-2", Cause.LOST), ("gpu-2", Cause.COMPLETED), (None, Cause.OUT_OF_MEMORY)]
    failures = [(host.host, host.failed, host.ended, dict(host.causes)) for host in failures_by_host(ends)]
    assert failures == [("gpu-2", 2, 3, {"lost": 2}), ("unknown host", 1, 1, {"out_of_memory": 1})]


def test_an_agent_heard_within_a_minute_is_alive() -> None:
    def node(host: str, heard_at: str | None) -> dict[str, Any]:
        return {"name": host, "host": host, "totalRuns": 1, "heartbeatAt": heard_at}

    nodes = [node("never", None), node("old", "2025-07-01T11:00:00Z"), node("new", "2025-07-01T11:59:30")]
    agents = read_agents([*nodes, node("ahead", "2025-07-01T12:00:05Z")], START)
    assert [(agent.host, agent.silent_s, agent.is_alive) for agent in agents] == [
        ("ahead", 0.0, True),  # the server's clock is ahead of ours
        ("new", 30.0, True),
        ("old", 3600.0, False),
        ("never", None, False),
    ]


def test_the_status_is_shown_in_lines_and_in_json() -> None:
    early = {"stop_recorded": True, "stop_reason": "hyperband", "config": {"epochs": 8}}
    status = _status(
        completed("whole", [0.4, 0.5], host="gpu-1"),
        run("lost", [0.3, 0.9, 0.1], state="crashed", host="gpu-2", name="clear-sweep-2"),
        run("early", [0.1, 0.1], state="killed", host="gpu-1", **early),
        run("alive", [0.2], state="running", heartbeat_at=START + timedelta(hours=1)),
    )
    lines = command.as_lines(status)
    assert lines[0] == "a sweep (local/amc/94fqx0gz): running, maximize val/combined_acc"
    assert "Runs      4 of 8: 1 running, 1 finished, 1 crashed, 1 killed" in lines
    assert "Best      90.00% peak at epoch 2 of clear-sweep-2 (lost), lost" in lines
    assert "Agents    1 alive, 1 silent (ended or lost)" in lines
    assert "            silent  gpu-2: heard 10 min ago, 2 runs" in lines
    assert "Failures  gpu-2: 1 of 1 ended runs (1 lost)" in lines
    assert "Epochs    8 spent, about 6 saved by Hyperband" in lines
    assert lines[-1].startswith("Left      about ")
    document = json.loads(json.dumps(status.to_mapping(), allow_nan=False))
    assert document["best"] == {
        **{"run_id": "lost", "name": "clear-sweep-2", "peak": 0.9, "peak_epoch": 2.0, "cause": "lost"}
    }
    assert document["runs"]["by_cause"] == {"completed": 1, "lost": 1, "early_stopped": 1}
    assert document["failures_by_host"] == [{"host": "gpu-2", "failed": 1, "ended": 1, "causes": {"lost": 1}}]


def test_an_empty_sweep_has_a_status() -> None:
    status = _status(agents=(), expected=None, state="PENDING")
    lines = command.as_lines(status)
    assert "Runs      0" in lines
    assert "Agents    none yet" in lines
    assert "Best      no run has logged val/combined_acc yet" in lines
    assert lines[-1] == "Left      unknown: the sweep has no run_cap, and its search has no end"


def test_a_run_that_logged_only_nan_is_not_the_best() -> None:
    assert _status(run("nan", [math.nan])).best is None


def test_a_sweep_is_over_when_it_is_finished_and_no_run_is_alive() -> None:
    alive = run("alive", [0.2], state="running", heartbeat_at=START + timedelta(hours=1))
    assert not _status(completed("one", [0.5]), state="RUNNING").is_over
    assert not _status(alive, state="FINISHED").is_over
    assert _status(completed("one", [0.5]), state="FINISHED").is_over


def test_watching_in_a_log_prints_only_changes_and_ends_with_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    going, over = _status(completed("one", [0.5])), _status(completed("one", [0.5]), state="FINISHED")

    def statuses() -> Iterator[Status]:
        yield from (going, going, over)

    command._watch_in_log(statuses(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "running: 1 of 8: 1 finished; best 50.00%; 1 agent alive; about" in lines[0]
    assert "finished: 1 of 8: 1 finished; best 50.00%; nothing: the sweep is over" in lines[1]


def test_watching_ends_at_ctrl_c_with_130_without_waiting_for_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_target: object) -> Status:
        raise KeyboardInterrupt

    def exit_now(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(command, "open_target", lambda *_, **__: None)
    monkeypatch.setattr(command, "_read", interrupted)
    monkeypatch.setattr(command.os, "_exit", exit_now)
    assert CliRunner().invoke(main, ["status", "94fqx0gz", "--watch"]).exit_code == INTERRUPTED


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min"), (90, "1 min 30 s"), (660, "11 min"), (7300, "2 h 1 min"), (200000, "2 d 7 h")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_agents_of_a_sweep_that_is_over_are_not_called_alive() -> None:
    lines = command.as_lines(_status(completed("one", [0.5]), state="FINISHED"))
    assert "Agents    2; they end by themselves: the sweep is over" in lines


def test_a_cancelled_sweep_is_spelt_as_its_runs_are() -> None:
    assert (
        command.as_lines(_status(completed("one", [0.5]), state="CANCELED"))[0].split(": ")[1].startswith("cancelled")
    )


def test_a_misspelt_metric_is_answered_with_what_is_logged() -> None:
    record = sweep(run("a", [], state="finished", summary={"loss": 1.0, "val/combined_acc ": 0.5, "_step": 3}))
    status = summarise("local/amc/s", rank_runs(record), (), expected=None)
    best = next(line for line in command.as_lines(status) if line.startswith("Best"))
    assert best.startswith("Best      no run has logged 'val/combined_acc', which the sweep's file names; logged: ")
    assert best.endswith("'val/combined_acc ', 'loss'")
    assert status.to_mapping()["logged_metrics"] == ["val/combined_acc ", "loss"]
    alive = run("a", [], state="running", heartbeat_at=START + timedelta(hours=1))
    started = summarise("local/amc/s", rank_runs(sweep(alive)), (), expected=None)
    assert "Best      no run has logged val/combined_acc yet" in command.as_lines(started)


def test_failed_runs_that_are_no_failures_are_named() -> None:
    stopped = run("a", [0.5], state="failed", exit_code=130, summary={"end_reason": "interrupted"})
    status = summarise("local/amc/s", rank_runs(sweep(stopped)), (), expected=None)
    assert "Failures  none (1 interrupted not counted)" in command.as_lines(status)


def test_watching_ends_where_nobody_reads_it_unless_a_webhook_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    going = _status(completed("one", [0.5]))
    monkeypatch.setattr(command, "is_unread", lambda: True)
    for also_unread, left in ((False, 2), (True, 0)):
        statuses = iter([going] * 3)
        command._watch_in_log(statuses, as_json=False, also_unread=also_unread)
        assert len(list(statuses)) == left
