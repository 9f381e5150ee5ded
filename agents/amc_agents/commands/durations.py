"""Durations as options: 7h30m, 45m, 90s."""

from __future__ import annotations

import re

import click

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


def seconds(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """Return the seconds of a text like 7h30m, 45m or 90s; a number alone is seconds."""
    if text is None:
        return None
    parts = _DURATION.fullmatch(text.strip().lower())
    if parts is None or not any(parts.groups()):
        raise click.BadParameter(f"{text!r} is not a duration: write it like 7h30m, 45m or 90s")
    days, hours, minutes, rest = (float(part or 0) for part in parts.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
