"""The integrity rules: each is a pure function that takes an analysed sweep and yields its findings.

The condition and the consequence of each are in its docstring and in docs/analysis.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Finding, Rule, Severity
from amc_analysis.rules import ends, groups, held_out, lineage, regions, space

__all__ = ["RULES", "check_rules"]

RULES: Mapping[Rule, Callable[[AnalysedSweep], Iterator[Finding]]] = {
    Rule.SPLIT_CHANGED_ON_RESUME: lineage.split_changed_on_resume,
    Rule.HELDOUT_OVERLAP_BOUND: lineage.heldout_overlap_bound,
    Rule.RESUME_JUMP: lineage.resume_jump,
    Rule.TEST_GT_VAL: held_out.test_gt_val,
    Rule.PEAK_NOT_CHECKPOINTED: held_out.peak_not_checkpointed,
    Rule.SELECT_METRIC_MISMATCH: held_out.select_metric_mismatch,
    Rule.TEST_USED_FOR_RANKING: held_out.test_used_for_ranking,
    Rule.LABEL_SETS_DIFFER: held_out.label_sets_differ,
    Rule.NEVER_SAMPLED_VALUE: space.never_sampled_value,
    Rule.ZERO_VARIANCE_PARAM: space.zero_variance_param,
    Rule.RECOMMENDATION_OUTSIDE_DATA: space.recommendation_outside_data,
    Rule.GROUP_N_TOO_SMALL: groups.group_n_too_small,
    Rule.MAX_OF_UNEQUAL_N: groups.max_of_unequal_n,
    Rule.CENSORED_COMPARISON: groups.censored_comparison,
    Rule.SAME_END_EPOCH: ends.same_end_epoch,
    Rule.CONFOUNDED_PAIR: space.confounded_pair,
    Rule.DUPLICATE_CONFIGS: space.duplicate_configs,
    Rule.BEST_AT_BOUNDARY: regions.best_at_boundary,
    Rule.INFEASIBLE_REGION: regions.infeasible_region,
    Rule.IMPUTE_WORST: ends.impute_worst,
    Rule.HOST_FAILURES: ends.host_failures,
    Rule.NAN_NEVER_STOPPED: ends.nan_never_stopped,
}

_ORDER = list(Severity)


def check_rules(analysed: AnalysedSweep) -> tuple[Finding, ...]:
    """Return the findings of every rule, errors first, then in the order of RULES."""
    findings = [finding for rule in RULES.values() for finding in rule(analysed)]
    return tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity)))
