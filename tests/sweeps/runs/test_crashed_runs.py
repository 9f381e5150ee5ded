"""What a Bayesian search is told of a run: by the sweep's policy, and under auto by the cause of the run's end."""

from __future__ import annotations

import re

import pytest

from amc_sweeps.runs import crashed_runs
from amc_sweeps.runs.causes import FAILURES, Cause, Confidence, Diagnosis
from amc_sweeps.runs.crashed_runs import (
    BLAME,
    MEANINGS,
    Policy,
    Treatment,
    blame,
    option_problem,
    policy_of,
    policy_of_record,
    treatment_of,
)


def treated(policy: str, state: str, cause: Cause = Cause.UNKNOWN, confidence: Confidence = "certain") -> str | None:
    return treatment_of(Policy(policy), state, Diagnosis(cause, confidence, ""), has_values=True)


@pytest.mark.parametrize(
    ("cause", "confidence", "treatment"),
    [
        (Cause.DIVERGED, "certain", "constraint"),
        (Cause.DIVERGED, "guess", "constraint"),
        (Cause.OUT_OF_MEMORY, "likely", "constraint"),
        (Cause.CONFIG_REFUSED, "certain", "constraint"),
        (Cause.LOST, "likely", "extrapolated"),
        (Cause.NODE_FAILURE, "guess", "extrapolated"),
        (Cause.ENVIRONMENT_ERROR, "likely", "extrapolated"),
        (Cause.KILLED_BY_SIGNAL, "certain", "extrapolated"),
        (Cause.STOPPED, "certain", "extrapolated"),
        (Cause.CANCELLED, "certain", "extrapolated"),
        (Cause.LOST, "guess", "weighted"),
        (Cause.ERROR, "certain", "weighted"),
        (Cause.UNKNOWN, "guess", "weighted"),
        (Cause.EARLY_STOPPED, "certain", "pruned"),
        (Cause.COMPLETED, "likely", "peak"),  # asked to stop when it was about to end
    ],
)
def test_auto_treats_a_run_by_the_cause_of_its_end(cause: Cause, confidence: Confidence, treatment: str) -> None:
    assert treated("auto", "failed", cause, confidence) == treatment


@pytest.mark.parametrize(
    ("policy", "finished", "stopped", "crashed"),
    [
        ("worst", "peak", "worst value", "worst value"),
        ("best", "peak", "peak", "peak"),
        ("latest", "peak", "last value", "last value"),
        ("ignore", "peak", "pruned", "ignored"),
        ("extrapolate", "peak", "pruned", "extrapolated"),
    ],
)
def test_the_other_policies_treat_all_crashed_runs_alike(
    policy: str, finished: str, stopped: str, crashed: str
) -> None:
    assert treated(policy, "finished", Cause.COMPLETED) == finished
    assert treated(policy, "killed", Cause.EARLY_STOPPED) == stopped
    assert {treated(policy, "crashed", cause) for cause in FAILURES} == {crashed}


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("state", ["pending", "running", "preempting", "preempted"])
def test_a_run_that_is_alive_or_handed_out_again_has_no_treatment(policy: Policy, state: str) -> None:
    assert treated(policy, state) is None


@pytest.mark.parametrize(
    ("policy", "cause", "treatment"),
    [
        ("auto", Cause.DIVERGED, "constraint"),
        ("auto", Cause.LOST, "ignored"),
        ("extrapolate", Cause.LOST, "ignored"),
        ("best", Cause.LOST, "worst value"),
        ("ignore", Cause.LOST, "ignored"),
    ],
)
def test_a_run_that_logged_nothing_counts_by_its_failure_alone(policy: str, cause: Cause, treatment: str) -> None:
    diagnosis = Diagnosis(cause, "certain", "")
    assert treatment_of(Policy(policy), "failed", diagnosis, has_values=False) == treatment


def test_blame_lies_between_its_table_and_undecided() -> None:
    assert all(0 <= share <= 1 for share in BLAME.values())
    for cause in BLAME:
        shares = [blame(Diagnosis(cause, confidence, "")) for confidence in ("certain", "likely", "guess")]
        assert shares[0] == BLAME[cause]
        assert sorted(shares, key=lambda share: -abs(share - 0.5)) == shares


def test_every_failure_has_a_blame_and_every_treatment_a_meaning() -> None:
    assert set(BLAME) >= FAILURES
    assert set(MEANINGS) == set(Treatment)


def test_the_table_in_the_docstring_is_what_the_function_does() -> None:
    rows = re.findall(r"^    (\w+) +peak +(pruned|peak|worst|last)", crashed_runs.__doc__ or "", re.MULTILINE)
    assert [name for name, _ in rows] == ["worst", "best", "latest", "ignore", "extrapolate", "auto"]
    for policy, stopped in rows:
        assert str(treated(policy, "killed", Cause.EARLY_STOPPED)).startswith(stopped)


@pytest.mark.parametrize(
    ("option", "impute", "is_embedded", "policy"),
    [
        (None, None, True, "auto"),
        (None, None, False, "worst"),
        (None, "latest", True, "latest"),
        ("extrapolate", "best", True, "extrapolate"),
        ("worst", None, True, "worst"),
    ],
)
def test_the_option_wins_over_impute_and_impute_over_the_default(
    option: str | None, impute: str | None, is_embedded: bool, policy: str
) -> None:
    assert policy_of(option, impute, is_embedded=is_embedded) == policy


@pytest.mark.parametrize(
    ("config", "recorded", "policy"),
    [
        ({"method": "bayes", "metric": {"name": "m"}}, None, "worst"),  # another server searched
        ({"method": "bayes", "metric": {"name": "m", "impute": "best"}}, None, "best"),
        ({"method": "bayes", "metric": {"name": "m", "impute": "best"}}, "auto", "auto"),
        ({"method": "bayes", "metric": "m"}, "nonsense", "worst"),
        ({"method": "random", "metric": {"name": "m"}}, "auto", None),
    ],
)
def test_the_policy_of_a_sweep_on_record(config: dict[str, object], recorded: str | None, policy: str | None) -> None:
    assert policy_of_record(config, recorded) == policy


def test_an_option_that_has_no_sense_is_refused() -> None:
    assert option_problem(None, "grid") is None
    assert option_problem("auto", "bayes") is None
    assert "method is grid" in str(option_problem("auto", "grid"))
    assert "'luck' is not allowed; allowed: auto, worst" in str(option_problem("luck", "bayes"))
