"""Hyperband's bands against what a trial does until then: its warmup, its strict curriculum and its rising cycles."""

from __future__ import annotations

import math
from collections.abc import Iterator

from amc_agents.preflight.flat_sweep import FlatSweep, possible_values
from amc_core.config import FIELDS
from amc_sweeps.grammar.distributions import Range
from amc_sweeps.grammar.hyperband import bands
from amc_sweeps.number_formats import counted

_LEVEL_STEP_DB = 2  # of RadioML 2018.01A
_MOST_LENGTHS = 1000  # of a range


def band_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Compare Hyperband's bands with the epochs of a trial, its warmup, its curriculum and its cycles."""
    if sweep.config.early_terminate is None:
        return
    all_bands = bands(sweep.config.early_terminate)
    shortest, longest = min(sweep.numbers("epochs")), max(sweep.numbers("epochs"))
    warmup, joined, lengths = max(sweep.numbers("warmup_epochs")), last_level_joins(sweep), _cycle_lengths(sweep)
    if all_bands[0] >= longest:
        yield f"early_terminate: the first band is epoch {all_bands[0]}, but training ends with epoch {longest:g}"
    elif sweep.config.early_terminate.max_iter is not None and all_bands[-1] >= shortest:
        late_bands = ", ".join(str(band) for band in all_bands if band >= shortest)
        yield f"early_terminate: bands at epoch {late_bands}, but a trial may end with epoch {shortest:g}"
    if early_bands := [band for band in all_bands if band <= warmup]:
        yield (
            f"early_terminate: the bands at epoch {_listed(early_bands)} lie within the warmup "
            f"({counted(warmup, 'epoch')}), which is too early to judge a configuration; {_better_bands(sweep)}"
        )
    if early_bands := [band for band in all_bands if band < joined]:
        yield (
            f"early_terminate: the bands at epoch {_listed(early_bands)} come before epoch {joined:g}, in "
            f"which the strict curriculum's last SNR level joins, so runs are judged before they train on every level; "
            f"write curriculum_mode: {{value: sliding}}, or {_better_bands(sweep).removeprefix('write ')}"
        )
    if rising_bands := [band for band in all_bands if band < longest and any(_rises(band, each) for each in lengths)]:
        yield (
            f"early_terminate: the bands at epoch {_listed(rising_bands)} lie in the rising half of a learning-rate "
            f"cycle, where a run with a high max_lr scores below what it reaches at the end of the cycle, so good runs "
            f"are stopped; {_better_bands(sweep)}"
        )


def last_level_joins(sweep: FlatSweep) -> float:
    """Return the epoch in which the slowest strict curriculum trains on all levels; 0 without one."""
    return _last_stage(sweep) * _epochs_per_stage(sweep) + 1 if _has_curriculum(sweep, "strict") else 0


def last_level_is_full(sweep: FlatSweep) -> float:
    """Return the epoch in which the slowest sliding curriculum gives all levels the full weight; 0 without one."""
    if not _has_curriculum(sweep, "sliding"):
        return 0
    return (_last_stage(sweep) + max(sweep.numbers("curriculum_window")) - 1) * _epochs_per_stage(sweep) + 1


def _has_curriculum(sweep: FlatSweep, mode: str) -> bool:
    return True in sweep.values["curriculum"] and mode in sweep.values["curriculum_mode"]


def _last_stage(sweep: FlatSweep) -> float:
    """Return the stage in which the lowest level joins, 0 being the first."""
    return (max(sweep.numbers("snr_max_db")) - min(sweep.numbers("snr_min_db"))) // _LEVEL_STEP_DB


def _epochs_per_stage(sweep: FlatSweep) -> float:
    return max(sweep.numbers("curriculum_epochs_per_stage"))


def _cycle_lengths(sweep: FlatSweep) -> list[int]:
    """Return the lengths that a triangular cycle of the sweep may have, epochs; empty without such cycles.

    Lengths above twice the longest training are left out but for one: all of them rise to its end.
    Of a wide range the first ones and the last one stand for all: they have no common multiple in any training.
    """
    if "triangular2" not in sweep.values["lr_schedule"]:
        return []
    leaf = sweep.fields.get("epochs_per_cycle")
    if leaf is None:
        return [FIELDS["epochs_per_cycle"].default]
    most = 2 * int(max(sweep.numbers("epochs")))
    if isinstance(leaf, Range):
        low, high = min(sweep.numbers("epochs_per_cycle")), max(sweep.numbers("epochs_per_cycle"))
        first, last = min(int(low), most), min(int(high), most)
        return sorted({*range(first, min(last, first + _MOST_LENGTHS) + 1), last})
    return [min(int(value), most) for value in possible_values(leaf) if isinstance(value, int | float)]


def _rises(band: int, length: int) -> bool:
    """Whether the learning rate has risen just before this band, or is at its highest."""
    return 0 < band % length <= length / 2


def _better_bands(sweep: FlatSweep) -> str:
    """Return the line whose bands come after warmup and curriculum and, with cycles, lie at the ends of all of them."""
    config, lengths, shortest = sweep.config.early_terminate, _cycle_lengths(sweep), min(sweep.numbers("epochs"))
    assert config is not None
    step, epoch = math.lcm(*lengths), max(max(sweep.numbers("warmup_epochs")) + 1, last_level_joins(sweep))
    if lengths and step < shortest:
        epoch = step * max(math.ceil(epoch / step), round(bands(config)[0] / step))
    if max(epoch, step) >= shortest:
        return "leave early_terminate out, or train longer"
    eta = max(round(config.eta), 2) if lengths else config.eta
    strict = str(config.strict).lower()
    return f"write early_terminate: {{type: hyperband, min_iter: {epoch:g}, eta: {eta:g}, strict: {strict}}}"


def _listed(epochs: list[int]) -> str:
    return ", ".join(map(str, epochs))
