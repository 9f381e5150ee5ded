"""What happened inside the runs: learning rate, modes, overfitting, task weights, attractors, classes.

A view is None where its metrics were not logged, so that the analysis of any other sweep shows none of them.
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
    change_rising: float | None  # mean change of the metric from epoch to epoch while the learning rate rises,
    change_falling: float | None  # and while it falls; in the metric's unit, positive is better
    peak_phase: Literal["rising", "at the top", "falling", "at the bottom", "constant"] | None
    peak_lr: float | None
    peak_lr_share: float | None  # of its cycle's highest learning rate


@dataclass(frozen=True)
class CycleView:
    """Does the metric suffer while the learning rate rises?"""

    metric: str  # the learning rate's name
    runs: tuple[RunCycle, ...]
    n: int  # runs with both rising and falling epochs
    difference: float | None  # mean over runs of change_falling minus change_rising; positive: falling is better
    interval: tuple[float, float] | None  # Student's t, 95 %, from 8 runs on
    runs_better_falling: int
    peaks: Mapping[str, int]  # phase -> number of runs whose peak lies there


@dataclass(frozen=True)
class Modes:
    """Do the runs' outcomes fall into two groups?"""

    n: int
    excess_mass: float  # of two modes over one: twice Hartigan's dip
    p: float  # against the uniform distribution, by simulation
    bimodal: bool
    gap: tuple[float, float] | None  # the empty stretch between the two groups
    below: int | None  # runs under the gap
    above: int | None


@dataclass(frozen=True)
class RunGap:
    """Train minus validation in one run, as a share or in the metric's unit."""

    run_id: str
    early: float | None  # mean over the first, middle and last third of its epochs
    middle: float | None
    late: float | None
    at_peak: float | None
    onset_epoch: float | None  # since when the validation value falls while the train value still rises
    is_judged: bool  # whether it has the epochs to tell


@dataclass(frozen=True)
class GapView:
    """Overfitting over all runs."""

    train_metric: str
    runs: tuple[RunGap, ...]
    overfitting: int  # runs with an onset
    judged: int  # runs that have the epochs to tell
    early: float | None  # means over runs
    middle: float | None
    late: float | None


@dataclass(frozen=True)
class RunDrift:
    """How the task weights moved in one run; share of the modulation task."""

    run_id: str
    first: float
    last: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class RunAttractor:
    """The SNR level that swallowed others in one run."""

    run_id: str
    epochs: int  # logged epochs
    epochs_with: int  # of these, with an attractor
    usual_db: float | None  # the level that was it most often
    greatest_share: float  # of the frames of other levels that it swallowed, at worst
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
class ClassView:
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
    peak_inflation: float  # by which the peak of so many flat epochs of this noise lies above their mean


@dataclass(frozen=True)
class Dynamics:
    """All views."""

    cycles: CycleView | None
    modes: Modes | None
    gap: GapView | None
    drifts: tuple[RunDrift, ...]
    attractors: tuple[RunAttractor, ...]
    classes: ClassView | None
    volatility: tuple[RunVolatility, ...]
