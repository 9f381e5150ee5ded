"""Evidence from records: Hyperband decisions, cancellations, lost hosts, epochs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sweep_records import START, completed, run, sweep

from amc_sweeps.runs.causes import Cause, classify
from amc_sweeps.runs.evidence import epochs_done, epochs_planned, evidence_of, hyperband_of
from amc_sweeps.runs.records import RunRecord, SweepRecord

HYPERBAND = {"early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 3, "strict": True}}  # bands 3, 9, 27


def cause_of(record: SweepRecord, run_id: str) -> Cause:
    return classify(evidence_of(record)[run_id]).cause


def good(count: int, **fields: object) -> list[RunRecord]:
    return [completed(f"good{i}", [0.1 * e + 0.01 * i for e in range(1, 10)], **fields) for i in range(count)]


def test_a_recorded_stop_of_a_bad_run_is_by_hyperband() -> None:
    stopped = run("bad", [0.01, 0.02, 0.03, 0.04], "killed", stop_recorded=True)
    record = sweep(*good(3), stopped, config=HYPERBAND)
    band = evidence_of(record)["bad"].band
    assert band is not None
    assert (band.band, band.value) == (3, 0.03)
    assert cause_of(record, "bad") is Cause.EARLY_STOPPED


def test_a_recorded_stop_of_the_best_run_is_by_a_person() -> None:
    stopped = run("best", [0.5, 0.6, 0.7, 0.8], "killed", stop_recorded=True)
    assert cause_of(sweep(*good(3), stopped, config=HYPERBAND), "best") is Cause.STOPPED


def test_a_recorded_stop_before_the_first_band_is_by_a_person() -> None:
    stopped = run("early", [0.01, 0.01], "killed", stop_recorded=True)
    assert cause_of(sweep(*good(3), stopped, config=HYPERBAND), "early") is Cause.STOPPED


def test_a_stop_is_judged_by_the_threshold_of_its_time() -> None:
    """Later and worse runs lower the threshold; a decision before them still counts."""
    stopped = run("mid", [0.05, 0.10, 0.15], "killed", stop_recorded=True)
    later = [run(f"late{i}", [0.01] * 3, "killed", stop_recorded=True, start_s=9999) for i in range(9)]
    band = evidence_of(sweep(*good(2), stopped, *later, config=HYPERBAND))["mid"].band
    assert band is not None
    assert band.value == 0.15


def test_a_run_that_crashed_past_a_band_it_survived_is_not_an_early_stop() -> None:
    crashed = run("a", [0.2 * e for e in range(10)], "crashed")
    assert cause_of(sweep(*good(3), crashed, config=HYPERBAND), "a") is Cause.LOST


def test_no_stop_is_inferred_where_the_server_records_none() -> None:
    crashed = run("bad", [0.01, 0.02, 0.03], "crashed", stop_recorded=False)
    assert cause_of(sweep(*good(3), crashed, config=HYPERBAND), "bad") is Cause.LOST


def test_without_flags_a_lost_run_below_the_threshold_is_an_early_stop() -> None:
    crashed = run("bad", [0.01, 0.02, 0.03], "crashed", stop_recorded=None)
    assert cause_of(sweep(*good(3), crashed, config=HYPERBAND), "bad") is Cause.EARLY_STOPPED


def test_a_crash_after_a_survived_band_is_not_an_early_stop() -> None:
    """Below the final threshold of band 3, but above that of band 9; the run crashed at 10 values."""
    values = [0.01, 0.02, 0.03, 0.3, 0.5, 0.6, 0.8, 0.9, 1.0, 1.0]
    assert cause_of(sweep(*good(3), run("a", values, "crashed"), config=HYPERBAND), "a") is Cause.LOST


def test_without_early_terminate_a_stop_is_by_a_person() -> None:
    assert hyperband_of({}) is None
    assert cause_of(sweep(*good(3), run("bad", [0.0] * 3, "killed", stop_recorded=True)), "bad") is Cause.STOPPED


def test_hyperband_is_read_leniently_from_other_peoples_sweeps() -> None:
    config = hyperband_of({"early_terminate": {"type": "hyperband", "max_iter": 27, "s": 2, "unknown": 1}})
    assert config is not None
    assert (config.max_iter, config.s, config.eta, config.strict) == (27, 2, 3, True)
    assert hyperband_of({"early_terminate": {"type": "envelope"}}) is None


def test_cancelling_ends_the_runs_that_were_alive() -> None:
    record = sweep(
        run("long dead", [0.1] * 2, "crashed"),
        run("alive", [0.1] * 20, "crashed"),
        run("stopped", [0.1] * 20, "killed", stop_recorded=True),
        completed("done", [0.1] * 20),
        state="CANCELED",
        updated_at=START + timedelta(seconds=20 * 60 + 15),
    )
    causes = {run_id: classify(evidence).cause for run_id, evidence in evidence_of(record).items()}
    assert causes == {"long dead": "lost", "alive": "cancelled", "stopped": "cancelled", "done": "completed"}


def test_a_cancellation_at_an_unknown_time_does_not_explain_a_crash() -> None:
    record = sweep(run("a", [0.1] * 3, "crashed"), state="CANCELED")
    assert cause_of(record, "a") is Cause.LOST


def test_three_runs_of_one_host_lost_together_are_a_node_failure() -> None:
    together = [run(f"r{i}", [0.1] * 5, "crashed", host="gpu-3") for i in range(3)]
    elsewhere = run("other", [0.1] * 5, "crashed", host="gpu-4")
    earlier = run("earlier", [0.1], "crashed", host="gpu-3")
    record = sweep(*together, elsewhere, earlier)
    assert [cause_of(record, f"r{i}") for i in range(3)] == [Cause.NODE_FAILURE] * 3
    assert cause_of(record, "other") is Cause.LOST
    assert cause_of(record, "earlier") is Cause.LOST


def test_lost_runs_that_were_not_alive_together_are_no_node_failure() -> None:
    def brief(number: int) -> RunRecord:
        begin = START + timedelta(seconds=40 * number)
        times = {"created_at": begin, "heartbeat_at": begin + timedelta(seconds=5)}
        return run(f"r{number}", [0.1], "crashed", host="gpu-3", **times)

    one_by_one = [brief(number) for number in range(3)]
    assert [cause_of(sweep(*one_by_one), f"r{i}") for i in range(3)] == [Cause.LOST] * 3


def test_a_surviving_run_of_the_host_rules_out_a_node_failure() -> None:
    together = [run(f"r{i}", [0.1] * 5, "crashed", host="gpu-3") for i in range(3)]
    survivor = completed("survivor", [0.1] * 20, host="gpu-3")
    assert cause_of(sweep(*together, survivor), "r0") is Cause.LOST
    later = completed("later", [0.1] * 5, host="gpu-3", start_s=3000.0, created_at=START + timedelta(seconds=3000))
    assert cause_of(sweep(*together, later), "r0") is Cause.NODE_FAILURE


def test_the_age_of_a_heartbeat_is_measured_from_the_reading() -> None:
    record = sweep(
        run("fresh", state="running", heartbeat_at=START + timedelta(minutes=59)), run("stale", [0.1], "running")
    )
    assert cause_of(record, "fresh") is Cause.RUNNING
    assert cause_of(record, "stale") is Cause.LOST


@pytest.mark.parametrize(
    ("config", "planned"),
    [({"epochs": 30}, 30), ({"num_epochs": 5.0}, 5), ({"max_epochs": -1}, None), ({"epochs": "30"}, None), ({}, None)],
)
def test_planned_epochs_are_read_under_the_usual_names(config: dict[str, object], planned: int | None) -> None:
    assert epochs_planned(config) == planned


def test_an_epoch_metric_that_starts_at_zero_counts_from_zero() -> None:
    record = run("a", [0.1, 0.2])
    zeroth = run("b", points=tuple(type(p)(p.value, epoch=e) for p, e in zip(record.points, (0.0, 4.0), strict=True)))
    assert (epochs_done(record), epochs_done(zeroth)) == (2, 5)


def test_patience_needs_the_epochs_since_the_best_value() -> None:
    values = [0.1, 0.5, 0.4, 0.4, 0.4]
    config = {"epochs": 20, "patience": 3}
    assert cause_of(sweep(run("a", values, exit_code=0, config=config)), "a") is Cause.PATIENCE
    assert cause_of(sweep(run("a", values[:3], exit_code=0, config=config)), "a") is Cause.STOPPED


def test_a_queued_run_waits_for_an_agent_as_long_as_it_takes() -> None:
    queued = run("queued", (), "pending", heartbeat_at=None)
    given = run("given", (), "pending", heartbeat_at=None, agent="a1")  # an hour before the sweep was read
    record = sweep(queued, given)
    assert (cause_of(record, "queued"), cause_of(record, "given")) == (Cause.RUNNING, Cause.LOST)
