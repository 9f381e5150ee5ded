"""Read a sweep through the wandb client: every run, and the whole history of its metric.

``history()`` is sampled at 500 points and can miss the peak, so every row is scanned. The public API lacks exit codes
and stop flags; the client's own operation ``SweepWithRuns`` has them for all runs in one request. Where a server does
not answer it, they are None, which stands for unknown throughout.

The wandb client is imported by whoever passes the ``api`` in, never here at import time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from amc_analysis.claims import Claim
from amc_analysis.history import History, as_number
from amc_sweeps.causes import BandDecision, EndReason
from amc_sweeps.run_states import RunState

Goal = Literal["minimize", "maximize"]

PARALLEL_READS = 6  # requests in flight; W&B limits the rate, and the client waits when told to
RUNS_A_PAGE = 100
LOG_LINES = 100  # of the console's end, read only for runs whose end needs explaining


class SweepUnreadableError(RuntimeError):
    """The sweep does not exist or the server does not answer; the message says which."""


class MetricError(ValueError):
    """No metric, or no goal, can be told; the message says what to give."""


@dataclass(frozen=True)
class Metric:
    """What the runs are ranked by."""

    name: str
    goal: Goal


@dataclass(frozen=True)
class Point:
    """One logged value of the metric."""

    value: float  # may be NaN or infinite
    epoch: float | None = None  # the `epoch` metric of the same row
    step: int | None = None
    time_s: float | None = None  # Unix time


@dataclass(frozen=True)
class RunRecord:
    """One run as the server tells it. None stands for unknown."""

    run_id: str
    name: str
    state: str  # W&B's word, see RunState
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    points: tuple[Point, ...] = ()  # of the metric, in the order of logging
    history: History = field(default_factory=History)  # every logged number
    not_finite: tuple[str, ...] = ()  # metrics whose last logged value is NaN or infinite
    exit_code: int | None = None
    stop_recorded: bool | None = None
    stop_reason: str | None = None  # who asked, where the server keeps it: hyperband, user, cancelled
    stop_decision: BandDecision | None = None  # Hyperband's, where the server keeps it
    host: str | None = None
    created_at: datetime | None = None
    heartbeat_at: datetime | None = None
    log_tail: str | None = None
    unread: str | None = None  # why the history could not be read
    agent: str | None = None  # which `wandb agent` started it, where the server tells
    project: str = ""  # where it differs from run to run: a set of named runs
    notes: str = ""

    @property
    def curve(self) -> list[float]:
        """The logged finite values: what Hyperband counts and what a peak is taken from."""
        return [point.value for point in self.points if math.isfinite(point.value)]


@dataclass(frozen=True)
class SweepRecord:
    """A sweep with its runs, in the order of their creation; or runs of a project that belong to none."""

    sweep_id: str
    entity: str
    project: str
    config: Mapping[str, Any]
    state: str
    metric: Metric
    runs: tuple[RunRecord, ...]
    read_at: datetime
    name: str = ""
    url: str | None = None
    updated_at: datetime | None = None
    kind: Literal["sweep", "project", "runs"] = "sweep"  # for the others sweep_id is empty and config has the metric
    description: str = ""
    claims: tuple[Claim, ...] = ()  # what its description and its runs' notes say, see amc_analysis.claims
    runs_total: int | None = None  # where the records are known to be fewer: "4 documented of 12"


def choose_metric(config: Mapping[str, Any], name: str | None = None, goal: str | None = None) -> Metric:
    """Take the metric from the sweep's configuration, unless it is given.

    Raises:
        MetricError: when neither names a metric, or the goal of another metric than the sweep's is not given.
    """
    own = config.get("metric")
    own = own if isinstance(own, Mapping) else {}
    if name is None and not own.get("name"):
        raise MetricError("the sweep's configuration names no metric: give --metric NAME --goal maximize|minimize")
    if name is not None and name != own.get("name") and goal is None:
        raise MetricError(f"{name} is not the sweep's own metric: give its --goal, maximize or minimize")
    chosen = goal or str(own.get("goal") or "minimize")  # W&B's default
    if chosen not in {"minimize", "maximize"}:
        raise MetricError(f"goal {chosen!r} is not allowed; allowed: maximize, minimize")
    return Metric(name or str(own["name"]), "maximize" if chosen == "maximize" else "minimize")


def read_sweep(
    api: Any,
    path: str,
    *,
    metric: str | None = None,
    goal: str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> SweepRecord:
    """Read a sweep and the whole history of every run.

    Args:
        api: a ``wandb.Api``.
        path: ENTITY/PROJECT/ID.
        metric: another metric than the sweep's own.
        goal: ``minimize`` or ``maximize``, where it is not the sweep's own.
        progress: told (runs read, runs in all) after every run, from any thread.

    Raises:
        SweepUnreadableError: when there is no such sweep or the server does not answer.
        MetricError: see choose_metric.
    """
    import wandb

    entity, project, sweep_id = path.split("/")
    try:
        sweep = api.sweep(path)
        listed = list(
            api.runs(
                f"{entity}/{project}",
                filters={"$and": [{"sweep": sweep_id}]},
                order="+created_at",
                per_page=RUNS_A_PAGE,
                lazy=False,
            )
        )
    except (ValueError, wandb.Error) as error:
        raise SweepUnreadableError(f"sweep {path} cannot be read: {error}") from error
    config = dict(sweep.config)
    chosen = choose_metric(config, metric, goal)
    bulk = _bulk(api, entity, project, sweep_id)
    flags = {node["name"]: node for node in bulk.get("runs") or []}

    runs: list[RunRecord] = []
    pool = ThreadPoolExecutor(max_workers=PARALLEL_READS)
    try:
        for record in pool.map(lambda run: _read_run(run, chosen.name, flags.get(run.id, {})), listed):
            runs.append(record)
            progress(len(runs), len(listed))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C no request is waited for
    return SweepRecord(
        sweep_id=sweep_id,
        entity=entity,
        project=project,
        config=config,
        state=str(getattr(sweep, "state", None) or bulk.get("state") or "").upper(),
        metric=chosen,
        runs=tuple(runs),
        read_at=datetime.now(UTC),
        name=str(sweep.name),
        url=getattr(sweep, "url", None),
        updated_at=parse_time(bulk.get("updatedAt")),
    )


# The same fields as the client's SweepWithRuns without its sampled history, and those that an embedded server adds.
_FLAGS_QUERY = """
query SweepRunFlags($entity: String, $project: String, $sweep: String!) {
  project(name: $project, entityName: $entity) {
    sweep(sweepName: $sweep) {
      state updatedAt
      runs { edges { node {
        name exitcode heartbeatAt shouldStop stopped host stopReason stopBand stopValue stopThreshold
      } } }
    }
  }
}
"""


def _bulk(api: Any, entity: str, project: str, sweep_id: str) -> dict[str, Any]:
    """Ask for the flags of all runs at once; empty where neither server nor client knows how."""
    for ask in (_ask_embedded, _ask_any):
        try:
            return ask(api, entity, project, sweep_id)
        except Exception:  # noqa: BLE001 - private operations: without them the flags are unknown, the rest stands
            continue
    return {}


def _ask_embedded(api: Any, entity: str, project: str, sweep_id: str) -> dict[str, Any]:
    variables = {"entity": entity, "project": project, "sweep": sweep_id}
    sweep = api._service_api.execute_graphql(_FLAGS_QUERY, variables=variables)["project"]["sweep"]
    return {**sweep, "runs": [edge["node"] for edge in sweep["runs"]["edges"]]}


def _ask_any(api: Any, entity: str, project: str, sweep_id: str) -> dict[str, Any]:
    from wandb.apis.public.sweeps import _sweep_with_runs

    return dict(_sweep_with_runs(api, sweep_id, "{}", entity=entity, project=project))


def _read_run(run: Any, metric: str, flags: Mapping[str, Any]) -> RunRecord:
    unread = None
    try:
        rows = list(run.scan_history())
        points, not_finite = read_history(rows, metric)
        history = History.from_rows(rows)
    except Exception as error:  # noqa: BLE001 - one unreadable run must not hide the others
        points, not_finite, history, unread = (), (), History(), f"{type(error).__name__}: {error}"
    summary = dict(run.summary_metrics)
    state = str(run.state)
    puzzling = state != RunState.FINISHED and summary.get("end_reason") not in set(EndReason)
    exit_code = flags.get("exitcode")
    return RunRecord(
        run_id=run.id,
        name=run.name or run.id,
        state=state,
        config=dict(run.config),
        summary=summary,
        points=points,
        history=history,
        not_finite=not_finite,
        exit_code=exit_code if isinstance(exit_code, int) else None,
        stop_recorded=_stop_recorded(flags),
        stop_reason=flags.get("stopReason"),
        stop_decision=_stop_decision(flags),
        host=flags.get("host") or _host(run),
        created_at=parse_time(run.created_at),
        heartbeat_at=parse_time(flags.get("heartbeatAt") or getattr(run, "heartbeat_at", None)),
        log_tail=_log_tail(run) if puzzling else None,
        unread=unread,
    )


def _stop_recorded(flags: Mapping[str, Any]) -> bool | None:
    asked = [flags.get("shouldStop"), flags.get("stopped")]
    if all(value is None for value in asked):
        return None
    return any(asked)


def _stop_decision(flags: Mapping[str, Any]) -> BandDecision | None:
    band, value, threshold = flags.get("stopBand"), flags.get("stopValue"), flags.get("stopThreshold")
    if band is None or value is None or threshold is None:
        return None
    return BandDecision(band=int(band), value=float(value), threshold=float(threshold))


def _log_tail(run: Any) -> str | None:
    try:
        return "\n".join(line.content.rstrip("\n") for line in run.console_logs(last=LOG_LINES))
    except Exception:  # noqa: BLE001 - servers older than the operation: the log is unknown
        return None


def _host(run: Any) -> str | None:
    """Find the host where the client leaves it: among the environments in the run's raw configuration."""
    environments = (run.rawconfig.get("_wandb") or {}).get("e")
    found = environments.values() if isinstance(environments, Mapping) else ()
    return next((one["host"] for one in found if isinstance(one, Mapping) and isinstance(one.get("host"), str)), None)


def read_history(rows: Iterable[Mapping[str, Any]], metric: str) -> tuple[tuple[Point, ...], tuple[str, ...]]:
    """Return the metric's points in the order of logging, and the names whose last value is not finite."""
    points = []
    last: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            known = as_number(value)
            if known is not None and not name.startswith("_"):
                last[name] = known
        value = as_number(look_up(row, metric))
        if value is not None:
            step = as_number(row.get("_step"))
            points.append(
                Point(
                    value=value,
                    epoch=as_number(row.get("epoch")),
                    step=None if step is None else int(step),
                    time_s=as_number(row.get("_timestamp")),
                )
            )
    return tuple(points), tuple(sorted(name for name, value in last.items() if not math.isfinite(value)))


def look_up(row: Mapping[str, Any], name: str) -> Any:
    """Return the value under a name, taken as it stands or as a dotted path into nested mappings; None if absent."""
    if name in row:
        return row[name]
    found: Any = row
    for piece in name.split("."):
        if not isinstance(found, Mapping) or piece not in found:
            return None
        found = found[piece]
    return found


def summary_number(summary: Mapping[str, Any], name: str, goal: Goal) -> float | None:
    """Return a summary's value; ``define_metric(summary=...)`` makes it a mapping, of which the best one is taken."""
    found = look_up(summary, name)
    if isinstance(found, Mapping):
        preferred = ("best", "max" if goal == "maximize" else "min", "last", "mean")
        found = next((found[key] for key in preferred if key in found), None)
    return as_number(found)


def parse_time(text: Any) -> datetime | None:
    """Read W&B's time stamps, which are UTC whether they say so or not."""
    if isinstance(text, datetime):
        return text if text.tzinfo else text.replace(tzinfo=UTC)
    try:
        parsed = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
