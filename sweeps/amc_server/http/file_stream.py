"""The posts of a trial while it runs: history, summary, system metrics, console lines, and how it ends.

A body is ``{"files": {NAME: {"offset": N, "content": [line, ...]}}, "uploaded": [...], "preempting": true,
"complete": true, "exitcode": N}``, everything optional. Lines go to ``offset, offset + 1, ...`` and replace the lines
there, so a post that is sent again changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from amc_server.errors import Refused
from amc_server.http.shared_writers import merged, numbered, with_step
from amc_server.json_texts import read_json_object, without_surrogates
from amc_server.scheduling import points
from amc_server.scheduling.coordinator import Coordinator
from amc_server.store.logged_values import history_line
from amc_server.store.records import Line, Run
from amc_server.store.writer import Writer
from amc_sweeps.values import is_32_bit

MAX_LINE = 2**31
HISTORY, SUMMARY, EVENTS, CONSOLE = "wandb-history.jsonl", "wandb-summary.json", "wandb-events.jsonl", "output.log"
TABLES = {HISTORY: "history", EVENTS: "events", CONSOLE: "console"}


@dataclass(frozen=True)
class Post:
    """A checked body."""

    lines: Mapping[str, list[Line]] = field(default_factory=dict)
    history_rows: list[Mapping[str, Any]] = field(default_factory=list)  # the parsed lines of history
    summary: str | None = None
    summary_values: Mapping[str, Any] = field(default_factory=dict)
    preempting: bool = False
    complete: bool = False
    exit_code: int = 0
    digest: bytes = b""  # of a last post's body; empty without lines, because two trials may send equal bodies then


def read_post(body: bytes) -> Post:
    """Return the content of a body.

    Raises:
        Refused: some of it is wrong; then nothing of it may be stored.
    """
    content = _read(body, "the body of a file_stream post")
    files = content.get("files")
    files = {} if files is None else files
    if not isinstance(files, dict):
        raise Refused("files must be a JSON object of file names")
    lines = {name: _lines(name, chunk) for name, chunk in files.items()}
    rows = {
        name: [_read(line.body, f"line {line.number} of {name}") for line in lines.get(name, [])]
        for name in (HISTORY, EVENTS, SUMMARY)
    }
    lines[HISTORY] = [
        history_line(line.number, line.body, row)
        for line, row in zip(lines.get(HISTORY, []), rows[HISTORY], strict=True)
    ]
    summary = lines.get(SUMMARY)
    exit_code = content.get("exitcode", 0)
    if not is_32_bit(exit_code):
        raise Refused(f"exitcode must be a whole number within 32 bits, not {str(exit_code)[:60]}")
    return Post(
        lines={name: lines[name] for name in (HISTORY, EVENTS, CONSOLE) if lines.get(name)},
        history_rows=list(rows[HISTORY]),
        summary=summary[-1].body if summary else None,
        summary_values=rows[SUMMARY][-1] if summary else {},
        preempting=bool(content.get("preempting")),
        complete=bool(content.get("complete")),
        exit_code=exit_code,
        digest=hashlib.sha256(body).digest() if files and content.get("complete") else b"",
    )


def _read(text: str | bytes, name: str) -> dict[str, Any]:
    """Return the object that a text holds. Lines are stored as they came, and metrics are floats anyway."""
    return read_json_object(text, name, has_exact_integers=False)


def apply_post(
    store: Writer, coordinator: Coordinator, run: Run, post: Post, *, writer: str | None = None
) -> dict[str, Any]:
    """Store a post and return the reply, which tells the trial to stop if a stop is recorded.

    Args:
        writer: the client's id if several clients write the run.
    """
    if coordinator.runs.is_repeated_end(run, post.digest):
        return {}
    if writer is not None:
        post = _of_writer(store, run, post, writer)
    changes: dict[str, Any] = {}
    for name, counter in ((HISTORY, "history_lines"), (EVENTS, "event_lines"), (CONSOLE, "console_lines")):
        lines = post.lines.get(name)
        if lines and lines[-1].number >= getattr(run, counter):
            changes[counter] = lines[-1].number + 1
    if post.summary is not None:
        changes["summary"] = post.summary
    if post.preempting:
        changes["preempting"] = 1
    if post.complete:
        changes |= {"exit_code": post.exit_code, "started": 1}
    else:  # a trial that posts is alive, whatever was inferred before
        changes |= {"exit_code": None, "started": 1, "given_up": 0}
    store.put_history(run.pk, post.lines.get(HISTORY, []))
    store.put_lines("events", run.pk, post.lines.get(EVENTS, []))
    store.put_lines("console", run.pk, post.lines.get(CONSOLE, []))
    run = coordinator.runs.trial_reported(store, run, **changes)
    if post.complete:
        coordinator.runs.trial_ended(run, post.digest)
    if run.sweep is not None:
        _record_metric(store, coordinator, run, post, has_new_rows="history_lines" in changes)
        run = store.run_by_key(run.pk) or run
    if run.stop_recorded and not post.complete:
        coordinator.last_heard.stop_delivered(run.pk)
        return {"stopped": True}
    return {}


def _of_writer(store: Writer, run: Run, post: Post, writer: str) -> Post:
    """Return a post of one of several clients with line numbers of the run and the summary of all."""
    free = {HISTORY: run.history_lines, EVENTS: run.event_lines, CONSOLE: run.console_lines}
    lines = {
        name: numbered(store, run, writer, TABLES[name], post.lines.get(name, []), first_free)
        for name, first_free in free.items()
    }
    lines[HISTORY] = [with_step(line) for line in lines[HISTORY]]
    rows = [json.loads(line.body) for line in lines[HISTORY]]
    summary = merged(run.summary, post.summary) if post.summary is not None else None
    return replace(post, lines=lines, history_rows=rows, summary=summary)


def _record_metric(store: Writer, coordinator: Coordinator, run: Run, post: Post, *, has_new_rows: bool) -> None:
    sweep = store.sweep_by_key(run.sweep or 0)
    config = sweep.readable_config if sweep else None
    if sweep is None or config is None or config.metric is None:
        return
    values: list[float] = []
    lines = post.lines.get(HISTORY)
    if lines:
        values = points.add_rows(store, sweep, run, [line.number for line in lines], post.history_rows)
    if not values and post.summary_values:
        values = points.add_summary(store, sweep, run, post.summary_values, has_new_rows=has_new_rows)
    if values:
        coordinator.metric_logged(store, sweep, values)


def _lines(name: str, chunk: Any) -> list[Line]:
    if not isinstance(chunk, dict):
        raise Refused(f"files.{name[:60]} must be an object with offset and content")
    offset, content = chunk.get("offset", 0), chunk.get("content", [])
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < MAX_LINE:
        raise Refused(f"files.{name[:60]}.offset must be a line number from 0, not {str(offset)[:60]}")
    if isinstance(content, str):
        content = [content]
    if isinstance(content, list) and offset + len(content) >= MAX_LINE:
        raise Refused(
            f"files.{name[:60]}: line {offset + len(content):,} is beyond the last one possible, {MAX_LINE - 1:,}"
        )
    if not isinstance(content, list) or not all(isinstance(line, str) for line in content):
        raise Refused(f"files.{name[:60]}.content must be a list of texts")
    return [Line(offset + index, without_surrogates(line)) for index, line in enumerate(content)]
