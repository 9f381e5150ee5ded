"""Counters since the start, and the present state of the database, in Prometheus' text format."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_OPERATIONS = 200  # clients choose the names; further ones count as "other"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

# A label for every kind of path: the paths themselves hold the ids of any number of runs.
_ENDPOINTS = (
    ("/graphql", "graphql"),
    ("/healthz", "healthz"),
    ("/metrics", "metrics"),
    ("/storage/", "storage"),
    ("/files/", "files"),
    ("/sdk/", "telemetry"),
    ("/import", "import"),
    ("/bulk", "bulk"),
)

disable_created_metrics()  # type: ignore[no-untyped-call]


def endpoint_of(path: str) -> str:
    """Return the label of a path's endpoint."""
    if path.endswith("/file_stream"):
        return "file_stream"
    return next((endpoint for prefix, endpoint in _ENDPOINTS if path.startswith(prefix)), "page")


class Metrics:
    """Counters that any thread may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._operations: set[str] = set()
        self._registry = registry = CollectorRegistry()
        labels = ("endpoint", "operation", "status")
        self._requests = Counter("amc_requests", "Requests answered.", labels, registry=registry)
        self._durations = Histogram(
            "amc_request_duration_seconds",
            "From the request's arrival to its answer.",
            ("endpoint",),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._rows = Counter("amc_history_rows", "History rows written.", registry=registry)
        self._runs = Gauge("amc_runs", "Runs by state.", ("state",), registry=registry)
        self._sweeps = Gauge("amc_sweeps", "Sweeps by state.", ("state",), registry=registry)
        self._agents = Gauge("amc_living_agents", "Agents heard within the last minute.", registry=registry)
        self._memory = Gauge("process_resident_memory_bytes", "Memory of the server process.", registry=registry)
        self._database = Gauge("amc_database_bytes", "Size of the database with its log.", registry=registry)

    def request(self, path: str, operation: str | None, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        endpoint = endpoint_of(path)
        if operation is not None:
            with self._lock:
                if operation in self._operations or len(self._operations) < MOST_OPERATIONS:
                    self._operations.add(operation)
                else:
                    operation = "other"
        self._requests.labels(endpoint, operation or "", str(status)).inc()
        self._durations.labels(endpoint).observe(seconds)

    def rows(self, count: int) -> None:
        """Count history rows that are on disk."""
        self._rows.inc(count)

    def text(
        self,
        *,
        runs: Mapping[str, int],
        sweeps: Mapping[str, int],
        living_agents: int,
        resident_bytes: int,
        database_bytes: int,
    ) -> bytes:
        """Return everything in Prometheus' text format."""
        with self._lock:
            for gauge, counts in ((self._runs, runs), (self._sweeps, sweeps)):
                gauge.clear()
                for state, count in counts.items():
                    gauge.labels(state).set(count)
            self._agents.set(living_agents)
            self._memory.set(resident_bytes)
            self._database.set(database_bytes)
            return generate_latest(self._registry)
