"""JSON that clients send, with refusals that name what was wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from amc_server.errors import Refused
from amc_sweeps import bounded_texts


def read_json(text: str | bytes, name: str, *, status: int | None = None, has_exact_integers: bool = True) -> Any:
    """Return the value that a JSON text holds.

    Args:
        text: the text.
        name: what the text is, for the message.
        status: of the refusal.
        has_exact_integers: see ``bounded_texts.read_json``.

    Raises:
        Refused: the text is not JSON, is nested too deeply, or has a number of too many digits.
    """
    try:
        return bounded_texts.read_json(text, has_exact_integers=has_exact_integers)
    except bounded_texts.TextError as error:
        raise Refused(f"{name}: {error}", status=status) from error


def read_json_object(text: str | bytes, name: str, *, has_exact_integers: bool = True) -> dict[str, Any]:
    """Return the object that a JSON text holds; the arguments are those of ``read_json``.

    Raises:
        Refused: the text is not JSON, or holds something else.
    """
    value = read_json(text, name, has_exact_integers=has_exact_integers)
    if not isinstance(value, dict):
        raise Refused(f"{name}: a JSON object is needed, not {str(text)[:80]!r}")
    return value


def json_or_none(values: Mapping[str, Any], name: str) -> str | None:
    """Return the text of a JSON object among values; None if there is none.

    Raises:
        Refused: it is something else.
    """
    text = values.get(name)
    return None if text in (None, "", "null") else json.dumps(read_json_object(str(text), name))


def without_surrogates(text: str) -> str:
    """Return the text without lone surrogates, which JSON can hold, and UTF-8, SQLite and RE2 cannot."""
    return text.encode("utf-8", "replace").decode()
