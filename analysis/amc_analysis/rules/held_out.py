"""How runs are judged: test against validation, the epoch of the checkpoint, the classes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from amc_analysis.results.analysed_sweep import AnalysedSweep, run_label
from amc_analysis.results.finding import Finding, Rule, Severity
from amc_analysis.rules.lookups import (
    classes_of,
    label_set_in,
    number_in,
    runs_by_name,
    text_in,
    validated_with,
    value_at,
)
from amc_analysis.runs.outcomes import is_gapless
from amc_core.modulations import LABEL_SETS
from amc_sweeps.number_formats import counted, listed, percent
from amc_sweeps.runs.claims import ClaimKind
from amc_sweeps.runs.ranked_run import RankedRun, is_better

TEST_Z = 4.0  # standard errors
_TEST = re.compile(r"(?<![A-Za-z])test(?![A-Za-z])", re.IGNORECASE)
_SELECTED_BY = ("select_by", "monitor", "early_stopping_metric", "checkpoint_metric", "metric_for_best_model")


def test_gt_val(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a test accuracy that is 4 standard errors above the validation accuracy of the same checkpoint."""
    for entry in analysed.ranked:
        n_val, n_test = (number_in(entry.run.config, name) for name in ("n_val", "n_test"))
        val = _value_of_checkpoint(entry)
        if entry.test is None or val is None or not n_val or not n_test:
            continue
        if not (0 <= entry.test <= 1 and 0 <= val <= 1) or analysed.metric.goal != "maximize":
            continue  # not a share of frames, so the binomial error does not apply
        error = math.sqrt(entry.test * (1 - entry.test) / n_test + val * (1 - val) / n_val)
        if error == 0 or (entry.test - val) / error <= TEST_Z:
            continue
        z = (entry.test - val) / error
        yield Finding(
            rule=Rule.TEST_GT_VAL,
            severity=Severity.ERROR,
            subjects=(entry.run.run_id,),
            numbers={"test": entry.test, "val": val, "z": z, "n_test": n_test, "n_val": n_val},
            evidence=f"{run_label(entry)} has {percent(entry.test, 2)} on {n_test:,.0f} test and {percent(val, 2)} on "
            f"{n_val:,.0f} validation frames: z = {z:.1f}.",
            consequence="Test beats validation by far more than chance: the data, the checkpoint or the metric differ. "
            "Do not report the test value until you know which.",
        )


def peak_not_checkpointed(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a run whose checkpoint is from another, worse epoch than its peak."""
    for entry in analysed.ranked:
        epoch = number_in(entry.run.summary, "checkpoint_epoch", "test_checkpoint_epoch")
        if epoch is None or entry.peak is None or entry.peak_epoch is None or epoch == entry.peak_epoch:
            continue
        value = value_at(entry, epoch)
        if value is not None and not is_better(entry.peak, value, analysed.metric.goal):
            continue
        loss = ""
        if value is not None:
            difference = analysed.scale.difference(entry.peak - value)
            loss = f", where it had {analysed.scale.text(value)} ({difference} worse)"
        yield Finding(
            rule=Rule.PEAK_NOT_CHECKPOINTED,
            severity=Severity.WARNING,
            subjects=(entry.run.run_id,),
            numbers={"peak": entry.peak, "peak_epoch": entry.peak_epoch, "kept_epoch": epoch, "kept": value},
            evidence=f"{run_label(entry)} has its {analysed.best_value_name} of {analysed.scale.text(entry.peak)} in "
            f"epoch {entry.peak_epoch:g}; its checkpoint is from epoch {epoch:g}{loss}.",
            consequence=f"The weights of the {analysed.best_value_name} are lost, and a test value is the "
            "checkpoint's. Repeat the run and choose the checkpoint by the ranking metric.",
        )


def select_metric_mismatch(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report runs that choose their checkpoint, or stop early, by another metric than the ranking."""
    by: dict[str, list[str]] = {}
    for entry in analysed.ranked:
        selected = text_in(entry.run.config, *_SELECTED_BY)
        if selected and _short_name(selected) != _short_name(analysed.metric.name):
            by.setdefault(selected, []).append(entry.run.run_id)
    for selected, runs in by.items():
        yield Finding(
            rule=Rule.SELECT_METRIC_MISMATCH,
            severity=Severity.WARNING,
            subjects=tuple(runs),
            numbers={"runs": len(runs), "selected_by": selected, "ranked_by": analysed.metric.name},
            evidence=f"{counted(len(runs), 'run')} chose the checkpoint, or the end of training, by {selected}, but "
            f"the ranking is by {analysed.metric.name}: {listed(runs)}.",
            consequence=f"The checkpoint may miss the {analysed.best_value_name}, and patience may have ended a "
            "run while the ranking metric still improved.",
        )


def test_used_for_ranking(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a sweep that ranks by a test metric, or a claim that compares by one."""
    metric = analysed.metric.name
    if _TEST.search(metric):
        yield _ranked_by_test(metric, (analysed.record.sweep_id,), f"The runs are ranked by {metric}.")
    for claim in analysed.claims(ClaimKind.RECORD, ClaimKind.COMPARISON, ClaimKind.RECOMMENDATION):
        if claim.metric and _TEST.search(claim.metric) and not _TEST.search(metric):
            subjects = claim.runs or ((claim.parameter,) if claim.parameter else (analysed.record.sweep_id,))
            yield _ranked_by_test(claim.metric, subjects, f"“{claim.statement}” picks the winner by {claim.metric}.")


def _ranked_by_test(metric: str, subjects: tuple[str, ...], evidence: str) -> Finding:
    return Finding(
        rule=Rule.TEST_USED_FOR_RANKING,
        severity=Severity.ERROR,
        subjects=subjects,
        numbers={"metric": metric},
        evidence=evidence,
        consequence="A test score that picks the winner is no longer an honest estimate: pick by validation, then test "
        "once.",
    )


def label_sets_differ(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report runs in one ranking, or in one claim, that had different classes."""
    tasks: dict[str, list[str]] = {}
    for entry in analysed.ranked:
        task = _task(entry.run.config)
        if task is not None and entry.peak is not None:
            tasks.setdefault(task, []).append(entry.run.run_id)
    if len(tasks) > 1:
        runs_by_task = "; ".join(f"{task}: {listed(runs, 3)}" for task, runs in tasks.items())
        subjects = tuple(run for runs in tasks.values() for run in runs)
        yield _other_labels(subjects, list(tasks), f"The runs did {len(tasks)} different tasks. {runs_by_task}.")
    by_name = runs_by_name(analysed.ranked)
    for claim in analysed.claims(*ClaimKind):
        entries = [by_name[run] for run in claim.runs if run in by_name]
        compared = {task for entry in entries if (task := _task(entry.run.config)) is not None}
        if len(compared) > 1:
            evidence = f"“{claim.statement}” compares {' with '.join(sorted(compared))}."
            yield _other_labels(claim.runs, sorted(compared), evidence)
        n_train = claim.numbers.get("n_train_before")
        total = next((sum(counts) for entry in entries if (counts := _counts(entry.run.config))), None)
        if n_train is not None and total is not None and n_train > total:
            evidence = f"“{claim.statement}” names {n_train:,.0f} training frames; its runs have {total:,.0f} frames."
            yield _other_labels(claim.runs, [f"{n_train:,.0f} frames", f"{total:,.0f} frames"], evidence)


def validations_differ(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report runs in one ranking that were validated with other batch-norm statistics, or with averaged weights."""
    ways: dict[str, list[str]] = {}
    for entry in analysed.ranked:
        if entry.peak is not None:
            ways.setdefault(validated_with(entry.run.config), []).append(entry.run.run_id)
    if len(ways) < 2:
        return
    runs_by_way = "; ".join(f"{way}: {listed(runs, 3)}" for way, runs in ways.items())
    yield Finding(
        rule=Rule.VALIDATIONS_DIFFER,
        severity=Severity.WARNING,
        subjects=tuple(run for runs in ways.values() for run in runs),
        numbers={"ways": len(ways)},
        evidence=f"The runs were validated in {len(ways)} ways. {runs_by_way}.",
        consequence="While the learning rate is high, the same training scores many points higher in one way than in "
        "another. Compare these runs at the end of a learning-rate cycle only, or repeat them with one setting.",
    )


def batch_norms_differ(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report runs of one network and batch size whose batch norm had other numbers of frames, by their GPUs' memory."""
    groups: dict[str, dict[int, list[str]]] = {}
    for entry in analysed.ranked:
        config = entry.run.config
        n_frames = number_in(config, "micro_batch_frames")
        by_memory = config.get("micro_batch_size") == "auto" and config.get("has_batch_norm") is True
        if by_memory and n_frames is not None and entry.peak is not None:
            group = f"{config.get('model_type')} with batch_size {config.get('batch_size')}"
            groups.setdefault(group, {}).setdefault(int(n_frames), []).append(entry.run.run_id)
    for group, runs_by_frames in groups.items():
        if len(runs_by_frames) < 2:
            continue
        numbers = sorted(runs_by_frames)
        ways = "; ".join(f"{counted(n, 'frame')}: {listed(runs_by_frames[n], 3)}" for n in numbers)
        yield Finding(
            rule=Rule.BATCH_NORMS_DIFFER,
            severity=Severity.WARNING,
            subjects=tuple(run for n in numbers for run in runs_by_frames[n]),
            numbers={"ways": len(numbers), "least_frames": numbers[0], "most_frames": numbers[-1]},
            evidence=f"In {group}, batch norm normalised by different numbers of frames, as the GPUs had memory. "
            f"{ways}.",
            consequence="These runs trained differently, although their settings are the same. Repeat them with one "
            "micro_batch_size that fits into every GPU.",
        )


def _other_labels(subjects: tuple[str, ...], tasks: list[str], evidence: str) -> Finding:
    classes = [int(match[1]) for task in tasks if (match := re.match(r"(\d+) classes", task))]
    return Finding(
        rule=Rule.LABEL_SETS_DIFFER,
        severity=Severity.ERROR,
        subjects=subjects,
        numbers={
            "tasks": len(tasks),
            "least_chance": 1 / max(classes) if classes else None,
            "greatest_chance": 1 / min(classes) if classes else None,
        },
        evidence=evidence,
        consequence="Other classes mean another chance level, another ceiling and other frames. Compare runs of one "
        "task only.",
    )


def _task(config: Mapping[str, Any]) -> str | None:
    """Return the classes, else the label set or the number of frames; None where all are unknown."""
    labels = label_set_in(config)
    if (n_classes := classes_of(config)) is not None:
        own = "" if labels is None or labels in LABEL_SETS else f" ({labels} by SNR)"
        return f"{n_classes} classes{own}"
    counts = _counts(config)
    return labels or (None if counts is None else f"{sum(counts):,.0f} frames")


def _counts(config: Mapping[str, Any]) -> list[float] | None:
    counts = [count for part in ("n_train", "n_val", "n_test") if (count := number_in(config, part)) is not None]
    return counts if len(counts) == 3 else None


def _short_name(metric: str) -> str:
    """Return the name without folders and without the prefix of the validation part."""
    last = metric.replace("\\", "/").rsplit("/", 1)[-1].lower()
    return re.sub(r"^(?:val|valid|validation|eval)[_.-]", "", last)


def _value_of_checkpoint(entry: RankedRun) -> float | None:
    """Return the validation value of the weights that were tested; if unknown the peak, the highest it can be.

    None where epochs are missing: the real peak may be in one of them.
    """
    epoch = number_in(entry.run.summary, "test_checkpoint_epoch", "checkpoint_epoch")
    at = None if epoch is None else value_at(entry, epoch)
    if at is not None:
        return at
    is_whole = not entry.run.points or (is_gapless(entry) and (entry.epochs or 0) <= len(entry.run.points))
    return entry.peak if is_whole else None
