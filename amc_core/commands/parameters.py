"""Flags that several commands of amc-data share, and the functions that read their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from amc_core.config import FIELDS, check_value, parse_flag
from amc_core.modulations import CLASSES, LABEL_SETS, checked_names, class_names
from amc_sweeps.number_formats import quoted

_Command = TypeVar("_Command", bound=Callable[..., Any])
_RINGS_HELP = (
    "Radii of APSK's outer rings over the innermost one, such as 16APSK=2.6, or a constellation of DVB-S2X: "
    "64APSK=16+16+16+16, 64APSK=8+16+20+20, 64APSK=4+12+20+28, 128APSK=16+16+16+16+16+48. Default: DVB-S2 at rate 3/4 "
    "(16, 32APSK) and liquid-dsp (64, 128APSK)."
)


class ReadBy(click.ParamType[Any]):
    """A value that a function reads; the message of its ValueError is shown."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name, self._read = name, read

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._read(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _levels(text: str) -> tuple[int, ...]:
    """Read FIRST:LAST:STEP in dB, both ends included, or a comma-separated list; return increasing levels."""
    levels: Sequence[int] = ()
    if match := re.fullmatch(r"(-?\d+):(-?\d+)(?::(\d+))?", text):
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 2)
        levels = range(first, last + 1, step) if step else ()  # no list yet: it may have any length
    elif re.fullmatch(r"-?\d+(,-?\d+)*", text):
        levels = sorted({int(level) for level in text.split(",")})
    if not levels:
        raise ValueError(
            f"{quoted(text)} has no level; write FIRST:LAST:STEP such as 0:30:2, or a list such as 0,10,20"
        )
    if levels[0] < -20 or levels[-1] > 30:
        raise ValueError(f"{quoted(text)} has levels outside the layout's range of -20..30 dB")
    return tuple(levels)


def _classes(text: str) -> tuple[str, ...]:
    """Read a label set or a comma-separated list of modulations; return names in the order of the columns."""
    names = class_names(text) if text in LABEL_SETS else checked_names([part.strip() for part in text.split(",")])
    if unknown := sorted(set(names) - set(CLASSES)):
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join((*LABEL_SETS, *CLASSES))}")
    return tuple(name for name in CLASSES if name in names)


def _rings(text: str) -> tuple[str, tuple[float, ...] | str]:
    """Read MODULATION=RATIO,...: the radii of the outer rings over the innermost, or MODULATION=N+N+...: a table."""
    modulation, _, ratios = text.partition("=")
    if re.fullmatch(r"\d+(\+\d+)+", ratios):
        return modulation, ratios
    try:
        return modulation, tuple(float(ratio) for ratio in ratios.split(","))
    except ValueError:
        raise ValueError(
            f"{quoted(text)} has no radii of rings; write, for example, 16APSK=2.6 or 32APSK=2.54,4.33"
        ) from None


def span(number: Callable[[str], float]) -> ReadBy:
    """Return the type of LOW:HIGH, or one number for both."""

    def read(text: str) -> tuple[float, float]:
        low, _, high = text.partition(":")
        try:
            return number(low), number(high or low)
        except ValueError:
            raise ValueError(f"{quoted(text)} is not a range; write LOW:HIGH") from None

    return ReadBy("low:high", read)


levels_option = click.option(
    "--snr",
    "levels_db",
    type=ReadBy("dB", _levels),
    default="0:30:2",
    show_default=True,
    help="SNR levels in dB, as FIRST:LAST:STEP or a list such as 0,10.",
)
classes_option = click.option(
    "--classes",
    "modulations",
    type=ReadBy("classes", _classes),
    default="digital17",
    show_default=True,
    help="A label set, or a list such as BPSK,QPSK.",
)
rings_option = click.option("--rings", type=ReadBy("rings", _rings), multiple=True, help=_RINGS_HELP)


def trial_option(field: str) -> Callable[[_Command], _Command]:
    """Return an option for a parameter of a trial: the same name, with hyphens, and the same checks."""
    spec = FIELDS[field]

    def read(text: str) -> Any:
        value, problem = check_value(field, parse_flag(field, text))
        if problem is not None:
            raise ValueError(problem)
        return value

    default = ",".join(map(str, spec.default)) if spec.kind == "fractions" else str(spec.default)
    other = [f"--{spec.other_flag}"] if spec.other_flag else []
    return click.option(
        field,
        f"--{field.replace('_', '-')}",
        *other,
        type=ReadBy(field, read),
        default=default,
        show_default=True,
        help=f"{spec.help}.",
    )
