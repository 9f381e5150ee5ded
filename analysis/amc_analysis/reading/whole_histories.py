"""The embedded server's bulk operation: all runs with whole histories, see ``amc_server.http.whole_histories``.

The wandb client has no call for it, so it is plain HTTP with the same key. Files of runs are read the same way, which
saves the time to start the client.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from amc_analysis.reading.serialisation import read_update
from amc_analysis.reading.sources import (
    MAX_FILE_BYTES,
    HistoryPosition,
    NotFoundError,
    RunUpdate,
    Selection,
    SourceReply,
    SweepMetadata,
    run_record,
)
from amc_analysis.runs.history import History
from amc_analysis.runs.records import SweepUnreadableError
from amc_sweeps.backend.patience import GaveUpError, open_patiently
from amc_sweeps.bounded_texts import TextError, read_yaml
from amc_sweeps.runs.records import RunRecord, parse_time

FORMAT, VERSION = "amc-bulk", 1
TIMEOUT_S = 120.0  # without a byte from the server


class NoBulkError(RuntimeError):
    """This server has no bulk operation: read it through the public API."""


class BulkSource:
    """An embedded server, read by its bulk operation."""

    def __init__(self, base_url: str, key: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._base_url = base_url
        self._credentials = base64.b64encode(f"api:{key}".encode()).decode()
        self._sleep = sleep

    def read(self, selection: Selection, positions: Mapping[str, HistoryPosition]) -> SourceReply:
        """Start reading the selected runs, see RunSource.

        Raises:
            NoBulkError: when the server has no such operation.
        """
        body = {
            "entity": selection.entity,
            "project": selection.project,
            "sweep": selection.sweep_id,
            "runs": None if selection.run_ids is None else list(selection.run_ids),
            "known": {run_id: [position.token, position.lines] for run_id, position in positions.items()},
        }
        reply = self._send("/bulk", json.dumps(body).encode())
        if reply is None:
            raise NoBulkError(f"{self._base_url} has no bulk operation")
        first_line = json.loads(reply.readline() or b"{}")
        if first_line.get("format") != FORMAT or first_line.get("version") != VERSION:
            reply.close()
            raise NoBulkError(f"{self._base_url} answers in another format: {str(first_line)[:80]}")
        if first_line["project"] is None:
            reply.close()
            raise NotFoundError(selection.path)
        runs, sweep = first_line["runs"], self._sweep(first_line)
        return SourceReply(sweep, len(runs), self._updates(reply, runs, sweep.project))

    def file(self, project: str, run_id: str, names: Sequence[str]) -> bytes | None:
        """Return the first of these files that the run has, see FileSource."""
        for name in names:
            path = "/".join(urllib.parse.quote(piece) for piece in (project, run_id, name))
            reply = self._send(f"/files/{path}")
            if reply is not None:
                with reply:
                    content = reply.read(MAX_FILE_BYTES + 1)
                return content if len(content) <= MAX_FILE_BYTES else None
        return None

    def _sweep(self, line: Mapping[str, Any]) -> SweepMetadata:
        entity, project, sweep = line["entity"], line["project"], line["sweep"]
        page = f"{self._base_url}/{entity}/{project}"
        if sweep is None:
            return SweepMetadata(entity, project, url=page)
        try:
            config, _ = read_yaml(sweep["config"])
            updates = [{**update, "config": read_yaml(update["config"])[0]} for update in sweep.get("updates", ())]
        except (yaml.YAMLError, TextError) as error:
            raise SweepUnreadableError(f"the config of sweep {sweep['id']} cannot be read: {error}") from error
        return SweepMetadata(
            entity=entity,
            project=project,
            sweep_id=sweep["id"],
            config=config or {},
            state=sweep["state"].upper(),
            name=sweep["name"],
            url=f"{page}/sweeps/{sweep['id']}",
            description=sweep["description"] or "",
            updated_at=parse_time(sweep["updated_at"]),
            updates=tuple(map(read_update, updates)),
            crashed_runs=sweep.get("crashed_runs"),
        )

    def _updates(
        self, reply: http.client.HTTPResponse, runs: list[dict[str, Any]], project: str
    ) -> Generator[RunUpdate]:
        try:
            for run in runs:
                history, record = run["history"], _run_record(run, project)
                rows = History()
                for _ in range(history["arrays"]):
                    size = int(reply.readline() or -1)
                    text = reply.read(size) if size >= 0 else b""
                    if len(text) != size:
                        raise SweepUnreadableError(f"{self._base_url} ended its reply in the middle of run {run['id']}")
                    try:
                        block = History.from_json(text)
                    except (ValueError, AttributeError, RecursionError) as error:  # a damaged row in the database
                        record = replace(record, unread=f"its history holds a row that is no JSON object: {error}")
                        continue
                    rows = rows.extended(block) if rows.length else block
                if record.unread is not None:
                    yield RunUpdate(record, HistoryPosition("", 0), History())
                    continue
                position = HistoryPosition(history["token"], history["lines"])
                yield RunUpdate(record, position, rows, is_whole=history["first"] == 0)
        except (OSError, http.client.HTTPException) as error:
            raise SweepUnreadableError(f"{self._base_url} ended its reply: {error}") from error
        finally:
            reply.close()

    def _send(self, path: str, body: bytes | None = None) -> http.client.HTTPResponse | None:
        """Return the reply to a request, repeated while the server is busy; None where the path does not exist."""
        headers = {"Authorization": f"Basic {self._credentials}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._base_url}{path}", body, headers)
        try:
            return open_patiently(request, timeout_s=TIMEOUT_S, sleep=self._sleep)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in {404, 405}:
                    return None
                text = error.read(2000).decode(errors="replace")
                raise SweepUnreadableError(f"{self._base_url} answers {error.code}: {text}") from error
        except GaveUpError as error:
            raise SweepUnreadableError(str(error)) from error
        except OSError as error:
            raise SweepUnreadableError(f"{self._base_url} does not answer: {error}") from error


def _run_record(run: Mapping[str, Any], project: str) -> RunRecord:
    return run_record(
        run,
        project,
        log_tail=None if run["log"] is None else "\n".join(map(str.rstrip, run["log"])),
        alive_when_exported=run["state_when_exported"] is not None or None,
    )
