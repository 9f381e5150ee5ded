"""Options of several commands: durations like 7h30m, and where the folders of runs are."""

from __future__ import annotations

import re
from pathlib import Path

import click

from amc_sweeps.number_formats import duration, quoted

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_MOST_S = 3650 * 86400.0  # the system's clocks refuse to wait for some centuries


def seconds(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """Return the seconds of a text like 7h30m, 45m or 90s; a number alone is seconds."""
    if text is None:
        return None
    parts = _DURATION.fullmatch(text.strip().lower())
    if parts is None or not any(parts.groups()):
        raise click.BadParameter(f"{quoted(text)} is not a duration: write it like 7h30m, 45m or 90s")
    days, hours, minutes, rest = (float(part or 0) for part in parts.groups())
    length_s = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if length_s > _MOST_S:
        raise click.BadParameter(f"{quoted(text)} is too long: at most {duration(_MOST_S)}")
    return length_s


runs_dir_option = click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    envvar="AMC_RUNS_DIR",
    show_default=True,
    show_envvar=True,
    help="Where the folders of runs are.",
)
