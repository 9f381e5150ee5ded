"""An analysed sweep: failures by host and agent, commands that repeat a run, saved epochs."""

from __future__ import annotations

from dataclasses import replace

from sweep_records import completed, run, sweep

from amc_analysis.analyse import rank_runs
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.commands import repeat_commands
from amc_sweeps.runs.records import RunRecord

OWN = {"program": "amc-train", "parameters": {"max_lr": {"values": [1e-3, 2e-3]}, "epochs": {"value": 20}}}


def broken_host() -> AnalysedSweep:
    """Return a sweep with three hosts: on one all runs fail, on one half of them, on one none."""
    bad = [run(f"bad{i}", [0.1], "failed", exit_code=1, host="gpu-3", agent="a1") for i in range(4)]
    half = [
        run("h1", [0.1], "failed", exit_code=80, host="gpu-2", agent="a2"),
        completed("h2", [0.5], host="gpu-2", agent="a2"),
    ]
    good = [completed("g1", [0.6], host="gpu-1", agent="a2"), completed("nowhere", [0.4])]
    return rank_runs(sweep(*bad, *half, *good))


def test_failures_are_counted_by_host_and_by_agent_the_worst_first() -> None:
    analysed = broken_host()
    assert [(place.name, place.rate.failures, place.rate.ended) for place in analysed.hosts] == [
        ("gpu-3", 4, 4),
        ("gpu-2", 1, 2),
        ("gpu-1", 0, 1),
    ]
    assert [(place.name, place.rate.failures, place.rate.ended) for place in analysed.agents] == [
        ("a1", 4, 4),
        ("a2", 1, 3),
    ]
    assert analysed.hosts[0].causes == {Cause.ERROR: 4}
    low, high = analysed.hosts[0].rate.interval
    assert 0.5 < low < high == 1.0


def test_a_run_that_was_cut_short_can_be_repeated_or_resumed() -> None:
    runs = [
        run("lost", [0.1], "crashed", config={"max_lr": 1e-3}),
        run("diverged", [0.2], "failed", exit_code=80, config={"max_lr": 2e-3}),
    ]
    analysed = rank_runs(sweep(*runs, config=OWN))
    commands = {entry.run.run_id: repeat_commands(analysed.record, entry) for entry in analysed.ranked}
    assert commands["lost"] == (
        "amc-sweep repeat local/amc-sweeps/lost",
        "amc-sweep resume local/amc-sweeps/lost",
    )
    assert commands["diverged"] == ("amc-sweep repeat local/amc-sweeps/diverged",)


def test_a_command_is_one_word_a_name_for_the_shell() -> None:
    record = replace(sweep(run("a", [0.1], "failed", config={}), config=OWN), project="a b;c")
    commands = [repeat_commands(record, entry) for entry in rank_runs(record).ranked]
    assert commands == [("amc-sweep repeat 'local/a b;c/a'",)]


def test_a_run_of_another_script_is_repeated_by_its_own_command_line() -> None:
    foreign = {**OWN, "program": "train.py"}
    analysed = rank_runs(
        sweep(run("a", [0.1], "crashed", config={"max_lr": 1e-3, "epochs": 20, "note": "x"}), config=foreign)
    )
    assert repeat_commands(analysed.record, analysed.ranked[0]) == ("python train.py --max_lr=0.001 --epochs=20",)


def test_a_run_without_a_sweep_is_a_trial_if_it_has_the_whole_configuration() -> None:
    config = {"model_type": "resnet50", "snr_layer": "standard", "representation": "synced", "split_seed": 0}
    ours, others = run("ours", [0.2], "crashed", config=config), run("others", [0.1], "crashed", config={"lr": 0.1})
    analysed = rank_runs(sweep(ours, others))
    commands = [repeat_commands(analysed.record, entry) for entry in analysed.ranked]
    assert commands == [("amc-sweep repeat local/amc-sweeps/ours", "amc-sweep resume local/amc-sweeps/ours"), ()]


def stopped(run_id: str, epochs: int, planned: int | None) -> RunRecord:
    """Return a run that Hyperband stopped."""
    config = {} if planned is None else {"epochs": planned}
    flags = {"stop_recorded": True, "stop_reason": "hyperband"}
    return run(run_id, [0.1] * epochs, "killed", config=config, **flags)


def test_saved_epochs_were_planned_and_not_taken() -> None:
    analysed = rank_runs(sweep(stopped("a", 5, 60), stopped("b", 15, 60), stopped("c", 3, None), completed("d", [0.5])))
    assert (analysed.early_stops.runs, analysed.early_stops.epochs_saved) == (3, 55 + 45)
    assert rank_runs(sweep(stopped("c", 3, None))).early_stops.epochs_saved is None


def test_early_stops_are_censored_in_the_failure_rate() -> None:
    lost = run("lost", [0.1] * 2, "crashed")
    rate = rank_runs(sweep(stopped("a", 5, 60), stopped("b", 5, 60), lost, completed("d", [0.5]))).failure_rate
    assert (rate.failures, rate.ended, rate.not_finished) == (1, 4, 3)
    assert rate.censored == {Cause.EARLY_STOPPED: 2}
