"""The state of a sweep: its runs, agents, failures by host, and an estimate of the time left.

``read_status`` reads the sweep's runs and its agents; the conclusions are pure functions of what was read.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from amc_agents.slurm.nodes import BadNode, nodes_to_exclude
from amc_agents.sweep_control import query_sweep
from amc_sweeps.grammar.sweep_config import UNREADABLE
from amc_sweeps.number_formats import counted, duration, percent
from amc_sweeps.runs.causes import FAILURES, Cause
from amc_sweeps.runs.crashed_runs import policy_of_record
from amc_sweeps.runs.records import RunRecord, run_time_s
from amc_sweeps.runs.run_states import RunState, SweepState
from amc_sweeps.runs.slurm_jobs import SlurmJob, job_name, state_counts
from amc_sweeps.runs.sweep_changes import SweepChange, sweep_changes
from amc_sweeps.values import printable

if TYPE_CHECKING:
    from amc_analysis.reading.server import ServerSource
    from amc_analysis.results.analysed_sweep import AnalysedSweep

Progress = Callable[[int, int], None]

_SWEEP_FIELDS = "runCountExpected agents { edges { node { name host totalRuns heartbeatAt } } }"

# An agent reports every 5 s. W&B does not record its end, so a silent agent has ended or is lost.
AGENT_SILENT_AFTER_S = 60.0


@dataclass(frozen=True)
class SweepAgent:
    name: str
    host: str
    runs: int  # handed out to it in all
    silent_s: float | None  # since its last heartbeat; None: unknown

    @property
    def is_alive(self) -> bool:
        """Whether it reported within the last minute."""
        return self.silent_s is not None and self.silent_s < AGENT_SILENT_AFTER_S


@dataclass(frozen=True)
class HostFailures:
    host: str
    failed: int
    ended: int
    causes: Mapping[str, int]


@dataclass(frozen=True)
class BestRun:
    run_id: str
    name: str
    peak: float
    peak_epoch: float | None
    cause: str
    peak_text: str  # the peak, formatted


@dataclass(frozen=True)
class TimeLeft:
    """An estimate and its reason; ``seconds`` is None where the time is unknown."""

    seconds: float | None
    because: str


@dataclass(frozen=True)
class Status:
    """Everything that ``amc-sweep status`` shows."""

    path: str
    name: str
    state: str
    url: str | None
    metric: str | None
    goal: str | None
    read_at: datetime
    runs: int  # without the prior ones
    prior_runs: int  # made before the sweep; run_cap does not count them
    runs_expected: int | None  # None: the sweep goes on until somebody stops it
    by_state: Mapping[str, int]
    by_cause: Mapping[str, int]
    best: BestRun | None
    agents: tuple[SweepAgent, ...]
    failures: tuple[HostFailures, ...]
    epochs_spent: int
    epochs_saved: int | None  # by Hyperband, compared with every stopped run going to its planned end
    time_left: TimeLeft
    unread: int  # runs whose history could not be read
    other_ends: Mapping[str, int] = field(
        default_factory=dict
    )  # causes of failed and crashed runs that are no failures
    logged_metrics: tuple[str, ...] = ()  # where no run has logged the sweep's metric: those most like it first
    changes: tuple[SweepChange, ...] = ()  # of the sweep's config
    problem: str | None = None  # why the sweep's configuration cannot be read
    search: Mapping[str, Any] = field(default_factory=dict)  # method, seed, shuffle; empty: the server does not tell
    jobs: tuple[SlurmJob, ...] = ()  # of amc-sweep launch slurm; empty where no Slurm can be asked
    ended_by_job: Mapping[str, tuple[SlurmJob, str]] = field(default_factory=dict)  # run id -> its job, its cause
    exclude: tuple[BadNode, ...] = ()
    crashed_runs: str | None = None  # what bayes learns from runs that did not finish; None: another method
    treatments: Mapping[str, int] = field(default_factory=dict)  # what a bayes search was told of runs, with counts

    @property
    def seed(self) -> int | None:
        """The seed that the search draws by; None if it is unknown or has no effect."""
        return None if self.search.get("method") == "grid" and not self.is_shuffled else self.search.get("seed")

    @property
    def is_shuffled(self) -> bool:
        """Whether a grid is walked in a random order."""
        return self.search.get("method") == "grid" and bool(self.search.get("shuffle"))

    @property
    def is_over(self) -> bool:
        """Whether the sweep has ended and no run is alive."""
        alive = sum(self.by_state.get(state.value, 0) for state in RunState if state.is_alive)
        return self.state in {SweepState.FINISHED, SweepState.CANCELED} and alive == 0

    @property
    def agents_alive(self) -> int:
        return sum(agent.is_alive for agent in self.agents)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON types: the schema of ``--json``."""
        sweep = {name: getattr(self, name) for name in ("path", "name", "state", "url", "metric", "goal", "problem")}
        return {
            "schema": "amc-sweep status",
            "version": 1,
            "read_at": self.read_at.isoformat(),
            "sweep": {
                **sweep,
                "seed": self.search.get("seed"),
                "shuffle": self.search.get("shuffle"),
                "crashed_runs": self.crashed_runs,
                "is_over": self.is_over,
            },
            "updates": [
                {
                    "at": change.update.at.isoformat() if change.update.at else None,
                    "author": change.update.author,
                    "changes": change.changes,
                }
                for change in self.changes
            ],
            "runs": {
                "total": self.runs,
                "prior": self.prior_runs,
                "expected": self.runs_expected,
                "by_state": dict(self.by_state),
                "by_cause": dict(self.by_cause),
                "by_treatment": dict(self.treatments),
                "unread": self.unread,
            },
            "logged_metrics": list(self.logged_metrics),
            "best": None if self.best is None else {k: v for k, v in asdict(self.best).items() if k != "peak_text"},
            "agents": [{**asdict(agent), "is_alive": agent.is_alive} for agent in self.agents],
            "failures_by_host": [asdict(host) for host in self.failures],
            "jobs": {
                "by_state": state_counts(self.jobs),
                "ended_runs": [
                    {"run": run, "job": job.id, "state": job.state, "nodes": job.nodes, "cause": cause}
                    for run, (job, cause) in self.ended_by_job.items()
                ],
                "exclude": [asdict(node) for node in self.exclude],
            },
            "epochs": {"spent": self.epochs_spent, "saved_by_hyperband": self.epochs_saved},
            "time_left": asdict(self.time_left),
        }


def read_status(api: Any, source: ServerSource, path: str, progress: Progress) -> Status:
    """Read a sweep from its server and return its state.

    Args:
        api: a ``wandb.Api``.
        source: where to read the histories.
        path: ENTITY/PROJECT/ID.
        progress: called with (runs read, all runs) after every run, from any thread.

    Raises:
        NoSuchSweepError: there is no such sweep.
        SweepUnreadableError: its runs cannot be read.
        wandb.Error: the server does not answer as it should.
    """
    from amc_analysis.analyse import rank_runs
    from amc_analysis.reading.reader import read
    from amc_analysis.reading.slurm_accounting import has_slurm, read_jobs, with_jobs
    from amc_analysis.reading.sources import Selection
    from amc_sweeps.runs.records import MetricError

    sweep = query_sweep(api, path, _SWEEP_FIELDS)
    entity, project, sweep_id = path.split("/")
    selection = Selection(entity, project, sweep_id)
    try:
        record, has_metric = read(source, selection, progress=progress), True
    except MetricError:  # a sweep without a metric has no best run, and its epochs are counted by "epoch"
        record, has_metric = read(source, selection, metric="epoch", goal="maximize", progress=progress), False
    agents = read_agents((edge["node"] for edge in sweep["agents"]["edges"]), record.read_at)
    priors = _optional_fields(api, path, "priorRuns { edges { node { name } } }").get("priorRuns", {"edges": []})
    prior = {edge["node"]["name"] for edge in priors["edges"]} & {run.run_id for run in record.runs}
    record = with_jobs(record, source.files())
    status = summarise(
        path,
        rank_runs(record),
        agents,
        expected=sweep["runCountExpected"],
        prior=len(prior),
        has_metric=has_metric,
        jobs=read_jobs(name=job_name(sweep_id)) if has_slurm() else (),
    )
    return replace(status, search=_optional_fields(api, path, "method seed shuffle"))


def _optional_fields(api: Any, path: str, fields: str) -> dict[str, Any]:
    """Return fields of a sweep; none where the server does not have them."""
    import wandb

    try:
        return query_sweep(api, path, fields)
    except wandb.Error:
        return {}


def read_agents(agents: Iterable[Mapping[str, Any]], now: datetime) -> tuple[SweepAgent, ...]:
    """Return a sweep's agents from W&B's fields, the last heard first."""
    from amc_sweeps.runs.records import parse_time

    result = []
    for agent in agents:
        heard_at = parse_time(agent["heartbeatAt"])
        silent_s = None if heard_at is None else max((now - heard_at).total_seconds(), 0.0)
        result.append(SweepAgent(agent["name"], printable(agent["host"]), int(agent["totalRuns"] or 0), silent_s))
    return tuple(sorted(result, key=lambda agent: (agent.silent_s is None, agent.silent_s or 0.0, agent.host)))


def summarise(
    path: str,
    analysed: AnalysedSweep,
    agents: tuple[SweepAgent, ...],
    *,
    expected: int | None,
    prior: int = 0,
    has_metric: bool = True,
    jobs: Sequence[SlurmJob] = (),
) -> Status:
    """Return the state of an analysed sweep."""
    record, ranked = analysed.record, analysed.ranked
    running = [entry.run for entry in ranked if entry.cause is Cause.RUNNING]
    ended = [entry.run for entry in ranked if entry.cause is not Cause.RUNNING]
    return Status(
        path=path,
        name=record.name or path.rpartition("/")[2],
        state=record.state,
        url=record.url,
        metric=record.metric.name if has_metric else None,
        goal=record.metric.goal if has_metric else None,
        read_at=record.read_at,
        runs=len(ranked) - prior,
        prior_runs=prior,
        runs_expected=expected,
        by_state=dict(sorted(_counts(entry.run.state for entry in ranked).items(), key=_state_order)),
        by_cause=_counts(entry.cause.value for entry in ranked if entry.cause is not Cause.RUNNING),
        best=_best_run(analysed) if has_metric else None,
        agents=agents,
        failures=failures_by_host([(entry.run.host, entry.cause) for entry in ranked]),
        epochs_spent=sum(entry.epochs or 0 for entry in ranked),
        epochs_saved=analysed.early_stops.epochs_saved,
        time_left=time_left(
            state=record.state,
            expected=expected,
            begun=len(ranked) - prior,
            ended_s=[seconds for run in ended if (seconds := run_time_s(run)) is not None],
            running_s=[run_time_s(run) or 0.0 for run in running],
            agents=sum(agent.is_alive for agent in agents),
        ),
        unread=len(analysed.unread),
        other_ends=_counts(
            entry.cause.value
            for entry in ranked
            if entry.run.state in {RunState.FAILED, RunState.CRASHED} and entry.cause not in {*FAILURES, Cause.RUNNING}
        ),
        logged_metrics=() if analysed.has_metric else _most_alike(record.metric.name, analysed.logged_metrics),
        changes=tuple(sweep_changes(record)),
        crashed_runs=policy_of_record(record.config, record.crashed_runs),
        treatments={treatment.value: count for treatment, count in analysed.treatments.items()},
        problem=record.description.partition("\n")[0] if record.description.startswith(UNREADABLE) else None,
        jobs=tuple(jobs),
        ended_by_job={
            entry.run.run_id: (entry.run.job, entry.cause.value) for entry in ranked if entry.run.job is not None
        },
        exclude=nodes_to_exclude([(entry.run.host, entry.cause) for entry in ranked], _all_jobs(jobs, record.runs)),
    )


def _all_jobs(jobs: Sequence[SlurmJob], runs: Sequence[RunRecord]) -> list[SlurmJob]:
    """Return the jobs with the sweep's name, and those of other scripts that ended its runs."""
    return [*jobs, *(run.job for run in runs if run.job is not None and run.job not in jobs)]


def _most_alike(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return names in the order of their likeness; one that differs in blanks or capitals comes first."""
    plain = name.strip().lower()
    likeness = {other: SequenceMatcher(None, plain, other.strip().lower()).ratio() for other in names}
    return tuple(sorted(names, key=lambda other: -likeness[other]))


def _best_run(analysed: AnalysedSweep) -> BestRun | None:
    best = analysed.best
    if best is None or best.peak is None:
        return None
    peak_text = percent(best.peak, 2) if analysed.scale.percentage else f"{best.peak:.5g}"
    return BestRun(best.run.run_id, best.run.name, best.peak, best.peak_epoch, best.cause.value, peak_text)


def failures_by_host(ends: Sequence[tuple[str | None, Cause]]) -> tuple[HostFailures, ...]:
    """Count failures among the runs that ended, by host; the host with most failures first."""
    by_host: dict[str, list[Cause]] = {}
    for host, cause in ends:
        if cause is not Cause.RUNNING:
            by_host.setdefault(host or "unknown host", []).append(cause)
    hosts = [
        HostFailures(host, len(failed), len(causes), _counts(cause.value for cause in failed))
        for host, causes in by_host.items()
        if (failed := [cause for cause in causes if cause in FAILURES])
    ]
    return tuple(sorted(hosts, key=lambda host: (-host.failed, host.host)))


def time_left(
    *, state: str, expected: int | None, begun: int, ended_s: Sequence[float], running_s: Sequence[float], agents: int
) -> TimeLeft:
    """Estimate the time that a sweep still needs: each run takes the median time of the ended runs.

    Args:
        state: the sweep's.
        expected: how many runs the sweep will start in all; None for no end.
        begun: how many it has started.
        ended_s: how long each ended run took, failed and stopped ones included, since later runs may fail, too.
        running_s: how long each living run has been running.
        agents: how many are alive.
    """
    is_over = state in {SweepState.FINISHED, SweepState.CANCELED}
    if is_over and not running_s:
        return TimeLeft(0.0, "the sweep is over")
    if state == SweepState.PAUSED:
        return TimeLeft(None, "the sweep is paused")
    if not is_over and expected is None:
        return TimeLeft(None, "the sweep has no run_cap, and its search has no end")
    if not ended_s:
        return TimeLeft(None, "no run has ended yet")
    if not agents:
        return TimeLeft(None, "no agent is alive")
    to_come = 0 if is_over or expected is None else max(expected - begun, 0)
    median_s = statistics.median(ended_s)
    remaining_s = [max(median_s - seconds, 0.0) for seconds in running_s]
    seconds = max((to_come * median_s + sum(remaining_s)) / agents, *remaining_s, 0.0)
    return TimeLeft(
        seconds,
        f"{counted(to_come, 'run')} to come and {len(running_s)} alive, at {duration(median_s)} each "
        f"(median of {counted(len(ended_s), 'ended run')}), on {counted(agents, 'agent')}",
    )


def _state_order(count: tuple[str, int]) -> int:
    states = [state.value for state in RunState]
    return states.index(count[0]) if count[0] in states else len(states)


def _counts(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())
