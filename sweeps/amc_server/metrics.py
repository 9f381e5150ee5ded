"""Counts since the start, and what the database holds now, in Prometheus' text format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_OPERATIONS = 200  # names are the clients' choice: what comes after these counts as "other"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

# Path templates are few; the paths themselves hold ids of runs without end.
_DOORS = (
    ("/graphql", "graphql"),
    ("/healthz", "healthz"),
    ("/metrics", "metrics"),
    ("/storage/", "storage"),
    ("/files/", "files"),
    ("/sdk/", "telemetry"),
    ("/import", "import"),
    ("/bulk", "bulk"),
)


def door_of(path: str) -> str:
    """Return which kind of request a path is."""
    if path.endswith("/file_stream"):
        return "file_stream"
    return next((door for prefix, door in _DOORS if path.startswith(prefix)), "page")


class Metrics:
    """Counters that any thread may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._durations: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._operations: set[str] = set()
        self._rows = 0

    def request(self, path: str, operation: str | None, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        door = door_of(path)
        with self._lock:
            if operation is not None and operation not in self._operations:
                if len(self._operations) < MOST_OPERATIONS:
                    self._operations.add(operation)
                else:
                    operation = "other"
            self._requests[door, operation or "", status] += 1
            buckets = self._durations.setdefault(door, [0] * (len(BUCKETS_S) + 1))
            buckets[bisect_left(BUCKETS_S, seconds)] += 1
            self._seconds[door] = self._seconds.get(door, 0.0) + seconds

    def rows(self, count: int) -> None:
        """Count history rows that are on disk."""
        with self._lock:
            self._rows += count

    def text(
        self,
        *,
        runs: Mapping[str, int],
        sweeps: Mapping[str, int],
        living_agents: int,
        resident_bytes: int,
        database_bytes: int,
    ) -> str:
        """Return everything in Prometheus' text format."""
        with self._lock:
            requests, rows = dict(self._requests), self._rows
            durations = {door: list(counts) for door, counts in self._durations.items()}
            seconds = dict(self._seconds)
        lines = _family("amc_requests_total", "counter", "Requests answered.")
        for (door, operation, status), count in sorted(requests.items()):
            lines.append(_sample("amc_requests_total", count, door=door, operation=operation, status=str(status)))
        lines += _family("amc_request_duration_seconds", "histogram", "From the request's arrival to its answer.")
        for door, counts in sorted(durations.items()):
            below = 0
            for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
                below += count
                lines.append(_sample("amc_request_duration_seconds_bucket", below, door=door, le=bound))
            lines.append(_sample("amc_request_duration_seconds_sum", round(seconds[door], 6), door=door))
            lines.append(_sample("amc_request_duration_seconds_count", below, door=door))
        lines += [
            *_family("amc_history_rows_total", "counter", "History rows written."),
            f"amc_history_rows_total {rows}",
        ]
        lines += _states("amc_runs", "Runs by state.", runs)
        lines += _states("amc_sweeps", "Sweeps by state.", sweeps)
        for name, help_text, value in (
            ("amc_living_agents", "Agents heard within the last minute.", living_agents),
            ("process_resident_memory_bytes", "Memory of the server process.", resident_bytes),
            ("amc_database_bytes", "Size of the database with its log.", database_bytes),
        ):
            lines += [*_family(name, "gauge", help_text), f"{name} {value}"]
        return "\n".join(lines) + "\n"


def _states(name: str, help_text: str, counts: Mapping[str, int]) -> Iterable[str]:
    samples = [_sample(name, count, state=state) for state, count in sorted(counts.items())]
    return [*_family(name, "gauge", help_text), *samples]


def _family(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]


def _sample(name: str, value: float, **labels: str) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{shown}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
