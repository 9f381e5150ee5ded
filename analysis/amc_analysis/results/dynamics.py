"""Summaries of the dynamics inside runs: learning rate, modes, overfitting, task weights, attractors, classes.

A summary is None or empty where no run logged its metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RunCycle:
    """Learning rate against performance in one run."""

    run_id: str
    epochs: int
    change_rising: float | None  # mean change of the metric an epoch while the learning rate rises; positive is better
    change_falling: float | None  # the same while it falls
    peak_phase: Literal["rising", "at the top", "falling", "at the bottom", "constant"] | None
    peak_lr: float | None
    peak_lr_share: float | None  # of its cycle's highest learning rate


@dataclass(frozen=True)
class CycleSummary:
    """Whether the metric improves more while the learning rate falls than while it rises."""

    metric: str  # the learning rate's name
    runs: tuple[RunCycle, ...]
    n: int  # runs with both rising and falling epochs
    difference: float | None  # mean over runs of change_falling minus change_rising; positive: falling is better
    interval: tuple[float, float] | None  # Student's t, 95%, from 8 runs on
    runs_better_falling: int
    peaks: Mapping[str, int]  # phase -> number of runs whose peak lies there


@dataclass(frozen=True)
class Modes:
    """Whether the runs' outcomes fall into two groups."""

    n: int
    excess_mass: float  # of two groups over one: twice Hartigan's dip
    p: float  # against the uniform distribution, by simulation
    bimodal: bool
    gap: tuple[float, float] | None  # the empty stretch between the two groups
    below: int | None  # runs under the gap
    above: int | None


@dataclass(frozen=True)
class RunGap:
    """Train minus validation in one run; of a minimised metric validation minus train. In the metric's unit."""

    run_id: str
    early: float | None  # mean over the first, middle and last third of its epochs
    middle: float | None
    late: float | None
    at_peak: float | None
    onset_epoch: float | None  # from here on validation falls while train still rises
    is_judged: bool  # has enough epochs to show overfitting


@dataclass(frozen=True)
class GapSummary:
    """The gaps of all runs, see ``RunGap``."""

    train_metric: str
    runs: tuple[RunGap, ...]
    overfitting: int  # runs with an onset
    judged: int  # runs with enough epochs to show overfitting
    early: float | None  # means over runs
    middle: float | None
    late: float | None


@dataclass(frozen=True)
class RunDrift:
    """The modulation task's share of the task weights in one run."""

    run_id: str
    first: float
    last: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class RunAttractor:
    """The SNR level that one run took frames of other levels for."""

    run_id: str
    epochs: int  # logged epochs
    epochs_with: int  # logged epochs with such a level
    usual_db: float | None  # the most frequent such level
    greatest_share: float  # of the frames of other levels that were taken for it, in the worst epoch
    last_share: float  # in the last epoch; 0 without one


@dataclass(frozen=True)
class ClassScore:
    """F1 of one class in the epoch of the run's peak, and how it moved."""

    metric: str  # as logged: f1/mod/QPSK
    name: str  # QPSK, PSK, 12
    at_peak: float | None
    best: float
    last: float
    volatility: float | None  # sd from epoch to epoch, from second differences
    largest_drop: float  # between two neighbouring epochs


@dataclass(frozen=True)
class ClassSummary:
    """F1 of the best run, by modulation, family and SNR level."""

    run_id: str
    epoch: float | None  # of its peak
    modulations: tuple[ClassScore, ...]  # best first
    families: tuple[ClassScore, ...]
    levels: tuple[ClassScore, ...]  # by dB


@dataclass(frozen=True)
class RunVolatility:
    """Epoch-to-epoch movement of the ranking metric in one run."""

    run_id: str
    noise_sd: float
    largest_drop: float
    drop_epoch: float | None
    peak_inflation: float  # expected height of the peak above the mean in as many epochs of this noise without a trend


@dataclass(frozen=True)
class Dynamics:
    """All summaries of a sweep."""

    cycles: CycleSummary | None = None
    modes: Modes | None = None
    gap: GapSummary | None = None
    drifts: tuple[RunDrift, ...] = ()
    attractors: tuple[RunAttractor, ...] = ()
    classes: ClassSummary | None = None
    volatility: tuple[RunVolatility, ...] = ()
