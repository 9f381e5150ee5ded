"""What the search is told of runs, in numbers."""

from __future__ import annotations

import pytest

from amc_server.bayes.observations import Observation, Told, tell
from amc_sweeps.grammar.sweep_config import Metric
from amc_sweeps.runs.causes import Cause, Diagnosis
from amc_sweeps.runs.crashed_runs import Policy

HIGHER = Metric("acc", "maximize")
FINISHED = [Observation({}, "finished", [float(start), start + 1.0, start + 4.0]) for start in (1, 2, 3)]


def ended(cause: Cause, *curve: float, state: str = "failed") -> Observation:
    return Observation({}, state, curve, diagnosis=Diagnosis(cause, "certain", ""))


def told(*runs: Observation, policy: str = "auto", metric: Metric = HIGHER) -> list[Told | None]:
    return tell(metric, Policy(policy), [*FINISHED, *runs])[len(FINISHED) :]


@pytest.mark.parametrize(("impute", "value"), [("worst", 1.0), ("best", 6.0), ("latest", 4.0)])
def test_the_words_of_impute_give_the_values_of_wandb(impute: str, value: float) -> None:
    crashed, silent, running, pending = told(
        ended(Cause.LOST, 5.0, 6.0, 4.0),
        ended(Cause.ERROR),
        Observation({}, "running", [9.0]),
        Observation({}, "pending", []),
        policy=impute,
    )
    assert crashed is not None
    assert silent is not None
    assert (crashed.value, silent.value) == (value, 1.0)
    assert (running, pending) == (None, None)


def test_a_failed_run_has_no_worst_value_before_another_run_has_ended() -> None:
    (only,) = tell(HIGHER, Policy.WORST, [Observation({}, "failed", [])])
    assert only is not None
    assert only.value is None


def test_impute_while_running_gives_a_living_run_a_value() -> None:
    metric = Metric("acc", "maximize", impute_while_running="best")
    (running, silent) = told(Observation({}, "running", [9.0, 8.0]), Observation({}, "running", []), metric=metric)
    assert running is not None
    assert running.value == 9.0
    assert silent is None


def test_crashed_runs_are_told_what_they_had_become_and_their_failure_by_its_cause() -> None:
    causes = (Cause.NODE_FAILURE, Cause.ERROR, Cause.DIVERGED)
    all_told = [each for each in told(*(ended(cause, 2.0, 3.0) for cause in causes)) if each is not None]
    assert [each.treatment for each in all_told] == ["extrapolated", "weighted", "constraint"]
    assert [each.value for each in all_told] == [pytest.approx(6.0)] * 3
    assert [each.failure for each in all_told] == [0.0, 0.5, 1.0]
    assert not any(each.attained for each in all_told)


def test_a_run_that_hyperband_stopped_counts_with_its_curve_and_is_no_failure() -> None:
    (pruned,) = told(ended(Cause.EARLY_STOPPED, 1.0, state="killed"))
    assert pruned is not None
    assert (pruned.treatment, pruned.failure) == ("pruned", 0.0)
    assert pruned.value == pytest.approx(5.0, abs=0.5)
    assert pruned.sd > 0


def test_a_failure_without_a_value_is_learned_as_a_failure() -> None:
    (silent,) = told(ended(Cause.OUT_OF_MEMORY))
    assert silent is not None
    assert (silent.value, silent.failure) == (None, 1.0)


def test_a_minimised_metric_is_turned_round() -> None:
    lower = [Observation({}, "finished", [5.0, 3.0]), Observation({}, "finished", [4.0, 2.0])]
    values = tell(Metric("loss"), Policy.AUTO, [*lower, ended(Cause.LOST, 4.5)])
    assert [each.value for each in values if each is not None] == [-3.0, -2.0, pytest.approx(-2.5)]
