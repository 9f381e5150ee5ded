"""The names of the integrity rules, and their findings: numbers, evidence and consequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Number = float | int | str | None


class Severity(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"  # a number or a conclusion is wrong
    WARNING = "warning"  # the evidence is too weak for a conclusion that a reader may draw
    NOTE = "note"  # something to know before the next sweep


class Rule(StrEnum):
    """Every integrity rule."""

    SPLIT_CHANGED_ON_RESUME = "SPLIT_CHANGED_ON_RESUME"
    HELDOUT_OVERLAP_BOUND = "HELDOUT_OVERLAP_BOUND"
    RESUME_JUMP = "RESUME_JUMP"
    STEPS_RESTART = "STEPS_RESTART"
    TEST_GT_VAL = "TEST_GT_VAL"
    PEAK_NOT_CHECKPOINTED = "PEAK_NOT_CHECKPOINTED"
    SELECT_METRIC_MISMATCH = "SELECT_METRIC_MISMATCH"
    TEST_USED_FOR_RANKING = "TEST_USED_FOR_RANKING"
    LABEL_SETS_DIFFER = "LABEL_SETS_DIFFER"
    VALIDATIONS_DIFFER = "VALIDATIONS_DIFFER"
    BATCH_NORMS_DIFFER = "BATCH_NORMS_DIFFER"
    SPACE_CHANGED = "SPACE_CHANGED"
    NEVER_SAMPLED_VALUE = "NEVER_SAMPLED_VALUE"
    ZERO_VARIANCE_PARAM = "ZERO_VARIANCE_PARAM"
    RECOMMENDATION_OUTSIDE_DATA = "RECOMMENDATION_OUTSIDE_DATA"
    GROUP_N_TOO_SMALL = "GROUP_N_TOO_SMALL"
    MAX_OF_UNEQUAL_N = "MAX_OF_UNEQUAL_N"
    CENSORED_COMPARISON = "CENSORED_COMPARISON"
    SAME_END_EPOCH = "SAME_END_EPOCH"
    CONFOUNDED_PAIR = "CONFOUNDED_PAIR"
    DUPLICATE_CONFIGS = "DUPLICATE_CONFIGS"
    BEST_AT_BOUNDARY = "BEST_AT_BOUNDARY"
    INFEASIBLE_REGION = "INFEASIBLE_REGION"
    IMPUTE_WORST = "IMPUTE_WORST"
    HOST_FAILURES = "HOST_FAILURES"
    NAN_NEVER_STOPPED = "NAN_NEVER_STOPPED"


@dataclass(frozen=True)
class Finding:
    """One finding of a rule."""

    rule: Rule
    severity: Severity
    subjects: tuple[str, ...]  # run ids, `parameter`, `parameter=value`, hosts
    numbers: Mapping[str, Number]  # behind the evidence; accuracies and shares as fractions, as logged
    evidence: str  # one sentence with the numbers
    consequence: str  # a conclusion that does not follow, or an action
