"""What runs are judged by: test against validation, the checkpoint that was kept, the labels that were to be told."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from amc_analysis.effects.outcomes import is_gapless
from amc_analysis.rules.case import Case, counted, label, listed, number_in, text_in
from amc_analysis.rules.finding import Firing, Rule, Severity
from amc_core.modulations import LABEL_SETS
from amc_sweeps.runs.claims import ClaimKind
from amc_sweeps.runs.ranking import RankedRun, is_better

TEST_Z = 4.0  # standard errors
_TEST = re.compile(r"(?<![A-Za-z])test(?![A-Za-z])", re.IGNORECASE)
_SELECTED_BY = ("select_by", "monitor", "early_stopping_metric", "checkpoint_metric", "metric_for_best_model")
_LEVEL_STEP_DB = 2  # of RadioML 2018.01A


def test_gt_val(case: Case) -> Iterator[Firing]:
    """Fire where an accuracy on test lies above that of the same checkpoint on validation by 4 standard errors."""
    for entry in case.ranked:
        n_val, n_test = (number_in(entry.run.config, name) for name in ("n_val", "n_test"))
        val = _value_of_checkpoint(case, entry)
        if entry.test is None or val is None or not n_val or not n_test:
            continue
        if not (0 <= entry.test <= 1 and 0 <= val <= 1) or case.findings.metric.goal != "maximize":
            continue  # no share of frames: a binomial error does not apply
        error = math.sqrt(entry.test * (1 - entry.test) / n_test + val * (1 - val) / n_val)
        if error == 0 or (entry.test - val) / error <= TEST_Z:
            continue
        z = (entry.test - val) / error
        yield Firing(
            rule=Rule.TEST_GT_VAL,
            severity=Severity.ERROR,
            subjects=(entry.run.run_id,),
            numbers={"test": entry.test, "val": val, "z": z, "n_test": n_test, "n_val": n_val},
            evidence=f"{label(entry)} has {entry.test:.2%} on {n_test:,.0f} test frames and {val:.2%} on {n_val:,.0f} "
            f"validation frames: z = {z:.1f}.",
            consequence="Test and validation were not one distribution, one checkpoint and one metric: the test value "
            "is no record until that is explained.",
        )


def peak_not_checkpointed(case: Case) -> Iterator[Firing]:
    """Fire where the weights that were kept are of another, worse epoch than the peak."""
    for entry in case.ranked:
        kept = number_in(entry.run.summary, "checkpoint_epoch", "test_checkpoint_epoch")
        if kept is None or entry.peak is None or entry.peak_epoch is None or kept == entry.peak_epoch:
            continue
        value = case.value_at(entry, kept)
        if value is not None and not is_better(entry.peak, value, case.findings.metric.goal):
            continue
        lost = None if value is None else abs(entry.peak - value)
        had = (
            "" if value is None or lost is None else f", where it had {case.text(value)}: {case.difference(lost)} less"
        )
        yield Firing(
            rule=Rule.PEAK_NOT_CHECKPOINTED,
            severity=Severity.WARNING,
            subjects=(entry.run.run_id,),
            numbers={"peak": entry.peak, "peak_epoch": entry.peak_epoch, "kept_epoch": kept, "kept": value},
            evidence=f"{label(entry)} peaks at {case.text(entry.peak)} in epoch {entry.peak_epoch:g}; its checkpoint "
            f"is of epoch {kept:g}{had}.",
            consequence="The weights of the peak are gone, and a test value belongs to the checkpoint: repeat the run "
            "with the checkpoint chosen by the ranking metric.",
        )


def select_metric_mismatch(case: Case) -> Iterator[Firing]:
    """Fire where runs keep their checkpoint, or stop early, by another metric than they are ranked by."""
    by: dict[str, list[str]] = {}
    for entry in case.ranked:
        selected = text_in(entry.run.config, *_SELECTED_BY)
        if selected and not _same_metric(selected, case.findings.metric.name):
            by.setdefault(selected, []).append(entry.run.run_id)
    for selected, runs in by.items():
        yield Firing(
            rule=Rule.SELECT_METRIC_MISMATCH,
            severity=Severity.WARNING,
            subjects=tuple(runs),
            numbers={"runs": len(runs), "selected_by": selected, "ranked_by": case.findings.metric.name},
            evidence=f"The checkpoint, or the end, of {counted(len(runs), 'run')} was chosen by {selected}, the "
            f"rank is by {case.findings.metric.name}: {listed(runs)}.",
            consequence="Their peaks need not be in their checkpoints, and patience may have ended them while the "
            "ranking metric still rose.",
        )


def test_used_for_ranking(case: Case) -> Iterator[Firing]:
    """Fire where the sweep, or somebody, chooses by the test part."""
    metric = case.findings.metric.name
    if _TEST.search(metric):
        yield _ranked_by_test(metric, (case.findings.sweep.sweep_id,), f"The runs are ranked by {metric}.")
    for claim in case.claims(ClaimKind.RECORD, ClaimKind.COMPARISON, ClaimKind.RECOMMENDATION):
        if claim.metric and _TEST.search(claim.metric) and not _TEST.search(metric):
            subjects = claim.runs or ((claim.parameter,) if claim.parameter else (case.findings.sweep.sweep_id,))
            yield _ranked_by_test(claim.metric, subjects, f"“{claim.statement}” chooses by {claim.metric}.")


def _ranked_by_test(metric: str, subjects: tuple[str, ...], evidence: str) -> Firing:
    return Firing(
        rule=Rule.TEST_USED_FOR_RANKING,
        severity=Severity.ERROR,
        subjects=subjects,
        numbers={"metric": metric},
        evidence=evidence,
        consequence="What is chosen by the test part has no unbiased test value any more: choose by validation, and "
        "look at test once.",
    )


def label_sets_differ(case: Case) -> Iterator[Firing]:
    """Fire where runs in one ranking, or in one statement, had other classes to tell apart."""
    tasks: dict[str, list[str]] = {}
    for entry in case.ranked:
        task = _task(entry.run.config)
        if task is not None and entry.peak is not None:
            tasks.setdefault(task, []).append(entry.run.run_id)
    if len(tasks) > 1:
        told = "; ".join(f"{task}: {listed(runs, 3)}" for task, runs in tasks.items())
        subjects = tuple(run for runs in tasks.values() for run in runs)
        yield _other_labels(subjects, list(tasks), f"The runs did {len(tasks)} different tasks: {told}.")
    for claim in case.claims(*ClaimKind):
        named = [case.by_name[run] for run in claim.runs if run in case.by_name]
        compared = {task for entry in named if (task := _task(entry.run.config)) is not None}
        if len(compared) > 1:
            told = f"“{claim.statement}” sets {' beside '.join(sorted(compared))}."
            yield _other_labels(claim.runs, sorted(compared), told)
        before = claim.numbers.get("n_train_before")
        total = next((sum(counts) for entry in named if (counts := _counts(entry.run.config))), None)
        if before is not None and total is not None and before > total:
            told = (
                f"“{claim.statement}”: {before:,.0f} training frames are more than the {total:,.0f} that it has in all."
            )
            yield _other_labels(claim.runs, [f"{before:,.0f} frames", f"{total:,.0f} frames"], told)


def _other_labels(subjects: tuple[str, ...], tasks: list[str], evidence: str) -> Firing:
    classes = [int(found[1]) for task in tasks if (found := re.match(r"(\d+) classes", task))]
    return Firing(
        rule=Rule.LABEL_SETS_DIFFER,
        severity=Severity.ERROR,
        subjects=subjects,
        numbers={
            "tasks": len(tasks),
            "least_chance": 1 / max(classes) if classes else None,
            "greatest_chance": 1 / min(classes) if classes else None,
        },
        evidence=evidence,
        consequence="Other classes mean another chance level, another ceiling and other frames: compare within one "
        "task only.",
    )


def _task(config: Mapping[str, Any]) -> str | None:
    """Name what a run had to tell apart; None where that is not known."""
    name = text_in(config, "label_set")
    low, high = number_in(config, "snr_min_db"), number_in(config, "snr_max_db")
    n_classes = number_in(config, "n_classes", "num_classes")
    if n_classes is None and name is not None and name in LABEL_SETS and low is not None and high is not None:
        n_classes = len(LABEL_SETS[name]) * (int(high - low) // _LEVEL_STEP_DB + 1)
    if n_classes is not None:
        return f"{n_classes:.0f} classes"
    counts = _counts(config)
    return name or (None if counts is None else f"{sum(counts):,.0f} frames")


def _counts(config: Mapping[str, Any]) -> list[float] | None:
    found = [count for part in ("n_train", "n_val", "n_test") if (count := number_in(config, part)) is not None]
    return found if len(found) == 3 else None


def _same_metric(one: str, other: str) -> bool:
    def core(name: str) -> str:
        last = name.replace("\\", "/").rsplit("/", 1)[-1].lower()
        return re.sub(r"^(?:val|valid|validation|eval)[_.-]", "", last)

    return core(one) == core(other)


def _value_of_checkpoint(case: Case, entry: RankedRun) -> float | None:
    """Return the validation value of the weights that were tested; if unknown the peak, the highest it can be.

    None where epochs are missing, for then the peak may be one of them.
    """
    epoch = number_in(entry.run.summary, "test_checkpoint_epoch", "checkpoint_epoch")
    at = None if epoch is None else case.value_at(entry, epoch)
    if at is not None:
        return at
    is_whole = not entry.run.points or (is_gapless(entry) and entry.epochs <= len(entry.run.points))
    return entry.peak if is_whole else None
