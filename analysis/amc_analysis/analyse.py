"""From a sweep's record to every conclusion. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Literal

import numpy as np

from amc_analysis.dynamics.dynamics import dynamics_of
from amc_analysis.effects.confounding import confounded_pairs
from amc_analysis.effects.effects import effects_of
from amc_analysis.effects.finalists import finalists_of
from amc_analysis.effects.importance import importance_of, key_of
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.effects import Importance
from amc_analysis.results.finding import Rule
from amc_analysis.rules.registry import check_rules
from amc_analysis.runs.outcomes import Outcomes, outcomes_of
from amc_analysis.runs.parameters import Parameter, parameters_of
from amc_analysis.runs.replicates import CHOSEN
from amc_sweeps.runs.causes import Diagnosis, classify
from amc_sweeps.runs.crashed_runs import policy_of_record
from amc_sweeps.runs.evidence import evidence_of
from amc_sweeps.runs.ranked_run import with_treatment
from amc_sweeps.runs.ranking import exclude, rank
from amc_sweeps.runs.records import SweepRecord

# Runs that saw held-out frames in training are excluded.
_LEAKS = {Rule.SPLIT_CHANGED_ON_RESUME, Rule.HELDOUT_OVERLAP_BOUND, Rule.RESUME_JUMP}


def rank_runs(record: SweepRecord, diagnoses: Mapping[str, Diagnosis] | None = None) -> AnalysedSweep:
    """Return the sweep with its runs ranked by peak and their causes: those of ``diagnoses``, else from the record."""
    if diagnoses is None:
        diagnoses = {run_id: classify(evidence) for run_id, evidence in evidence_of(record).items()}
    policy = policy_of_record(record.config, record.crashed_runs)
    ranked = tuple(with_treatment(entry, policy) for entry in rank(record.runs, diagnoses, record.metric))
    parameters = parameters_of(record, [entry.run.config for entry in ranked])
    return AnalysedSweep(record, ranked, outcomes_of(ranked, record.metric.goal), parameters)


def analyse(record: SweepRecord, *, seed: int = 0) -> AnalysedSweep:
    """Return the sweep with every conclusion; the same record and seed give the same conclusions."""
    return add_conclusions(rank_runs(record), seed=seed)


def add_conclusions(analysed: AnalysedSweep, *, seed: int = 0) -> AnalysedSweep:
    """Return a sweep of ranked runs with every conclusion, see ``analyse``."""
    return add_importance(add_findings(analysed, seed=seed))


def add_findings(analysed: AnalysedSweep, *, seed: int = 0) -> AnalysedSweep:
    """Return a sweep of ranked runs with every conclusion but the importances, which take longest."""
    analysed = add_effects(analysed, seed=seed)
    analysed = replace(analysed, dynamics=dynamics_of(analysed, _stream(seed, "modes")))
    findings = check_rules(analysed)
    leaks = {finding.subjects[0]: finding.rule.value for finding in reversed(findings) if finding.rule in _LEAKS}
    ranked = exclude(analysed.ranked, leaks, analysed.metric.goal)
    return replace(analysed, findings=findings, ranked=ranked, finalists=finalists_of(analysed.record, ranked))


def add_importance(analysed: AnalysedSweep, known: MutableMapping[str, Importance] | None = None) -> AnalysedSweep:
    """Return an analysed sweep with the importances of its parameters.

    Args:
        analysed: the sweep with its effects.
        known: importances of earlier analyses, which gets these, too; a forest takes longer than all other conclusions.
    """
    inputs = (*_drawn_runs(analysed), analysed.seed)
    known = {} if known is None else known
    key = key_of(*inputs)
    if key not in known:
        known[key] = importance_of(*inputs)
    return replace(analysed, importance=known[key])


def add_effects(analysed: AnalysedSweep, *, seed: int = 0) -> AnalysedSweep:
    """Return a sweep of ranked runs with the effects of its parameters and the confounded pairs."""
    outcomes, parameters = _drawn_runs(analysed)
    effects = effects_of(outcomes, parameters, _stream(seed, "effects"))
    confounded = confounded_pairs(parameters, _stream(seed, "pairs"))
    return replace(analysed, seed=seed, effects=effects, confounded=confounded)


def _drawn_runs(analysed: AnalysedSweep) -> tuple[Outcomes, tuple[Parameter, ...]]:
    """Return the outcomes and the parameters of the runs that the search drew.

    A run that repeats another one was started because of a result. Tests of the parameters assume that configurations
    do not depend on results, and would count the chosen configuration several times.
    """
    drawn = [entry for entry in analysed.ranked if CHOSEN not in entry.run.config]
    if len(drawn) == len(analysed.ranked):
        return analysed.outcomes, analysed.parameters
    parameters = parameters_of(analysed.record, [entry.run.config for entry in drawn])
    return outcomes_of(drawn, analysed.metric.goal), parameters


def _stream(seed: int, part: Literal["effects", "pairs", "modes"]) -> np.random.Generator:
    """Return the random numbers of one part: they do not depend on how many another part draws."""
    return np.random.default_rng([seed, len(part), ord(part[0])])
