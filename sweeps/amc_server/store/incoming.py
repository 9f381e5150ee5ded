"""What clients send, as it is stored: without control characters and lone surrogates, which become their escapes.

The writer passes every value through here, whichever way it came: GraphQL, a trial's post, an import. The lines of a
console log stay as they are, colours included, because their readers escape them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from amc_sweeps.values import printable

_TEXTS = {
    *("display_name", "group_name", "job_type", "description", "notes", "host", "program", "repo", "git_commit"),
    "stop_reason",
}
_JSON = {"summary", "tags", "metadata"}


def storable(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row as they are stored. A run's parameters are a sweep's own and stay as they are."""
    is_json = _JSON | {"config"} if table == "runs" else _JSON
    return {
        name: value
        if not isinstance(value, str)
        else storable_json(value)
        if name in is_json
        else printable(value.replace("\r\n", "\n"))
        if name in _TEXTS
        else value
        for name, value in values.items()
    }


def storable_json(text: str) -> str:
    """Return a text of JSON in which no text and no name stands for a control character or half a surrogate pair."""
    if text.isascii() and "\\" not in text and "\x7f" not in text:  # nearly every row of a history
        return text
    value = json.loads(text)
    safe = printable(value)
    return text if repr(safe) == repr(value) else json.dumps(safe)
