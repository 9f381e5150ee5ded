"""Train against validation inside runs: the gap by phase, and the epoch from which a run overfits."""

from __future__ import annotations

import re

import numpy as np

from amc_analysis.effects.statistics import mean_of
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.dynamics import GapSummary, RunGap
from amc_analysis.runs.parameters import Floats
from amc_analysis.runs.records import history_of
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.statistics import medians_of_3, noise_sd

LEAST_AFTER_PEAK = 5  # epochs; fewer may be a dip
LEAST_JUDGED = 2 * LEAST_AFTER_PEAK  # epochs; a run that never fell needs as many to be judged
CLEAR_NOISE_SDS = 2.0  # noise sd; each curve has to move by more

_VALIDATION = re.compile(r"(?<![A-Za-z])(?:val|valid|validation|eval|dev)(?![A-Za-z])")


def gap_summary(analysed: AnalysedSweep) -> GapSummary | None:
    """Compare the ranking metric with its train counterpart; None where no run logged that."""
    train = _VALIDATION.sub("train", analysed.metric.name, count=1)
    if train == analysed.metric.name:
        return None
    sign = analysed.outcomes.sign
    runs = [gap for entry in analysed.ranked if (gap := _gap(entry, train, analysed.metric.name, sign))]
    if not runs:
        return None
    return GapSummary(
        train_metric=train,
        runs=tuple(runs),
        overfitting=sum(gap.onset_epoch is not None for gap in runs),
        judged=sum(gap.is_judged for gap in runs),
        early=mean_of([gap.early for gap in runs]),
        middle=mean_of([gap.middle for gap in runs]),
        late=mean_of([gap.late for gap in runs]),
    )


def _gap(entry: RankedRun, train: str, metric: str, sign: float) -> RunGap | None:
    history = history_of(entry.run)
    if len(history.column("epoch")):
        train_E, value_E, epoch_E = history.aligned(train, metric, "epoch")
    else:
        train_E, value_E = history.aligned(train, metric)
        epoch_E = np.arange(1.0, 1 + len(value_E))
    finite_E = np.isfinite(train_E) & np.isfinite(value_E)
    train_E, value_E, epoch_E = sign * train_E[finite_E], sign * value_E[finite_E], epoch_E[finite_E]
    if not len(value_E):
        return None
    gap_E = train_E - value_E
    early, middle, late = (part.tolist() for part in np.array_split(gap_E if len(gap_E) >= 3 else gap_E[:0], 3))
    onset = onset_of(train_E, value_E)
    return RunGap(
        run_id=entry.run.run_id,
        early=mean_of(early),
        middle=mean_of(middle),
        late=mean_of(late),
        at_peak=float(gap_E[value_E.argmax()]),
        onset_epoch=None if onset is None else float(epoch_E[onset]),
        is_judged=is_judged(train_E, value_E),
    )


def is_judged(train_E: Floats, value_E: Floats) -> bool:
    """Return whether a run has the epochs that ``onset_of`` needs: enough for a noise estimate and after the peak."""
    smoothed = medians_of_3(value_E.tolist())
    after = len(value_E) - 2 - int(np.argmax(smoothed)) if smoothed else 0
    has_noise = noise_sd(value_E.tolist()) is not None and noise_sd(train_E.tolist()) is not None
    return has_noise and (after >= LEAST_AFTER_PEAK or len(value_E) >= LEAST_JUDGED)


def onset_of(train_E: Floats, value_E: Floats) -> int | None:
    """Return the index from which validation falls while train still rises; None where that is not clear.

    This is the smoothed validation peak, if at least 5 epochs follow it. Over the last third of these, validation must
    lie 2 noise sd below the peak, and train 2 noise sd above its value there. In a dip under a rising learning rate
    train falls too, so it does not count.

    Args:
        train_E: values on the training part; higher is better.
        value_E: values on the validation part.
    """
    smoothed = medians_of_3(value_E.tolist())
    if not smoothed:
        return None
    peak = 1 + int(np.argmax(smoothed))
    after = len(value_E) - 1 - peak
    noise, train_noise = noise_sd(value_E.tolist()), noise_sd(train_E.tolist())
    if after < LEAST_AFTER_PEAK or noise is None or train_noise is None:
        return None
    late = slice(len(value_E) - max(after // 3, 2), None)
    fell = smoothed[peak - 1] - float(value_E[late].mean()) > CLEAR_NOISE_SDS * noise
    at_peak = float(np.median(train_E[peak - 1 : peak + 2]))
    rose = float(train_E[late].mean()) - at_peak > CLEAR_NOISE_SDS * train_noise
    return peak if fell and rose else None
