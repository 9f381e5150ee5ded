"""The nodes of runs and of their files: the schema's ``Run`` and ``File``."""

from __future__ import annotations

import json
import mimetypes
import posixpath
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amc_server.clock import iso_time
from amc_server.errors import Refused
from amc_server.graphql import filters
from amc_server.graphql.context import Context, UserNode, page
from amc_server.ids import global_id
from amc_server.json_texts import read_json_object
from amc_server.store.logged_values import log_line, sampled
from amc_server.store.records import Artifact, Run, StoredFile
from amc_sweeps.bounded_texts import strict_json
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.values import as_finite, as_number, is_32_bit, look_up, without_bare_nan

LARGEST_INT = 2**31 - 1  # of GraphQL; a larger stored number must not make its project unreadable

MOST_LINES = 10_000  # of console log in one reply
MOST_SPECS, MOST_KEYS, LONGEST_KEY = 100, 1000, 1000  # of one request for a sampled history
KEY_ROWS = 1000  # rows of history that historyKeys reads


class RunNode:
    """A run."""

    __typename = "Run"  # for fields whose type may be Run or User
    read_only = False

    def __init__(self, context: Context, run: Run) -> None:
        self._context = context
        self._run = run
        self.id = global_id("Run", run.pk)
        self.name = run.id
        self.display_name = run.display_name
        self.project_id = str(run.project)
        self.state = run.state
        self.group = run.group_name
        self.job_type = run.job_type
        self.commit = run.git_commit
        self.description = run.description
        self.notes = run.notes
        self.host = run.host
        self.created_at = iso_time(run.created_at)
        self.heartbeat_at = iso_time(run.heartbeat_at)
        self.exitcode = run.exit_code if is_32_bit(run.exit_code) else None
        self.should_stop = run.stop_recorded
        self.stopped = run.state is RunState.KILLED and run.stop_recorded
        self.failed = run.state in (RunState.FAILED, RunState.CRASHED)
        self.running = run.state in (RunState.RUNNING, RunState.PREEMPTING)
        self.stop_reason = run.stop_reason
        self.stop_band = run.stop_band if is_32_bit(run.stop_band) else None
        self.stop_value = as_finite(run.stop_value)
        self.stop_threshold = as_finite(run.stop_threshold)
        self.state_when_exported = run.state_when_exported
        self.history_line_count = max(0, min(run.history_lines, LARGEST_INT))
        self.events_line_count = max(0, min(run.event_lines, LARGEST_INT))
        self.log_line_count = max(0, min(run.console_lines, LARGEST_INT))

    def config(self) -> str:
        return strict_json(self._run.config) if self._run.wrapped_config else "{}"

    def summary_metrics(self) -> str:
        return strict_json(self._run.summary) if self._run.summary_values else "{}"

    def unknown_facts(self) -> list[str]:
        """Return what an import lacked, and what cannot be read."""
        return list(dict.fromkeys([*self._run.unknown_facts, *self._run.problems]))

    def tags(self) -> list[str]:
        return self._run.tag_names

    def user(self) -> UserNode:
        return UserNode()

    def project(self) -> object:
        return self._context.nodes.project(self._context, self._context.store.project_by_key(self._run.project))

    def sweep_name(self) -> str | None:
        sweep = self._context.store.sweep_by_key(self._run.sweep) if self._run.sweep is not None else None
        return sweep.id if sweep else None

    def system_metrics(self) -> str:
        return self._context.store.events_tail(self._run.pk) or "{}"

    def history_tail(self) -> str:
        tail = self._context.store.history_tail(self._run.pk)
        return json.dumps([tail] if tail else [])

    def events_tail(self) -> str:
        tail = self._context.store.events_tail(self._run.pk)
        return json.dumps([tail] if tail else [])

    def wandb_config(self, keys: list[str] | None = None) -> str | None:
        """Return the client's own part of the config; from its ``t`` the client sees that the run has begun."""
        own = self._run.wrapped_config.get("_wandb")
        value = own.get("value", own) if isinstance(own, Mapping) else {}
        value = value if isinstance(value, Mapping) else {}
        return json.dumps(without_bare_nan({key: value[key] for key in keys or value if key in value}))

    def history_keys(self) -> dict[str, Any]:
        last_step = self._context.store.last_step(self._run.pk)
        counts: dict[str, dict[str, int]] = {}
        last: dict[str, Any] = {}
        for text in self._context.store.history(self._run.pk, limit=KEY_ROWS):
            for key, value in _flat(json.loads(text)):
                kinds = counts.setdefault(key, {})
                kind = "other" if as_number(value) is None else "number"
                kinds[kind] = kinds.get(kind, 0) + 1
                last[key] = value
        if self._run.history_lines > KEY_ROWS:
            last = dict(_flat(json.loads(self._context.store.history_tail(self._run.pk) or "{}")))
        keys = {
            key: {
                "typeCounts": [{"type": kind, "count": count} for kind, count in kinds.items()],
                **({"previousValue": without_bare_nan(last[key])} if key in last else {}),
            }
            for key, kinds in counts.items()
        }
        return {"lastStep": -1 if last_step is None else last_step, "keys": keys}

    def history(
        self, samples: int | None = None, min_step: int | None = None, max_step: int | None = None
    ) -> list[str]:
        """Return rows as JSON texts: a sample of all, or all with ``min_step <= _step < max_step``."""
        if min_step is None and max_step is None:
            return sampled(self._context.store.history(self._run.pk), samples)
        limit = -1 if samples is None else samples
        return self._context.store.history(self._run.pk, min_step=min_step, max_step=max_step, limit=limit)

    def events(self, samples: int | None = None) -> list[str]:
        return sampled(self._context.store.events(self._run.pk), samples)

    def sampled_history(self, specs: list[str]) -> list[list[dict[str, Any]]]:
        """Return for every spec the rows that have all of its keys."""
        if len(specs) > MOST_SPECS:
            raise Refused(f"{len(specs):,} history specs are given, at most {MOST_SPECS} are allowed")
        return [self._sample(_spec(text)) for text in specs]

    def _sample(self, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
        keys = list(dict.fromkeys(spec.get("keys") or []))
        texts = self._context.store.history(self._run.pk, min_step=spec.get("minStep"), max_step=_end_step(spec))
        rows = []
        for text in texts:
            row = json.loads(text)
            values = {key: look_up(row, key) for key in keys} if keys else row
            if all(value is not None for value in values.values()):
                rows.append(without_bare_nan(values))
        return sampled(rows, spec.get("samples"))

    def parquet_history(self, live_keys: list[str]) -> dict[str, Any]:
        """Return no Parquet files, so that the client reads the history itself."""
        return {"parquet_urls": [], "live_data": []}

    def log_lines(
        self,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        use_improved_pagination: bool | None = None,
    ) -> dict[str, Any]:
        store = self._context.store
        if last is not None:
            lines = store.console_tail(self._run.pk, min(max(last, 0), MOST_LINES))
            has_more = False
        else:
            start = int(after) if after is not None and after.isdecimal() else -1
            count = MOST_LINES if first is None else min(max(first, 0), MOST_LINES)
            lines = store.console(self._run.pk, after=start, limit=count + 1)
            lines, has_more = lines[:count], len(lines) > count
        edges = [{"node": log_line(line), "cursor": str(line.number)} for line in lines]
        return {
            "edges": edges,
            "page_info": {"end_cursor": edges[-1]["cursor"] if edges else None, "has_next_page": has_more},
        }

    def output_artifacts(self, after: str | None = None, first: int | None = None) -> dict[str, Any]:
        artifacts = self._context.store.artifacts_logged_by(self._run.pk)
        return self._artifacts([artifact for artifact in artifacts if artifact.is_committed], after, first)

    def input_artifacts(self, after: str | None = None, first: int | None = None) -> dict[str, Any]:
        return self._artifacts(self._context.store.artifacts_used_by(self._run.pk), after, first)

    def _artifacts(self, artifacts: Sequence[Artifact], after: str | None, first: int | None) -> dict[str, Any]:
        context = self._context
        return page(artifacts, after=after, first=first, wrap=lambda item: context.nodes.artifact(context, item))

    def file_count(self) -> int:
        return len(self._context.store.files(self._run.pk))

    def files(
        self,
        names: list[str] | None = None,
        after: str | None = None,
        first: int | None = None,
        pattern: str | None = None,
    ) -> dict[str, Any]:
        files = self._context.store.files(self._run.pk)
        if names:
            plain_names = {posixpath.normpath(name) for name in names}  # `wandb verify` asks for ./NAME
            files = [file for file in files if file.name in plain_names]
        if pattern:  # SQL's LIKE
            regex = re.escape(pattern).replace("%", "(?s:.*)").replace("_", "(?s:.)")
            compiled = filters.pattern(regex, "pattern")
            files = [file for file in files if compiled.fullmatch(file.name)]
        return page(files, after=after, first=first, wrap=lambda file: FileNode(self._context, self._run, file))


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a row under W&B's names: ``a.b`` for nested values; a picture or table is one value."""
    for key, value in row.items():
        if isinstance(value, Mapping) and "_type" not in value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _spec(text: str) -> Mapping[str, Any]:
    spec = read_json_object(text, "a history spec")
    for name in ("minStep", "maxStep", "samples"):
        if not isinstance(spec.get(name, 0), int | None):
            raise Refused(f"{name} of a history spec must be a whole number")
    keys = spec.get("keys") or []
    if not isinstance(keys, list) or not all(isinstance(key, str) and len(key) <= LONGEST_KEY for key in keys):
        raise Refused(f"keys of a history spec must be a list of names of at most {LONGEST_KEY:,} characters")
    if len(keys) > MOST_KEYS:
        raise Refused(f"a history spec has {len(keys):,} keys, at most {MOST_KEYS:,} are allowed")
    return spec


def _end_step(spec: Mapping[str, Any]) -> int | None:
    """Return the first step after a spec's window; ``maxStep`` itself belongs to the window, as W&B has it.

    Clients before 0.28 name the first step of the next page instead: ``minStep + samples``.
    """
    first, last, samples = spec.get("minStep"), spec.get("maxStep"), spec.get("samples")
    if last is None:
        return None
    has_next_page_first = first is not None and samples is not None and last - first == samples
    return int(last) if has_next_page_first else int(last) + 1


class FileNode:
    """A file of a run."""

    storage_path = upload_url = upload_multipart_urls = artifact = None
    upload_headers: Sequence[str] = ()

    def __init__(self, context: Context, run: Run, file: StoredFile) -> None:
        self._context = context
        self._run = run
        self._file = file
        self.id = global_id("File", file.pk)
        self.name = file.name
        self.size_bytes = file.size
        self.display_name = file.name
        self.md5 = self.digest = file.md5
        self.updated_at = iso_time(file.updated_at)
        self.mimetype = mimetypes.guess_type(file.name)[0] or "application/octet-stream"

    def url(self, upload: bool | None = None) -> str:
        if upload:
            return self._context.signed_url("run-file", self._file.run, self._file.name)
        project = self._context.store.project_by_key(self._run.project)
        path = "/".join(urllib.parse.quote(part, safe="") for part in (project.entity, project.name, self._run.id))
        return f"{self._context.base_url}/files/{path}/{urllib.parse.quote(self._file.name)}"

    def direct_url(self) -> str:
        return self.url()
