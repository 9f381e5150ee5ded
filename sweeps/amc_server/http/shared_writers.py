"""Runs that several clients write at a time: ``wandb.init(mode="shared")``.

Each client counts its lines by itself, so their numbers collide. The lines get the run's next free numbers, and a line
that is sent again keeps the number that it got.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from amc_server.errors import Refused
from amc_server.ids import is_plain_name
from amc_server.store.records import Line, Run
from amc_server.store.writer import Writer
from amc_sweeps.bounded_texts import json_object


def writer_of(headers: Mapping[str, str]) -> str | None:
    """Return the id of a client in shared mode, None for a client that has its run for itself.

    Raises:
        Refused: the id is not a name.
    """
    if headers.get("x-wandb-use-async-filestream") != "true":
        return None
    writer = headers.get("x-wandb-async-client-id", "")
    if not is_plain_name(writer):
        raise Refused("X-WANDB-ASYNC-CLIENT-ID must be 1 to 128 printable characters")
    return writer


def numbered(store: Writer, run: Run, writer: str, stream: str, lines: Sequence[Line], first_free: int) -> list[Line]:
    """Return a writer's lines of ``history``, ``events`` or ``console`` with the run's numbers.

    Lines that the run has already are left out, except in the console, where a client rewrites its lines.
    """
    if not lines:
        return []
    numbers = store.shared_lines(run.pk, stream, writer, lines[0].number, lines[-1].number)
    result: list[Line] = []
    new_lines: list[tuple[int, int]] = []
    for line in lines:
        number = numbers.get(line.number)
        if number is None:
            number = first_free + len(new_lines)
            new_lines.append((line.number, number))
        elif stream != "console":
            continue
        result.append(Line(number, line.body, line.step))
    store.put_shared_lines(run.pk, stream, writer, new_lines)
    return result


def with_step(line: Line) -> Line:
    """Return a line of history that has a ``_step``: clients before 0.28 leave it to the server, who counts lines."""
    row = json.loads(line.body)
    return line if "_step" in row else Line(line.number, json.dumps({**row, "_step": line.number}), line.number)


def merged(stored: str, changes: str) -> str:
    """Return a JSON object with the values of another put over it: each writer sends what it knows."""
    values: dict[str, Any] = {**json_object(stored)[0], **json.loads(changes)}
    return json.dumps(values)
