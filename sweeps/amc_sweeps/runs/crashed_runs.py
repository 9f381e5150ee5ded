"""What a Bayesian search is told of a run that did not finish: the policies of a sweep, and the treatment of each run.

A policy is an option of ``amc-sweep create`` and not a key of the sweep file, which stays valid for W&B's servers.

    policy       finished   stopped by Hyperband   failed, crashed, killed
    worst        peak       worst value            worst value of any ended run (W&B's default)
    best         peak       peak                   its own peak
    latest       peak       last value             its own last value
    ignore       peak       pruned                 nothing
    extrapolate  peak       pruned                 its curve, extrapolated to full length
    auto         peak       pruned                 by the cause of its end, see ``BLAME``

The first three are the words of W&B's ``metric.impute``. ``auto`` asks how far the configuration is to blame:

    blame                  treatment
    70% and more           constraint: the failure counts against configurations like it
    30% and less           extrapolated: the machine ended it, so no failure counts
    between                weighted: the failure counts by the blame

In all three the search is told the run's curve, extrapolated to full length and discounted by its uncertainty: how good
a configuration is and how likely it fails are learned apart. A run that logged no value of the metric counts by its
failure alone, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from amc_sweeps.runs.causes import ENDED_WELL, Cause, Diagnosis
from amc_sweeps.runs.run_states import RunState

IMPUTED = ("worst", "best", "latest")  # the policies that W&B's metric.impute has words for


class Policy(StrEnum):
    """What a sweep's search learns from runs that did not finish."""

    AUTO = "auto"
    WORST = "worst"
    BEST = "best"
    LATEST = "latest"
    IGNORE = "ignore"
    EXTRAPOLATE = "extrapolate"


class Treatment(StrEnum):
    """What the search is told of one run."""

    PEAK = "peak"
    LATEST = "last value"
    WORST = "worst value"
    PRUNED = "pruned"  # its curve, extrapolated; no failure
    CONSTRAINT = "constraint"
    EXTRAPOLATED = "extrapolated"
    WEIGHTED = "weighted"
    IGNORED = "ignored"


MEANINGS: Mapping[Treatment, str] = {
    Treatment.PEAK: "its best value",
    Treatment.LATEST: "its last value",
    Treatment.WORST: "the worst value of any ended run",
    Treatment.PRUNED: "its curve, extrapolated to full length: Hyperband stopped it",
    Treatment.CONSTRAINT: "its curve, extrapolated to full length, and that its configuration made it fail",
    Treatment.EXTRAPOLATED: "its curve, extrapolated to full length: the machine ended it",
    Treatment.WEIGHTED: "its curve, extrapolated to full length, and that its configuration may have made it fail",
    Treatment.IGNORED: "nothing",
}
# How far the configuration is to blame for an end with this cause, if the cause is certain.
BLAME: Mapping[Cause, float] = {
    Cause.DIVERGED: 1.0,
    Cause.OUT_OF_MEMORY: 1.0,
    Cause.CONFIG_REFUSED: 1.0,
    Cause.ERROR: 0.5,  # any exception of the trial: a wrong shape, or a socket
    Cause.UNKNOWN: 0.5,
    Cause.KILLED_BY_SIGNAL: 0.2,  # mostly schedulers and people; a machine's memory killer is out_of_memory
    Cause.LOST: 0.2,
    Cause.DATA_ERROR: 0.0,
    Cause.ENVIRONMENT_ERROR: 0.0,
    Cause.NODE_FAILURE: 0.0,
    Cause.PREEMPTED: 0.0,
    Cause.INTERRUPTED: 0.0,
    Cause.CANCELLED: 0.0,
    Cause.STOPPED: 0.0,
}
_CERTAINTY = {"certain": 1.0, "likely": 0.8, "guess": 0.4}  # the rest of the blame is undecided, 50%
TO_BLAME, NOT_TO_BLAME = 0.7, 0.3


def policy_of(option: str | None, impute: str | None, *, is_embedded: bool = True) -> Policy:
    """Return the policy of a sweep.

    Args:
        option: ``--crashed-runs`` of the sweep's creation; it wins over ``impute``.
        impute: ``metric.impute`` of the sweep's file, None where the file names none.
        is_embedded: whether an embedded server searches. W&B's own engine takes the worst value by default.
    """
    return Policy(option or impute or ("auto" if is_embedded else "worst"))


def policy_of_record(config: Mapping[str, Any], recorded: str | None) -> Policy | None:
    """Return the policy by which a sweep on record was searched; None unless its method is bayes.

    Args:
        config: the sweep's, which another tool may have written.
        recorded: the policy, where an embedded server tells it. Other servers decide by ``metric.impute`` alone.
    """
    metric = config.get("metric")
    impute = metric.get("impute") if isinstance(metric, Mapping) else None
    if config.get("method") != "bayes":
        return None
    if recorded in list(Policy):
        return Policy(recorded)
    return policy_of(None, impute if impute in IMPUTED else None, is_embedded=False)


def option_problem(option: str | None, method: str) -> str | None:
    """Return why a sweep cannot be created with this ``--crashed-runs``, or None."""
    if option is None:
        return None
    if option not in list(Policy):
        return f"--crashed-runs: {option!r:.60} is not allowed; allowed: {', '.join(Policy)}"
    if method != "bayes":
        return f"--crashed-runs: only bayes learns from runs, and this sweep's method is {method}; leave it out"
    return None


def blame(diagnosis: Diagnosis) -> float:
    """Return how likely the configuration caused the end of a run, 0 to 1."""
    return 0.5 + _CERTAINTY[diagnosis.confidence] * (BLAME.get(diagnosis.cause, 0.5) - 0.5)


def treatment_of(policy: Policy, state: str, diagnosis: Diagnosis | None, *, has_values: bool) -> Treatment | None:
    """Return what the search is told of a run; None while the run is alive, or may be handed out again.

    Args:
        policy: of the sweep.
        state: of the run, W&B's word.
        diagnosis: why the run ended; None if nobody has looked, then its cause is unknown.
        has_values: whether it has logged a finite value of the metric.
    """
    if state not in (RunState.FINISHED, RunState.FAILED, RunState.CRASHED, RunState.KILLED):
        return None
    diagnosis = diagnosis or Diagnosis(Cause.UNKNOWN, "guess", "")
    if policy.value in IMPUTED:
        own = Treatment.LATEST if policy is Policy.LATEST and state != RunState.FINISHED else Treatment.PEAK
        is_own = has_values and (state == RunState.FINISHED or policy is not Policy.WORST)
        return own if is_own else Treatment.WORST
    if state == RunState.FINISHED or diagnosis.cause in ENDED_WELL:
        return Treatment.PEAK if has_values else Treatment.IGNORED
    if diagnosis.cause is Cause.EARLY_STOPPED:
        return Treatment.PRUNED if has_values else Treatment.IGNORED
    if policy is Policy.AUTO:
        return _by_blame(blame(diagnosis), has_values=has_values)
    return Treatment.EXTRAPOLATED if policy is Policy.EXTRAPOLATE and has_values else Treatment.IGNORED


def _by_blame(share: float, *, has_values: bool) -> Treatment:
    if share >= TO_BLAME:
        return Treatment.CONSTRAINT
    if share > NOT_TO_BLAME:
        return Treatment.WEIGHTED
    return Treatment.EXTRAPOLATED if has_values else Treatment.IGNORED
