"""Whether the runs of a sweep support a statement, contradict it, or are too few to tell.

Every test is one-sided at 5% in each direction. Of several statements that are checked together each needs
5% / (their number), so that the chance of any wrong verdict stays at 5% (Bonferroni).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np

from amc_analysis.effects.statistics import fisher_p, mean_of
from amc_analysis.results.analysed_sweep import AnalysedSweep, run_label
from amc_analysis.runs.outcomes import Floats, outcomes_of
from amc_analysis.statements.statement import BestRun, Comparison, Statement
from amc_sweeps.number_formats import counted, percent
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.metric_scale import interval_text
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.statistics import wilson_interval

LEVEL = 0.05
SHUFFLES = 10_000  # all of them are counted where they are fewer
PARTS = 20  # of the shuffles: a thousand runs need 4 MB at a time


class Answer(StrEnum):
    """What the runs say about a statement."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    NOT_ENOUGH = "not enough evidence"


@dataclass(frozen=True)
class Verdict:
    """The answer to one statement, with its evidence."""

    statement: str
    answer: Answer
    sentences: tuple[str, ...]
    evidence: Mapping[str, Any]  # plain JSON types


def judge(statements: Sequence[Statement], analysed: AnalysedSweep) -> list[Verdict]:
    """Judge statements by the runs of an analysed sweep."""
    level = LEVEL / max(len(statements), 1)
    return [_judge_one(statement, analysed, level) for statement in statements]


def _judge_one(statement: Statement, analysed: AnalysedSweep, level: float) -> Verdict:
    if isinstance(statement, BestRun):
        verdict = _best_run(statement, analysed, level)
    else:
        verdict = (_performance if statement.about == "performance" else _failures)(statement, analysed, level)
    if analysed.is_complete or verdict.answer is Answer.NOT_ENOUGH:
        return verdict
    total = analysed.record.runs_total
    on_record = f"Only {len(analysed.ranked)}{f' of {total}' if total else ''} runs are on record"
    if isinstance(statement, BestRun) and verdict.answer is Answer.CONTRADICTED:
        return verdict  # one better run suffices
    sentences = (*verdict.sentences, f"{on_record}, so the runs cannot be compared as a whole.")
    return replace(verdict, answer=Answer.NOT_ENOUGH, sentences=sentences)


def _performance(statement: Comparison, analysed: AnalysedSweep, level: float) -> Verdict:
    groups = [[analysed.ranked[run] for run in runs] for runs in statement.runs]
    kept = [[entry for entry in group if entry.peak is not None and entry.excluded_by is None] for group in groups]
    n_first, n_second = map(len, kept)
    outcomes = outcomes_of([*kept[0], *kept[1]], analysed.metric.goal)
    above, below = _permutation_p(outcomes.rank_score, n_first) if n_first and n_second else (1.0, 1.0)
    reached = [
        [float(value) for value in part if math.isfinite(value)]
        for part in (outcomes.reached[:n_first], outcomes.reached[n_first:])
    ]
    means = [mean_of(values) for values in reached]
    chance = float(outcomes.rank_score[:n_first].mean()) if n_first and n_second else None
    sides = [
        f"{statement.parameter.name}={label}: {counted(len(part), 'run')}"
        + ("" if mean is None else f", mean {analysed.scale.text(mean)}")
        for label, part, mean in zip(statement.labels, kept, means, strict=True)
    ]
    at = outcomes.equal_epochs
    sentences = ["; ".join(sides) + (f" (best of the first {counted(at, 'epoch')})." if at else " (best values).")]
    left_out = sum(map(len, groups)) - n_first - n_second
    if left_out:
        sentences.append(f"{counted(left_out, 'run')} without a comparable value left out.")
    evidence = {
        "n": [n_first, n_second],
        "left_out": left_out,
        "means": means,
        "equal_epochs": at,
        "mean_rank_score_of_first": chance,
    }
    return _tested(statement, analysed, (above, below, level), "permutation", sentences, evidence)


def _failures(statement: Comparison, analysed: AnalysedSweep, level: float) -> Verdict:
    failed = analysed.outcomes.failed
    ended = [[run for run in runs if math.isfinite(failed[run])] for runs in statement.runs]
    counts = [(int(sum(failed[run] for run in runs)), len(runs)) for runs in ended]
    (k_first, n_first), (k_second, n_second) = counts
    total, failures = n_first + n_second, k_first + k_second
    above = fisher_p(k_first, n_first, failures, total)
    below = fisher_p(k_second, n_second, failures, total)
    sentences = [
        "; ".join(
            f"{statement.parameter.name}={label}: {k} of {counted(n, 'ended run')} failed"
            + (f" ({percent(k / n)}, 95% interval {interval_text(wilson_interval(k, n))})" if n else "")
            for label, (k, n) in zip(statement.labels, counts, strict=True)
        )
        + "."
    ]
    causes = Counter(str(analysed.ranked[run].cause) for runs in ended for run in runs if failed[run])
    if causes:
        sentences.append(f"Causes: {', '.join(f'{count} {cause}' for cause, count in causes.most_common())}.")
    evidence = {"failures": [k_first, k_second], "ended": [n_first, n_second], "causes": dict(causes)}
    return _tested(statement, analysed, (above, below, level), "Fisher's exact", sentences, evidence)


def _tested(
    statement: Comparison,
    analysed: AnalysedSweep,
    p: tuple[float, float, float],
    test: str,
    sentences: Sequence[str],
    evidence: Mapping[str, Any],
) -> Verdict:
    """Return the verdict of a test of two groups.

    Args:
        p: that the difference is so large by chance, that it is so large in the other direction, and the level of both.
        test: its name.
        sentences: of the groups.
        evidence: of the groups.
    """
    above, below, level = p
    answer = Answer.SUPPORTED if above <= level else Answer.CONTRADICTED if below <= level else Answer.NOT_ENOUGH
    sentences = (*sentences, _p_sentence(above, below, level, test), *_ties(statement, analysed))
    about = {"parameter": statement.parameter.name, "values": list(statement.labels)}
    figures = {"p_supports": above, "p_contradicts": below, "level": level}
    return Verdict(statement.text, answer, sentences, {**about, **evidence, **figures})


def _best_run(statement: BestRun, analysed: AnalysedSweep, level: float) -> Verdict:
    """Compare a run's peak with all others, in units of the noise between epochs.

    A lead must exceed the noise of the difference of two single epochs. A peak is steadier than that.
    """
    entry, sign = statement.entry, analysed.outcomes.sign
    rivals = [
        other
        for other in analysed.ranked
        if other is not entry
        and other.run.run_id != entry.run.run_id
        and other.peak is not None
        and not other.excluded_by
    ]
    evidence: dict[str, Any] = {"run": entry.run.run_id, "peak": entry.peak, "rank": entry.rank, "level": level}
    reason = _why_incomparable(entry, rivals)
    if reason or entry.peak is None:
        return Verdict(statement.text, Answer.NOT_ENOUGH, (reason or "",), evidence)
    rival = max(rivals, key=lambda other: sign * float(other.peak or 0.0))
    lead = sign * (entry.peak - float(rival.peak or 0.0))
    noise = _noise_of_difference(entry, rival)
    evidence |= {"rival": rival.run.run_id, "rival_peak": rival.peak, "lead": lead, "noise_sd_of_difference": noise}
    scale, peak = analysed.scale, analysed.peak_name
    sentences = [
        f"{run_label(entry)} has {peak} {scale.text(entry.peak)}; the best other run is {run_label(rival)} "
        f"with {scale.text(rival.peak)}."
    ]
    if noise is None:
        sentences.append(
            "One of the two logged too few epochs to estimate its noise, so the difference cannot be judged."
        )
        return Verdict(statement.text, Answer.NOT_ENOUGH, tuple(sentences), evidence)
    # The run may have been chosen because it leads, so the level is shared among all others in both directions.
    needed = noise * NormalDist().inv_cdf(1 - level / len(rivals))
    answer = Answer.SUPPORTED if lead > needed else Answer.CONTRADICTED if lead < -needed else Answer.NOT_ENOUGH
    evidence["lead_needed"] = needed
    sentences.append(
        f"The difference between two epochs of equal networks has a noise of {scale.difference(noise)} (1 sd): "
        f"a lead of more than {scale.difference(needed)} is evidence."
    )
    running = sum(other.cause is Cause.RUNNING for other in analysed.ranked)
    if running:
        sentences.append(f"{counted(running, 'run')} still running: the answer may change.")
    sentences.append("This is about the trained network. Whether its settings are best needs runs with other seeds.")
    return Verdict(statement.text, answer, tuple(sentences), evidence)


def _why_incomparable(entry: RankedRun, rivals: Sequence[RankedRun]) -> str | None:
    label = run_label(entry)
    if entry.run.unread:
        return f"The history of {label} could not be read."
    if entry.peak is None:
        return f"{label} logged no finite value of the metric."
    if entry.excluded_by is not None:
        return f"The values of {label} are excluded from every comparison by {entry.excluded_by}."
    return None if rivals else "No other run has a comparable value."


def _noise_of_difference(first: RankedRun, second: RankedRun) -> float | None:
    if first.noise_sd is None or second.noise_sd is None:
        return None
    return math.hypot(first.noise_sd, second.noise_sd) or None


def _permutation_p(rank_score: Floats, n_first: int) -> tuple[float, float]:
    """Return the p that the first runs' mean is so high, and that it is so low, if the two groups are alike."""
    n = len(rank_score)
    if math.comb(n, n_first) <= SHUFFLES:
        sums = np.array([rank_score[list(chosen)].sum() for chosen in combinations(range(n), n_first)])
    else:
        rng = np.random.default_rng(0)
        shuffled = [
            rng.permuted(np.tile(rank_score, (SHUFFLES // PARTS, 1)), axis=1)[:, :n_first].sum(axis=1)
            for _ in range(PARTS)
        ]
        sums = np.concatenate([[rank_score[:n_first].sum()], *shuffled])
    observed, tolerance = rank_score[:n_first].sum(), 1e-9 * n
    return float((sums >= observed - tolerance).mean()), float((sums <= observed + tolerance).mean())


def _p_sentence(above: float, below: float, level: float, test: str) -> str:
    p, direction = (above, "") if above <= below else (below, "in the other direction ")
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"The difference {direction}has {shown} (one-sided {test} test; at most {level:.3g} is evidence)."


def _ties(statement: Comparison, analysed: AnalysedSweep) -> Iterator[str]:
    """Yield a warning for every other parameter whose values come together with this one's."""
    name = statement.parameter.name
    for pair in analysed.confounded:
        if name in (pair.first, pair.second):
            other = pair.second if pair.first == name else pair.first
            yield f"{name} is tied to {other} in these runs: the difference may be due to either of them."
