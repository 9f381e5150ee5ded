"""YAML with comments that PyYAML reads back unchanged."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from amc_sweeps.grammar.strict_yaml import number_in_text

WIDTH = 118


def literal(value: Any) -> str:
    """Write a value in flow style. YAML 1.1 needs a dot and a signed exponent: it reads 1e-4 as text."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(str(key))}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    text = str(value)
    plain = yaml.safe_dump([text], default_flow_style=True, width=math.inf).strip()[1:-1]
    return json.dumps(text) if number_in_text(text) else plain


def number(value: float) -> str:
    """Write a float: plain where it is near 1, else with an exponent that YAML 1.1 reads."""
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    text = repr(value)
    if value != 0 and not 1e-2 <= abs(value) < 1e4:  # the shortest mantissa that reads back equal
        text = next(short for digits in range(18) if float(short := f"{value:.{digits}e}") == value)
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}"


def comment(text: str, indent: int = 0) -> list[str]:
    """Return comment lines; line breaks in the text cannot end the comment."""
    lines = textwrap.wrap(" ".join(text.split()), WIDTH - indent - 2, break_long_words=False, break_on_hyphens=False)
    return [f"{' ' * indent}# {line}" for line in lines]


def parameters(
    sections: Mapping[tuple[str, ...], Mapping[str, Any]], comments: Mapping[tuple[str, ...], Sequence[str]]
) -> list[str]:
    """Write the sections of parameters with the comments above each; nested ones of one parent follow one another."""
    lines: list[str] = []
    previous: tuple[str, ...] = ()
    for path, section in sections.items():
        for depth, name in enumerate(path[:-1]):
            if path[: depth + 1] != previous[: depth + 1]:
                lines += [f"{' ' * (2 + 4 * depth)}{literal(name)}:", f"{' ' * (4 + 4 * depth)}parameters:"]
        indent = 4 * len(path) - 2
        lines += [line for text in comments.get(path, ()) for line in comment(text, indent)]
        lines.append(f"{' ' * indent}{literal(path[-1])}: {literal(section)}")
        previous = path
    return lines
