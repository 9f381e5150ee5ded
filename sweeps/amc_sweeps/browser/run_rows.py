"""A ranked run and a sweep as plain JSON for the scripts of pages and reports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from amc_sweeps.grammar.distributions import Range, is_logarithmic
from amc_sweeps.grammar.hyperband import bands
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.grammar.searched_parameters import searched_parameters
from amc_sweeps.grammar.sweep_config import Choice, flatten
from amc_sweeps.runs.cause_groups import GROUPS, group_of
from amc_sweeps.runs.causes import FAILURES
from amc_sweeps.runs.evidence import hyperband_of
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import Metric, run_time_s
from amc_sweeps.values import is_number, look_up, printable, without_bare_nan

DIGITS = 5  # significant ones of a drawn value; finer than a pixel
MOST_POINTS = 400  # of one drawn curve; the peak always stays

Json = dict[str, Any]


def sweep_facts(config: Mapping[str, Any], metric: Metric) -> Json:
    """Return what the components must know of a sweep; ``percentage`` and ``decimals`` of its scale come beside it.

    Args:
        config: the sweep's file, also one that the grammar cannot read.
        metric: the metric of the ranking.
    """
    hyperband = hyperband_of(config)
    return {
        "metric": metric.name,
        "maximize": metric.goal == "maximize",
        "groups": list(GROUPS),
        "parameters": parameter_facts(config, searched_parameters(config)),
        "bands": list(bands(hyperband)) if hyperband else [],
    }


def parameter_facts(config: Mapping[str, Any], names: Sequence[str]) -> list[Json]:
    """Return for each parameter its name, its listed values, and whether its scale is logarithmic (None: unknown)."""
    parsed, _ = parse_leniently(config)
    leaves = {} if parsed is None else {".".join(path): leaf for path, leaf in flatten(parsed.parameters)}
    facts = []
    for name in names:
        leaf = leaves.get(name)
        listed = [_setting(value) for value in leaf.values] if isinstance(leaf, Choice) else []
        is_log = is_logarithmic(leaf) if isinstance(leaf, Range) else None
        facts.append({"name": printable(name), "listed": listed, "log": is_log})
    return facts


def run_row(entry: RankedRun, parameters: Sequence[str], *, has_epochs: bool) -> Json:
    """Return a run with its curve.

    Args:
        entry: the run.
        parameters: the names of the searched parameters; ``values`` has their order.
        has_epochs: draw its values at their epochs; else at 1, 2, 3, ...
    """
    run = entry.run
    return {
        "id": run.run_id,
        "name": run.name,
        "group": GROUPS.index(group_of(entry.cause)),
        "cause": str(entry.cause),
        "confidence": entry.diagnosis.confidence,
        "because": entry.diagnosis.because,
        "treatment": entry.treatment,
        "rank": entry.rank,
        "gem": entry.is_gem,
        "excluded": entry.excluded_by,
        "peak": entry.peak,
        "at": entry.peak_epoch,
        "last": without_bare_nan(entry.last),
        "epochs": entry.epochs,
        "planned": entry.epochs_planned,
        "state": run.state,
        "host": run.host,
        "agent": run.agent,
        "seconds": run_time_s(run),
        "began": _unix(run.created_at),
        "values": [_setting(look_up(run.config, name)) for name in parameters],
        "log": _last_line(run.log_tail) if entry.cause in FAILURES else None,
        **_curve(entry, has_epochs=has_epochs),
    }


def short(value: float | None) -> float | None:
    """Return a value with the digits that a chart can show; None where it is not finite."""
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None


def as_script(data: Json) -> str:
    """Write JSON for a script element; a ``<`` in a run's name cannot end the element."""
    content = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _curve(entry: RankedRun, *, has_epochs: bool) -> Json:
    """Return x and y of a run's curve; x is left out where it is 1, 2, 3, ...; None breaks the line."""
    points = entry.run.points
    epochs = (point.epoch if has_epochs else None for point in points)
    x = [float(count) if epoch is None else epoch for count, epoch in enumerate(epochs, start=1)]
    finite = [abs(value) for value in entry.run.curve]
    # As many decimals as the largest value needs: a chart's axis is linear.
    decimals = DIGITS - 1 - (math.floor(math.log10(most)) if (most := max(finite, default=0.0)) > 0 else 0)
    y = [round(point.value, decimals) if math.isfinite(point.value) else None for point in points]
    if len(points) > MOST_POINTS:
        places = {round(index * (len(points) - 1) / (MOST_POINTS - 1)) for index in range(MOST_POINTS)}
        places |= {place for place, point in enumerate(points) if point.value == entry.peak}
        x, y = [x[place] for place in sorted(places)], [y[place] for place in sorted(places)]
    plain = x == [float(count) for count in range(1, len(x) + 1)]
    return {"y": y} if plain else {"x": [place if math.isfinite(place) else None for place in x], "y": y}


def _setting(value: Any) -> Any:
    """Return a parameter's value as JSON has it; lists and mappings become their text."""
    if isinstance(value, bool | str) or is_number(value):
        return printable(value)
    return None if value is None or isinstance(value, float) else printable(json.dumps(value, default=str))


def _last_line(log: str | None) -> str | None:
    lines = (log or "").strip().splitlines()
    return lines[-1].strip()[:200] if lines else None


def _unix(time: datetime | None) -> float | None:
    return None if time is None else round(time.timestamp(), 3)
