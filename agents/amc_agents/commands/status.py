"""amc-sweep status: the state of a sweep, once or repeatedly."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping

import click

from amc_agents.commands.options import seconds
from amc_agents.notify import BestSoFar, Notifier, notify_option
from amc_agents.open_target import OpenTarget, open_target
from amc_agents.sweep_control import NoSuchSweepError
from amc_agents.sweep_status import Progress, Status, SweepAgent, read_status
from amc_analysis.reading.wandb_api import translate_errors
from amc_core.command_line import INTERRUPTED, Refusal
from amc_core.unread_output import is_unread
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, backend_options
from amc_sweeps.number_formats import counted, duration, listed, quoted
from amc_sweeps.runs.run_states import state_word
from amc_sweeps.runs.slurm_jobs import state_counts

MOST_LINES = 8  # of a list of agents or hosts


@click.command("status", short_help="The state of a sweep, once or with --watch.")
@click.argument("sweep")
@click.option("--watch", is_flag=True, help="Repeat until the sweep is over.")
@click.option(
    "--every",
    default="15s",
    show_default=True,
    callback=seconds,
    metavar="15s",
    help="Pause between reads, at least 1s.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; with --watch one a line.")
@notify_option
@backend_options
def status_command(
    sweep: str, watch: bool, every: float, as_json: bool, notify_url: str | None, choice: BackendChoice
) -> None:
    """Show the state of SWEEP: runs by state and cause, best peak so far, agents, failures by host, time left.

    SWEEP is an id, PROJECT/ID, ENTITY/PROJECT/ID or the URL of its page. An agent that has not reported for a minute
    is called silent: W&B does not say whether it ended or was lost.

    \b
    amc-sweep status 94fqx0gz
    amc-sweep status 94fqx0gz --watch && amc-analyze 94fqx0gz
    amc-sweep status 94fqx0gz --json | jq .time_left.seconds

    On a machine with Slurm's sacct or scontrol it also shows the sweep's jobs, which runs their ends ended (TIMEOUT,
    OUT_OF_MEMORY, PREEMPTED, NODE_FAIL, CANCELLED), and which nodes to --exclude.

    --json: {schema, version, read_at, sweep, updates, runs, best, agents, failures_by_host, jobs, epochs, time_left};
    times are seconds, accuracies fractions, null is unknown.

    Exit codes: 0 shown (with --watch: the sweep is over), 1 the server does not answer, 2 refused, 130 interrupted.
    """
    notify_url = notify_url if watch else None
    if every < 1:
        raise click.BadParameter(f"{every:g} s is too short: at least 1s", param_hint="--every")
    target = open_target(sweep, choice, "sweep")
    notifier = None if notify_url is None else Notifier(notify_url, target.path)
    statuses = _poll(target, every) if notifier is None else notified(_poll(target, every), notifier)
    try:
        if not watch:
            status = _read(target, _show_progress if sys.stderr.isatty() else _no_progress)
            click.echo(json.dumps(status.to_mapping(), indent=2) if as_json else "\n".join(as_lines(status)))
        elif as_json or not sys.stdout.isatty():
            _watch_in_log(statuses, as_json=as_json, also_unread=notifier is not None)
        else:
            _watch_on_terminal(statuses)
    except KeyboardInterrupt:
        # A plain exit would wait for open requests, which takes long on a server that does not answer.
        sys.stdout.flush()
        os._exit(INTERRUPTED)


def _no_progress(_done: int, _total: int) -> None:
    pass


def _show_progress(done: int, total: int) -> None:
    """Update one line of stderr, and clear it at the end."""
    line = f"reading runs: {done:,} of {total:,}"
    click.echo(f"\r{line}" if done < total else f"\r{' ' * len(line)}\r", err=True, nl=False)


def _read(target: OpenTarget, progress: Progress = _no_progress) -> Status:
    from amc_analysis.reading.server import ServerSource
    from amc_analysis.runs.records import SweepUnreadableError

    with translate_errors(target.backend):
        try:
            return read_status(target.api, ServerSource(target.backend), target.path, progress)
        except (NoSuchSweepError, BackendError) as error:
            raise Refusal(str(error)) from error
        except SweepUnreadableError as error:
            raise click.ClickException(str(error)) from error


def _poll(target: OpenTarget, every_s: float) -> Iterator[Status]:
    while True:
        status = _read(target)
        yield status
        if status.is_over:
            return
        time.sleep(every_s)


def notified(statuses: Iterator[Status], notifier: Notifier) -> Iterator[Status]:
    """Pass statuses on, and send what a person should know of them: a new best, no agents, the end."""
    best: BestSoFar | None = None
    had_agents = True
    for status in statuses:
        best = best or BestSoFar(minimise=status.goal == "minimize")
        value = best.update(status.best.peak if status.best else None, time.monotonic())
        if value is not None and status.best is not None and not status.is_over:
            notifier.send("best", f"new best: {_best(status)}", best=value, run=status.best.run_id)
        if had_agents and not status.agents_alive and status.agents and not status.is_over:
            notifier.send("idle", f"no agent is alive: {as_line(status)}")
        had_agents = status.agents_alive > 0
        if status.is_over:
            notifier.send("done", f"{as_line(status)}; {_best(status)}")
            notifier.close()
        yield status


def _watch_in_log(statuses: Iterator[Status], *, as_json: bool, also_unread: bool = False) -> None:
    """Print a line for every change; end where nobody reads them any more, unless a webhook gets messages."""
    previous = None
    for status in statuses:
        line = json.dumps(status.to_mapping()) if as_json else as_line(status)
        if as_json or line != previous:  # a log needs no repeated lines
            click.echo(line if as_json else f"{status.read_at.astimezone():%H:%M:%S} {line}")
        if is_unread() and not also_unread:
            return
        previous = line


def _watch_on_terminal(statuses: Iterator[Status]) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(Text("reading ..."), auto_refresh=False) as live:
        for status in statuses:
            footer = [] if status.is_over else ["", f"read at {status.read_at.astimezone():%H:%M:%S}; Ctrl-C ends"]
            live.update(Text("\n".join([*as_lines(status), *footer])), refresh=True)


def as_line(status: Status) -> str:
    """Return in one line what changes while a sweep runs, for a log."""
    best = "nothing logged" if status.best is None else f"best {status.best.peak_text}"
    agents = "" if status.is_over else f"{counted(status.agents_alive, 'agent')} alive; "
    return f"{state_word(status.state)}: {_runs(status)}; {best}; {agents}{_time_left(status)}"


def as_lines(status: Status) -> list[str]:
    """Return the status in lines for a person."""
    goal = f", {status.goal} {status.metric}" if status.metric else ", no metric"
    lines = [f"{status.name} ({status.path}): {state_word(status.state)}{goal}"]
    if status.url:
        lines.append(f"  {status.url}")
    if status.problem:
        lines.append(f"          {status.problem}")
    lines += _changes(status)
    lines.append(f"Runs      {_runs(status)}")
    if status.seed is not None:
        lines.append(f"Seed      {status.seed}{', of the order of the grid' if status.is_shuffled else ''}")
    if status.by_cause:
        lines.append(f"Ended     {_counts(status.by_cause)}")
    if status.crashed_runs is not None:
        told = f"; told: {_counts(status.treatments)}" if status.treatments else ""
        lines.append(f"Search    bayes, crashed runs: {status.crashed_runs}{told}")
    if status.unread:
        lines.append(f"          {counted(status.unread, 'history', 'histories')} could not be read")
    lines.append(f"Best      {_best(status)}")
    lines += _agents(status)
    failures = [
        f"{host.host}: {host.failed} of {host.ended} ended runs ({_counts(host.causes)})" for host in status.failures
    ]
    others = f" ({_counts(status.other_ends)} not counted)" if status.other_ends else ""
    lines += _block("Failures", failures or [f"none{others}"])
    lines += _jobs(status)
    saved = "" if status.epochs_saved is None else f", about {status.epochs_saved:,} saved by Hyperband"
    lines.append(f"Epochs    {status.epochs_spent:,} spent{saved}")
    reason = f": {status.time_left.because}" if status.time_left.seconds else ""
    return [*lines, f"Left      {_time_left(status)}{reason}"]


def _runs(status: Status) -> str:
    expected = "" if status.runs_expected is None else f" of {status.runs_expected}"
    states = f": {_counts(status.by_state)}" if status.by_state else ""
    prior = f", {status.prior_runs} of them prior" if status.prior_runs and states else ""
    return f"{status.runs}{expected}{states}{prior}"


def _changes(status: Status) -> list[str]:
    if not status.changes:
        return []
    last = status.changes[-1]
    earlier = f", {counted(len(status.changes), 'change')} in all" if len(status.changes) > 1 else ""
    return [f"Changed   {last.words}{earlier}", *(f"            {line}" for line in last.changes[:MOST_LINES])]


def _best(status: Status) -> str:
    if status.metric is None:
        return "no metric to rank by"
    if status.best is None:
        if not status.by_cause:
            return f"no run has logged {status.metric} yet"
        names = listed([repr(name) for name in status.logged_metrics]) or "nothing"
        return f"no run has logged {quoted(status.metric)}, which the sweep's file names; logged: {names}"
    epoch = "" if status.best.peak_epoch is None else f" at epoch {status.best.peak_epoch:g}"
    cause = status.best.cause.replace("_", " ")
    return f"{status.best.peak_text} peak{epoch} of {status.best.name} ({status.best.run_id}), {cause}"


def _agents(status: Status) -> list[str]:
    if not status.agents:
        return ["Agents    none yet"]
    if status.is_over:
        return [f"Agents    {len(status.agents)}; they end by themselves: the sweep is over"]
    silent_agents = len(status.agents) - status.agents_alive
    lines = [f"Agents    {status.agents_alive} alive, {silent_agents} silent (ended or lost)"]
    lines += [f"            {_agent(agent)}" for agent in status.agents[:MOST_LINES]]
    if len(status.agents) > MOST_LINES:
        lines.append(f"            and {len(status.agents) - MOST_LINES} more, heard before these")
    return lines


def _agent(agent: SweepAgent) -> str:
    contact = "never heard" if agent.silent_s is None else f"heard {duration(agent.silent_s)} ago"
    return f"{'alive ' if agent.is_alive else 'silent'}  {agent.host}: {contact}, {counted(agent.runs, 'run')}"


def _jobs(status: Status) -> list[str]:
    if not status.jobs and not status.ended_by_job:
        return []
    counts = ", ".join(f"{number} {state}" for state, number in state_counts(status.jobs).items())
    lines = [f"Jobs      {counts or 'none of amc-sweep launch slurm'}"]
    ended = list(status.ended_by_job.items())
    lines += [
        f"            {job.words}; its run {run}: {cause.replace('_', ' ')}" for run, (job, cause) in ended[:MOST_LINES]
    ]
    if len(ended) > MOST_LINES:
        lines.append(f"            and {counted(len(ended) - MOST_LINES, 'more run')}")
    if status.exclude:
        nodes = ",".join(node.node for node in status.exclude)
        lines.append(f"Exclude   leave these nodes out of the next launch: --exclude {nodes}")
        lines += [f"            {node.node}: {node.because}" for node in status.exclude[:MOST_LINES]]
    return lines


def _block(title: str, entries: list[str]) -> list[str]:
    more = [f"and {counted(len(entries) - MOST_LINES, 'more host')}"] if len(entries) > MOST_LINES else []
    lines = [*entries[:MOST_LINES], *more]
    return [f"{title if number == 0 else '':<10}{entry}" for number, entry in enumerate(lines)]


def _time_left(status: Status) -> str:
    seconds = status.time_left.seconds
    if seconds is None:
        return f"unknown: {status.time_left.because}"
    return f"about {duration(seconds)}" if seconds else f"nothing: {status.time_left.because}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {word.replace('_', ' ')}" for word, number in counts.items())
