"""Lookups of several rules: values of a configuration or summary, the metric at an epoch, runs by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from amc_core.modulations import LABEL_SETS, class_names, label_set_of
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.values import as_finite

SNR_STEP_DB = 2  # between RadioML's levels


def number_in(mapping: Mapping[str, Any], *names: str) -> float | None:
    """Return the first finite number under these names."""
    return next((number for name in names if (number := as_finite(mapping.get(name))) is not None), None)


def text_in(mapping: Mapping[str, Any], *names: str) -> str | None:
    """Return the first text under these names."""
    return next((value for name in names if isinstance(value := mapping.get(name), str) and value), None)


def value_at(entry: RankedRun, epoch: float) -> float | None:
    """Return the metric at an epoch: the `epoch` metric of a row, else the count of logged values from 1."""
    for count, point in enumerate(entry.run.points, start=1):
        at = float(count) if point.epoch is None else point.epoch
        if at == epoch and math.isfinite(point.value):
            return point.value
    return None


def classes_of(config: Mapping[str, Any]) -> int | None:
    """Return how many classes, modulation and SNR together, a run's configuration makes; None for unknown."""
    n_classes = number_in(config, "n_classes", "num_classes")
    if n_classes is not None:
        return int(n_classes)
    names = modulations_of(config)
    low, high = number_in(config, "snr_min_db"), number_in(config, "snr_max_db")
    if names is None or low is None or high is None:
        return None
    return len(names) * (int(high - low) // SNR_STEP_DB + 1)


def modulations_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of a run's modulation classes: those that its trial found in the file, else its label set's."""
    found, labels = config.get("classes"), text_in(config, "label_set")
    if isinstance(found, str) and "," in found:
        found = found.split(",")
    if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
        return class_names(_label_set_of(found))
    if labels is None or not (labels in LABEL_SETS or "," in labels):
        return None
    return class_names(labels if labels in LABEL_SETS else _label_set_of(labels.split(",")))


def label_set_in(config: Mapping[str, Any]) -> str | None:
    """Return a run's label set; for that of its data file the classes that the file has."""
    labels, names = text_in(config, "label_set"), modulations_of(config)
    return labels if labels in LABEL_SETS or names is None else _label_set_of(names)


def _label_set_of(names: Sequence[str]) -> str:
    """Return one text for the same classes; that of names that no trial of ours takes keeps their order."""
    stripped = [name.strip() for name in names]
    try:
        return label_set_of(stripped)
    except ValueError:
        return ",".join(stripped)


def validated_with(config: Mapping[str, Any]) -> str:
    """Return the settings that decide how weights are validated; one that is not on record counts as off."""
    return ", ".join(f"{name} {number_in(config, name) or 0:g}" for name in ("batch_norm_frames", "ema_decay"))


def runs_by_name(ranked: Sequence[RankedRun]) -> dict[str, RankedRun]:
    """Return runs by id, and by display name where no two runs share it."""
    names = Counter(entry.run.name for entry in ranked)
    unique = {entry.run.name: entry for entry in ranked if names[entry.run.name] == 1}
    return unique | {entry.run.run_id: entry for entry in ranked}
