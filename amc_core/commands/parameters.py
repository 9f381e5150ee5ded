"""Flags that several commands of amc-data share, and the types that read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from amc_core.config import FIELDS, check_value, parse_flag
from amc_core.modulations import CLASSES, LABEL_SETS

_Command = TypeVar("_Command", bound=Callable[..., Any])
_RINGS_HELP = "APSK radii, such as 16APSK=2.6 (default: 16 and 32 of DVB-S2, rate 3/4, 64 and 128 of liquid-dsp)."


class SnrLevels(click.ParamType[Any]):
    """FIRST:LAST:STEP in dB, both ends included, or a comma-separated list."""

    name = "dB"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return increasing levels."""
        text = str(value)
        if match := re.fullmatch(r"(-?\d+):(-?\d+)(?::(\d+))?", text):
            first, last, step = int(match[1]), int(match[2]), int(match[3] or 2)
            levels = range(first, last + 1, step) if step else ()
        elif re.fullmatch(r"-?\d+(,-?\d+)*", text):
            levels = sorted({int(level) for level in text.split(",")})  # type: ignore[assignment]
        else:
            levels = ()
        if not levels:
            self.fail(f"{text!r} names no level; write FIRST:LAST:STEP such as 0:30:2, or a list such as 0,10,20")
        if min(levels) < -20 or max(levels) > 30:
            self.fail(f"{text!r} leaves the layout's range of -20..30 dB")
        return tuple(levels)


class Classes(click.ParamType[Any]):
    """A label set or a comma-separated list of modulations."""

    name = "classes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return names in the order of the columns."""
        text = str(value)
        names = {CLASSES[column] for column in LABEL_SETS[text]} if text in LABEL_SETS else set(text.split(","))
        if unknown := sorted(names - set(CLASSES)):
            self.fail(f"unknown: {', '.join(unknown)}; known: {', '.join((*LABEL_SETS, *CLASSES))}")
        return tuple(name for name in CLASSES if name in names)


class Span(click.ParamType[Any]):
    """LOW:HIGH, or one number for both."""

    name = "low:high"

    def __init__(self, number: Callable[[str], float]) -> None:
        self._number = number

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Return both ends."""
        low, _, high = str(value).partition(":")
        try:
            return self._number(low), self._number(high or low)
        except ValueError:
            self.fail(f"{value!r} is no range; write LOW:HIGH")


class Rings(click.ParamType[Any]):
    """MODULATION=RATIO,...: the radii of the outer rings over the innermost."""

    name = "rings"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[float, ...]]:
        """Return the modulation and its ratios, unchecked."""
        modulation, _, ratios = str(value).partition("=")
        try:
            return modulation, tuple(float(ratio) for ratio in ratios.split(","))
        except ValueError:
            self.fail(f"{value!r} names no rings; write such as 16APSK=2.6 or 32APSK=2.54,4.33")


class TrialParameter(click.ParamType[Any]):
    """A value of one of a trial's parameters, with the checks that a trial makes."""

    def __init__(self, field: str) -> None:
        self.name = field

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the checked value."""
        checked, problem = check_value(self.name, parse_flag(self.name, value) if isinstance(value, str) else value)
        if problem is not None:
            self.fail(problem)
        return checked


levels_option = click.option(
    "--snr", "levels_db", type=SnrLevels(), default="0:30:2", show_default=True, help="Levels: 0:30:2 or 0,10."
)
classes_option = click.option(
    "--classes", "modulations", type=Classes(), default="digital17", show_default=True, help="Label set, or a list."
)
rings_option = click.option("--rings", type=Rings(), multiple=True, help=_RINGS_HELP)


def trial_option(field: str) -> Callable[[_Command], _Command]:
    """Offer one of a trial's parameters under the trial's name, with hyphens."""
    spec = FIELDS[field]
    default = ",".join(map(str, spec.default)) if spec.kind == "fractions" else str(spec.default)
    return click.option(
        f"--{field.replace('_', '-')}",
        type=TrialParameter(field),
        default=default,
        show_default=True,
        help=f"{spec.help}.",
    )
