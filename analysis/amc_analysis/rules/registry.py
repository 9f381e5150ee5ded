"""The integrity rules: each is a pure function that takes an analysed sweep and yields its findings.

A rule has the name of its function in upper case. The function's docstring and docs/analysis.md describe it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Finding, Rule, Severity
from amc_analysis.rules import ends, groups, held_out, lineage, regions, space

_FUNCTIONS: tuple[Callable[[AnalysedSweep], Iterator[Finding]], ...] = (
    *(lineage.split_changed_on_resume, lineage.heldout_overlap_bound, lineage.resume_jump, lineage.steps_restart),
    *(held_out.test_gt_val, held_out.peak_not_checkpointed, held_out.select_metric_mismatch),
    *(held_out.test_used_for_ranking, held_out.label_sets_differ, held_out.validations_differ),
    held_out.batch_norms_differ,
    *(space.space_changed, space.never_sampled_value, space.zero_variance_param, space.recommendation_outside_data),
    *(groups.group_n_too_small, groups.max_of_unequal_n, groups.censored_comparison),
    *(ends.same_end_epoch, space.confounded_pair, space.duplicate_configs),
    *(regions.best_at_boundary, regions.infeasible_region),
    *(ends.impute_worst, ends.host_failures, ends.nan_never_stopped),
)
RULES = {Rule(function.__name__.upper()): function for function in _FUNCTIONS}
_ORDER = list(Severity)


def check_rules(analysed: AnalysedSweep) -> tuple[Finding, ...]:
    """Return the findings of every rule, errors first, then in the order of RULES."""
    findings = [finding for rule in RULES.values() for finding in rule(analysed)]
    return tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity)))
