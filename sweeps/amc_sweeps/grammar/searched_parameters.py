"""Which parameters a sweep varies, also of a sweep that the grammar cannot read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def searched_parameters(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the dotted names of the parameters that a sweep varies, in the order of its file."""
    return tuple(name for name, section in parameter_sections(config) if _is_varied(section))


def parameter_sections(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the section of every parameter of a sweep's file, constants included."""
    return _sections(config.get("parameters"))


def _sections(parameters: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, section in parameters.items() if isinstance(parameters, Mapping) else ():
        if isinstance(section, Mapping) and isinstance(section.get("parameters"), Mapping):
            yield from _sections(section["parameters"], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", section


def _is_varied(section: Any) -> bool:
    values = section.get("values") if isinstance(section, Mapping) else None
    return (
        isinstance(section, Mapping) and "value" not in section and not (isinstance(values, list) and len(values) == 1)
    )
