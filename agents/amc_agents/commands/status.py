"""amc-sweep status: where a sweep stands, once or again and again."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping

import click

from amc_agents.commands.targets import SweepTarget, open_sweep
from amc_agents.sweep_control import NoSuchSweepError
from amc_agents.sweep_status import AgentSeen, Progress, Status, duration, read_status
from amc_analysis.reading.wandb_api import translate_errors
from amc_sweeps.backend.options import INTERRUPTED, BackendChoice, Refusal, backend_options

SHOWN_HOSTS = 8  # lines of a list that has more to say than a screen


@click.command("status", short_help="Where a sweep stands, once or watched.")
@click.argument("sweep")
@click.option("--watch", is_flag=True, help="Look again and again until the sweep is over.")
@click.option(
    "--every", default=15.0, show_default=True, type=click.FloatRange(1.0), metavar="SECONDS", help="How often."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; with --watch one a line.")
@backend_options
def status_command(
    sweep: str,
    watch: bool,
    every: float,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """Say where SWEEP stands: runs by state and cause, the best peak so far, agents, failures by host, time left.

    SWEEP is an id, PROJECT/ID, ENTITY/PROJECT/ID or the URL of its page. An agent that has not reported for a minute
    is called silent: W&B does not say whether it ended or was lost.

    \b
    amc-sweep status 94fqx0gz
    amc-sweep status 94fqx0gz --watch && amc-analyze 94fqx0gz
    amc-sweep status 94fqx0gz --json | jq .time_left.seconds

    --json: {schema, version, read_at, sweep, runs, best, agents, failures_by_host, epochs, time_left}; times are
    seconds, accuracies fractions, null is unknown.

    Exit codes: 0 said (with --watch: the sweep is over), 1 the server does not answer, 2 refused, 130 interrupted.
    """
    chosen = open_sweep(sweep, choice)
    try:
        if not watch:
            _say(_read(chosen, _show_progress if sys.stderr.isatty() else _no_progress), as_json=as_json)
        elif as_json or not sys.stdout.isatty():
            _watch_in_lines(_again(chosen, every), as_json=as_json)
        else:
            _watch_on_terminal(_again(chosen, every))
    except KeyboardInterrupt:
        # A plain exit would wait for requests in flight, which may be long on a server that does not answer.
        sys.stdout.flush()
        os._exit(INTERRUPTED)


def _no_progress(_done: int, _total: int) -> None:
    pass


def _show_progress(done: int, total: int) -> None:
    """Keep one line of stderr up to date, and leave it empty at the end."""
    said = f"reading runs: {done:,} of {total:,}"
    click.echo(f"\r{said}" if done < total else f"\r{' ' * len(said)}\r", err=True, nl=False)


def _read(chosen: SweepTarget, progress: Progress = _no_progress) -> Status:
    from amc_analysis.reading.bulk import BulkSource
    from amc_analysis.reading.public_api import PublicApiSource
    from amc_analysis.reading.sources import RunSource
    from amc_analysis.runs.records import SweepUnreadableError

    sources: list[RunSource] = [PublicApiSource(chosen.api)]
    if chosen.backend.kind == "embedded":
        sources.insert(0, BulkSource(chosen.backend.base_url, chosen.backend.api_key or ""))
    with translate_errors(chosen.backend):
        try:
            return read_status(chosen.api, chosen.path, progress, sources=sources)
        except NoSuchSweepError as error:
            raise Refusal(str(error)) from error
        except SweepUnreadableError as error:
            raise click.ClickException(str(error)) from error


def _again(chosen: SweepTarget, every_s: float) -> Iterator[Status]:
    """Yield the status until the sweep is over."""
    while True:
        status = _read(chosen)
        yield status
        if status.is_over:
            return
        time.sleep(every_s)


def _say(status: Status, *, as_json: bool) -> None:
    click.echo(json.dumps(status.to_mapping(), indent=2) if as_json else "\n".join(lines_of(status)))


def _watch_in_lines(statuses: Iterator[Status], *, as_json: bool) -> None:
    said = None
    for status in statuses:
        line = json.dumps(status.to_mapping()) if as_json else in_one_line(status)
        if as_json or line != said:  # a log needs no line for nothing new
            click.echo(line if as_json else f"{status.read_at.astimezone():%H:%M:%S} {line}")
        said = line


def _watch_on_terminal(statuses: Iterator[Status]) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(Text("reading ..."), auto_refresh=False) as live:
        for status in statuses:
            ending = [] if status.is_over else ["", f"read at {status.read_at.astimezone():%H:%M:%S}; Ctrl-C leaves"]
            live.update(Text("\n".join([*lines_of(status), *ending])), refresh=True)


def in_one_line(status: Status) -> str:
    """Return the status for a log: what changes while a sweep runs."""
    alive = sum(agent.is_alive for agent in status.agents)
    best = "nothing logged" if status.best is None else f"best {status.best.shown}"
    return f"{status.state.lower()}: {_runs(status)}; {best}; {_count(alive, 'agent')} alive; {_left(status)}"


def lines_of(status: Status) -> list[str]:
    """Return the status as a person reads it."""
    goal = f", {status.goal} {status.metric}" if status.metric else ", no metric"
    lines = [f"{status.name} ({status.path}): {status.state.lower()}{goal}"]
    if status.url:
        lines.append(f"  {status.url}")
    lines.append(f"Runs      {_runs(status)}")
    if status.by_cause:
        lines.append(f"Ended     {_listed(status.by_cause)}")
    if status.unread:
        lines.append(f"          {_count(status.unread, 'history', 'histories')} could not be read")
    lines.append(f"Best      {_best(status)}")
    lines += _agents(status.agents)
    failures = [
        f"{host.host}: {host.failed} of {host.ended} ended runs ({_listed(host.causes)})" for host in status.failures
    ]
    lines += _block("Failures", failures or ["none"])
    saved = "" if status.epochs_saved is None else f", about {status.epochs_saved:,} saved by Hyperband"
    lines.append(f"Epochs    {status.epochs_spent:,} spent{saved}")
    lines.append(f"Left      {_left(status)}" + (f": {status.time_left.because}" if status.time_left.seconds else ""))
    return lines


def _runs(status: Status) -> str:
    of = "" if status.runs_expected is None else f" of {status.runs_expected}"
    states = f": {_listed(status.by_state)}" if status.by_state else ""
    return f"{status.runs}{of}{states}"


def _best(status: Status) -> str:
    if status.best is None:
        return "nothing to rank by" if status.metric is None else f"no run has logged {status.metric} yet"
    at = "" if status.best.peak_epoch is None else f" at epoch {status.best.peak_epoch:g}"
    cause = status.best.cause.replace("_", " ")
    return f"{status.best.shown} peak{at} of {status.best.name} ({status.best.run_id}), {cause}"


def _agents(agents: tuple[AgentSeen, ...]) -> list[str]:
    alive = sum(agent.is_alive for agent in agents)
    lines = [
        f"Agents    {alive} alive, {len(agents) - alive} silent (ended, or lost)" if agents else "Agents    none yet"
    ]
    for agent in agents[:SHOWN_HOSTS]:
        heard = "never heard" if agent.silent_s is None else f"heard {duration(agent.silent_s)} ago"
        word = "alive " if agent.is_alive else "silent"
        lines.append(f"            {word}  {agent.host}: {heard}, {_count(agent.runs, 'run')}")
    if len(agents) > SHOWN_HOSTS:
        lines.append(f"            and {len(agents) - SHOWN_HOSTS} more, heard before these")
    return lines


def _block(title: str, entries: list[str]) -> list[str]:
    more = [f"and {len(entries) - SHOWN_HOSTS} more hosts"] if len(entries) > SHOWN_HOSTS else []
    shown = [*entries[:SHOWN_HOSTS], *more]
    return [f"{title if number == 0 else '':<10}{entry}" for number, entry in enumerate(shown)]


def _left(status: Status) -> str:
    seconds = status.time_left.seconds
    if seconds is None:
        return f"cannot be told: {status.time_left.because}"
    return f"about {duration(seconds)}" if seconds else f"nothing: {status.time_left.because}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {word.replace('_', ' ')}" for word, number in counts.items())


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
