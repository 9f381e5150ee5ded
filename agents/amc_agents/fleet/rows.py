"""What there is to show of every place at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import yaml

from amc_agents.fleet.agent_slot import Place
from amc_agents.fleet.devices import Reading
from amc_agents.fleet.display import Row
from amc_agents.fleet.evidence import NOTHING
from amc_agents.fleet.policy import Ended
from amc_agents.fleet.watch import Watch


def rows(
    places: Sequence[Place],
    ended: Sequence[Ended],
    readings: Mapping[str, Reading | None],
    watch: Watch,
    now_s: float,
) -> list[Row]:
    """Return a row a place.

    Args:
        places: all of them.
        ended: every trial that has ended here.
        readings: of devices, by their identity.
        watch: what W&B holds of the runs.
        now_s: the monotonic time.
    """
    found = []
    for place in places:
        record = watch.record(place.trial.run if place.trial else None) or NOTHING
        reading = readings.get(place.device.identity)
        mine = [trial for trial in ended if trial.device == place.device.name]
        found.append(
            Row(
                place=place.name,
                used_bytes=reading.used_bytes if reading else None,
                total_bytes=reading.total_bytes if reading else None,
                utilisation=reading.utilisation if reading else None,
                run=place.trial.run if place.trial else None,
                doing=_doing(place, now_s),
                epoch=record.epoch,
                peak=record.peak,
                done=sum(not trial.is_failure for trial in mine),
                failures=dict(Counter(str(trial.cause) for trial in mine if trial.is_failure)),
            )
        )
    return found


def _doing(place: Place, now_s: float) -> str:
    if place.trial is not None:
        return f"since {now_s - place.trial.began_s:.0f} s"
    if place.is_idle:
        return "waits for a trial"
    if place.start_at_s is not None and place.start_at_s > now_s:
        return f"agent in {place.start_at_s - now_s:.0f} s"
    return place.note


def in_words(configuration: str | None) -> str:
    """Return what a sweep chose for a run, from the file that its agent wrote, as ``name=value`` in a line."""
    try:
        chosen = yaml.safe_load(configuration or "")
    except yaml.YAMLError:
        chosen = None
    if not isinstance(chosen, dict):
        return "unknown"
    values = {name: entry.get("value") for name, entry in chosen.items() if isinstance(entry, dict)}
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items())) or "unknown"
