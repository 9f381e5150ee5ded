"""YAML as the wandb client reads it, with reports of its silent errors: duplicate keys and numbers read as text."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import yaml

from amc_sweeps.bounded_texts import MOST_SWEEP_BYTES, BoundedLoader, TextError, check_size, read_yaml


class _Loader(BoundedLoader):
    """The client's dialect, YAML 1.1; it also collects duplicate keys."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.duplicates: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping as the parent class does, and record duplicate keys."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                self.duplicates.append(f"line {line}: {key.value!r} is given again (first in line {lines[key.value]})")
            lines.setdefault(key.value, line)
        return super().construct_mapping(node, deep)


def read_mapping(text: str) -> tuple[dict[str, Any] | None, list[str]]:
    """Return a YAML document that is one mapping, and its problems, one sentence each.

    With a duplicate key the mapping is still returned; the last one counts, as for the client. After a syntax error, or
    without a mapping, None is returned with the problem. Lines count from 1.
    """
    try:
        check_size(text, MOST_SWEEP_BYTES)
        document, loader = read_yaml(text, _Loader)
    except yaml.MarkedYAMLError as error:
        return None, [_syntax_problem(error)]
    except TextError as error:
        return None, [str(error)]
    if document is None:
        return None, ["the file is empty; a sweep is a mapping with at least method and parameters"]
    if not isinstance(document, dict):
        kind = "a list" if isinstance(document, list) else f"only {document!r:.60}"
        return None, [f"this is {kind}, not a mapping; a sweep starts with lines such as 'method: bayes'"]
    assert isinstance(loader, _Loader)
    return document, loader.duplicates


def number_in_text(value: Any) -> str:
    """Return a hint if ``value`` is text that was meant as a number, else an empty text.

    YAML 1.1 needs a dot and a signed exponent: PyYAML reads 1e-4 as text, 1.0e-4 as a number.
    """
    if not isinstance(value, str):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    mantissa, _, exponent = value.lower().partition("e")
    if not exponent:
        return f"; it was read as text: write {value} without quotes"
    sign = exponent if exponent[0] in "+-" else f"+{exponent}"
    spelling = f"{mantissa if '.' in mantissa else mantissa + '.0'}e{sign}"
    if spelling == value.lower():
        return f"; it was read as text: write {value} without quotes"
    return f"; YAML reads {value} as text: write {spelling}"


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return where + ", ".join(part for part in (error.context, error.problem) if part)
