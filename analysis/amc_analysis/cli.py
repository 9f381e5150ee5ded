"""amc-analyze: read a sweep, say who really won and how each run ended."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from amc_analysis.findings import Findings, analyse, logged_metrics, nobody_logged
from amc_analysis.runs import MetricError, SweepRecord, SweepUnreadableError, read_sweep
from amc_analysis.tables import RUN_FIELDS, to_csv, to_json
from amc_sweeps.backend import Backend, BackendError, SweepRef, find_sweep, parse_sweep
from amc_sweeps.cli_options import backend_options, connect, refuse

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
PIPED_WIDTH = 100  # columns where no terminal tells its own

_FIELDS = "\n".join(f"  {name:<15}{meaning}" for name, meaning in RUN_FIELDS.items())

EPILOG = f"""\b
Examples:
  amc-analyze 94fqx0gz                                   the report, on the terminal
  amc-analyze me/amc/94fqx0gz --html sweep.html          and as a page with learning curves
  amc-analyze 94fqx0gz --json | jq .summary.hidden_gems  for other programs
  amc-analyze 94fqx0gz --csv - > runs.csv                one line a run
  amc-analyze 94fqx0gz --metric val/loss --goal minimize

\b
Hidden gem: a run that neither completed nor ended by patience, whose peak beats the best run that did,
or is among the best 3 of all. A cause with a question mark is not certain; --html says the evidence.
Early-stopped, stopped, cancelled, interrupted and preempted runs are not counted as failures.

\b
--json: {{schema: "amc-analyze", version: 1, read_at, sweep, metric, summary, causes, failure_rate, runs}};
rates and accuracies are fractions, null is unknown or not finite. A run (and a line of --csv) has:
{_FIELDS}
  config         its configuration (--csv: config.NAME for every searched parameter)

\b
Exit codes: 0 report written (also for a sweep without runs), 1 it could not be written or read,
2 what was given cannot be used, 130 interrupted.
"""


class _Command(click.Command):
    """A command whose epilog keeps its lines."""

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog as it stands."""
        formatter.write("\n" + (self.epilog or "").replace("\b\n", ""))


@click.command(
    cls=_Command, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.argument("sweep")
@click.option("--metric", metavar="NAME", help="Rank by this metric (default: the sweep's own).")
@click.option("--goal", type=click.Choice(["maximize", "minimize"]), help="Its goal (default: the sweep's own).")
@click.option("--top", default=20, show_default=True, metavar="N", help="Rows of the ranking; 0 shows all.")
@click.option("--json", "as_json", is_flag=True, help="Print the analysis as JSON instead of the report.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write one line a run; - prints it instead of the report.")
@click.option("--markdown", "markdown_file", metavar="FILE", help="Write the report as Markdown.")
@click.option("--html", "html_file", metavar="FILE", help="Write the report as a self-contained page.")
@backend_options
def main(
    sweep: str,
    metric: str | None,
    goal: str | None,
    top: int,
    as_json: bool,
    csv_file: str | None,
    markdown_file: str | None,
    html_file: str | None,
    base_url: str | None,
    local: bool,
    cloud: bool,
    entity: str | None,
    project: str | None,
) -> None:
    """Read a W&B sweep and say who really won and how each run ended.

    SWEEP is an id, PROJECT/ID, ENTITY/PROJECT/ID or the URL of the sweep's page. Runs are ranked by the peak of their
    whole history, not by their last value; crashed runs that beat the others are shown as hidden gems, and early
    stops are told from crashes.
    """
    if as_json and csv_file == "-":
        refuse("--json and --csv - both print to standard output: give one of them, or --csv FILE")
    if top < 0:
        refuse(f"--top {top}: give a number of rows, or 0 for all")
    files = {name: Path(name) for name in (csv_file, markdown_file, html_file) if name and name != "-"}
    for path in files.values():
        if path.is_dir() or not path.parent.is_dir():
            refuse(f"{path} cannot be written: {'it is a folder' if path.is_dir() else 'its folder does not exist'}")

    try:
        ref = parse_sweep(sweep)
    except BackendError as error:
        refuse(str(error))
    if ref.base_url and not (base_url or local or cloud):
        base_url = ref.base_url
    backend = connect(base_url=base_url, local=local, cloud=cloud)
    record = _read(ref, backend, entity=entity, project=project, metric=metric, goal=goal)
    findings = analyse(record)
    if metric is not None and nobody_logged(findings):
        refuse(f"no run of {sweep} has logged {metric}; logged: {', '.join(logged_metrics(record)) or 'nothing'}")

    if as_json:
        click.echo(to_json(findings), nl=False)
    elif csv_file == "-":
        click.echo(to_csv(findings), nl=False)
    else:
        _print(findings, rows=top or None)
    for name, render in ((csv_file, to_csv), (markdown_file, _markdown), (html_file, _html)):
        if name is not None and name in files:
            _write(files[name], render(findings))


def _read(
    ref: SweepRef, backend: Backend, *, entity: str | None, project: str | None, metric: str | None, goal: str | None
) -> SweepRecord:
    import wandb

    try:
        api = wandb.Api(overrides={"base_url": backend.base_url}, api_key=backend.api_key)
        path = find_sweep(ref, api, entity=entity, project=project)
        with _progress(path) as progress:
            return read_sweep(api, path, metric=metric, goal=goal, progress=progress)
    except (BackendError, MetricError) as error:
        refuse(str(error))
    except SweepUnreadableError as error:
        refuse(f"{error}\n{_candidates(ref, api, path)}".rstrip())
    except KeyboardInterrupt:
        # A plain exit would wait for requests in flight, which may be long on a server that does not answer.
        click.echo("interrupted: nothing was written", err=True)
        os._exit(INTERRUPTED)
    except wandb.Error as error:
        raise click.ClickException(f"{backend.base_url} does not answer as it should: {error}") from error


def _candidates(ref: SweepRef, api: Any, path: str) -> str:
    """Look around for what may have been meant by a full path that leads nowhere."""
    import wandb

    entity, project, _ = path.split("/")
    try:
        found = find_sweep(SweepRef(ref.sweep_id), api, entity=entity, environ={})
    except (BackendError, wandb.Error, ValueError) as error:
        return str(error) if isinstance(error, BackendError) else ""
    return f"there is a sweep of this id elsewhere:\n  {found}" if found != f"{entity}/{project}/{ref.sweep_id}" else ""


@contextmanager
def _progress(path: str) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how far the reading is: a bar on a terminal, else one line."""
    if not sys.stderr.isatty():
        click.echo(f"reading {path}", err=True)
        yield lambda _done, _total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading runs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("runs", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(findings: Findings, rows: int | None) -> None:
    from amc_analysis.report import print_report

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a run's name may hold what the terminal's encoding does not
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    print_report(findings, Console(width=width, highlight=False, emoji=False), rows)


def _markdown(findings: Findings) -> str:
    from amc_analysis.report import to_markdown

    return to_markdown(findings)


def _html(findings: Findings) -> str:
    from amc_analysis.page import to_html

    return to_html(findings)


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", delete=False) as file:
            temporary = Path(file.name)
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise click.ClickException(f"{path} could not be written: {error.strerror}") from error
    click.echo(f"wrote {path}", err=True)
