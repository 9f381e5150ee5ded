"""amc-analyze: read a sweep, rank its runs by peak, and give the cause of every run's end."""

from __future__ import annotations

import gc
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console

from amc_analysis.analyse import add_findings, add_importance, rank_runs
from amc_analysis.known_importances import known_importances
from amc_analysis.reading.cache import cache_folder
from amc_analysis.reading.options import ReadingOptions, reading_options
from amc_analysis.reading.selected_records import read_records
from amc_analysis.report.comparison import COMPARISON_VERSION, compare, comparison_csv, comparison_json
from amc_analysis.report.json_and_csv import JSON_SCHEMAS, RUN_FIELDS, SCHEMA_VERSION, to_csv, to_json
from amc_analysis.statements.statement import FORMS, StatementError, read_statement
from amc_core.command_line import STDOUT, ExplainingCommand, OutputFile, Refusal, refuse, refuse_one_file_twice
from amc_core.files import write_whole
from amc_core.missing_packages import DISTRIBUTION
from amc_sweeps.backend.stderr import say

if TYPE_CHECKING:
    from amc_analysis.results.analysed_sweep import AnalysedSweep
    from amc_analysis.runs.confusion import FetchConfusions

LIVING_OBJECTS = 100_000  # between two looks for garbage: nearly all of ours are needed until the end
PIPED_WIDTH = 100  # columns of a report that goes to a file or another program
OUTPUT = OutputFile(allow_dash=True)

_FIELDS = "\n".join(f"  {name:<15}{meaning}" for name, meaning in RUN_FIELDS.items())

EPILOG = f"""\b
Examples:
  amc-analyze 94fqx0gz                                    print the report
  amc-analyze me/amc/94fqx0gz --html sweep.html           also write it as a page with learning curves
  amc-analyze 94fqx0gz --json | jq .summary.hidden_gems   give it to another program
  amc-analyze 94fqx0gz --csv - > runs.csv                 one row per run
  amc-analyze 94fqx0gz --next next.yaml                   write the next sweep, with its evidence in comments
  amc-analyze 94fqx0gz --metric val/loss --goal minimize  rank by another metric
  amc-analyze 94fqx0gz bapdavm5                           compare two sweeps
  amc-analyze 94fqx0gz --supports "max_lr=0.002 beats max_lr=0.001" && make figures
                                                          go on only if the runs show it
  amc-analyze --project radioml                           the project's runs without a sweep
  amc-analyze --from sweeps/recorded/94fqx0gz.yaml        read a file, no server

\b
A hidden gem is a run that neither completed nor ended by patience, but has a better peak than every run that did,
or one of the 3 best peaks of all. A cause with a question mark is not certain; --html shows its evidence.
Early-stopped, stopped, cancelled, interrupted and preempted runs are not counted as failures.

\b
--json follows version {SCHEMA_VERSION} of the schema that --json-schema prints. Rates and accuracies are fractions;
null means unknown or not finite. Several sweeps give an amc-analyze-comparison, version {COMPARISON_VERSION}: the
differences, one entry per side, and every sweep's document in `sweeps`. A run (and a row of --csv) has:
{_FIELDS}
  config         its configuration (--csv: config.NAME for every searched parameter; lists are written as JSON)

\b
FILE - stands for standard output: the text is printed instead of the report. Only one output can go there.

\b
Exit codes: 0 the report is written (also for a sweep without runs), 1 a server or a file failed,
2 an argument cannot be used, 130 interrupted. With --supports: 0 all statements are supported, 3 one is contradicted,
4 there is not enough evidence.
"""


def _print_schema(context: click.Context, _option: click.Parameter, is_given: bool) -> None:
    if is_given:
        click.echo(json.dumps(JSON_SCHEMAS, indent=2))
        context.exit()


@click.command(
    cls=ExplainingCommand,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@reading_options
@click.option("--top", default=20, show_default=True, metavar="N", help="Rows of the ranking; 0 prints all.")
@click.option("--json", "as_json", is_flag=True, help="Print the analysis as JSON instead of the report.")
@click.option("--csv", "csv_file", type=OUTPUT, metavar="FILE", help="Write one row per run.")
@click.option("--markdown", "markdown_file", type=OUTPUT, metavar="FILE", help="Write the report as Markdown.")
@click.option("--html", "html_file", type=OUTPUT, metavar="FILE", help="Write the report as a page, in one file.")
@click.option(
    "--next",
    "next_file",
    type=OUTPUT,
    metavar="FILE",
    help="Write the next sweep, without the values that these runs exclude.",
)
@click.option(
    "--supports",
    "statements",
    multiple=True,
    metavar="STATEMENT",
    help="Say whether the runs support a statement, instead of the report. It may be given several times. Forms: "
    f"{'; '.join(FORMS)}. LOW..HIGH as VALUE stands for all numbers between.",
)
@click.option(
    "--evaluations",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    envvar="AMC_RUNS_DIR",
    show_default=True,
    metavar="FOLDER",
    help="Evaluations of this machine's trials, for the page's confusion matrices; W&B has those of other machines.",
)
@click.option(
    "--json-schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the schema of --json, for one sweep and for several.",
)
@click.version_option(package_name=DISTRIBUTION)
def main(
    reading: ReadingOptions,
    top: int,
    as_json: bool,
    csv_file: Path | None,
    markdown_file: Path | None,
    html_file: Path | None,
    next_file: Path | None,
    statements: tuple[str, ...],
    evaluations: Path,
) -> None:
    """Read W&B sweeps, rank their runs by peak, and give the cause of every run's end.

    SWEEP is an id, PROJECT/ID, ENTITY/PROJECT/ID or the URL of the sweep's page. The peak is the best value in a run's
    whole history; W&B's table shows the last value. Runs that crashed or were stopped with one of the best peaks are
    listed as hidden gems. Early stops do not count as failures. Several sweeps are compared. Without SWEEP, --project
    reads a project's runs without a sweep, and --runs reads single runs.
    """
    gc.set_threshold(LIVING_OBJECTS)
    named = {"--csv": csv_file, "--markdown": markdown_file, "--html": html_file, "--next": next_file}
    printed = [*(["--json"] if as_json else []), *(f"{option} -" for option, path in named.items() if path == STDOUT)]
    if len(printed) > 1:
        refuse(f"{' and '.join(printed)} all print to standard output: give one of them, and files for the others")
    if statements and any(named.values()):
        refuse("--supports prints its verdicts, or writes them with --json: give it without the files of a report")
    if top < 0:
        refuse(f"--top {top}: give a number of rows, or 0 for all")
    refuse_one_file_twice([*named.values(), reading.save], read=reading.from_files)
    records, fetch = read_records(reading)
    ranked = [rank_runs(record) for record in records]
    for sweep in ranked:
        if reading.metric is not None and not sweep.has_metric:
            logged = ", ".join(sweep.logged_metrics) or "nothing"
            refuse(f"no run of {sweep.title} has logged {reading.metric}; logged: {logged}")
    if len(ranked) > 1 and next_file is not None:
        refuse("--next follows one sweep: give one, or --html FILE for the comparison")
    if statements:
        _judge(ranked, statements, as_json)
    sweeps = [add_findings(sweep) for sweep in ranked]
    if not printed and not any(named.values()):
        _print(sweeps, top or None, reading)
        return
    sweeps = _with_importance(sweeps, reading)
    problems: list[click.ClickException] = []
    if next_file is not None:
        from amc_analysis.next_sweep.plan import NoNextSweepError
        from amc_analysis.next_sweep.sweep_file import next_sweep

        try:
            sweeps[0] = replace(sweeps[0], next_sweep=next_sweep(sweeps[0]))
        except NoNextSweepError as error:
            problems.append(Refusal(str(error)))
    html = partial(_html, evaluations=evaluations, fetch=fetch)
    renderers: dict[str, Callable[[Sequence[AnalysedSweep]], str]] = {
        "--csv": _csv,
        "--markdown": _markdown,
        "--html": html,
        "--next": _next,
    }
    if problems:
        del renderers["--next"]
    text, written = _json(sweeps) if as_json else None, []
    for option, render in renderers.items():
        path = named[option]
        if path == STDOUT:
            text = render(sweeps)
        elif path is not None:
            try:
                write_whole(path, render(sweeps))
                written.append(path)
            except OSError as error:
                problems.append(click.ClickException(f"{path} could not be written: {error.strerror}"))
    # The files come first: the reader of standard output may close it at any time, as "head" does.
    for path in written:
        say(f"wrote {path}")
    try:
        if text is not None:
            click.echo(text, nl=not text.endswith("\n"))
        elif not printed:
            _print(sweeps, top or None, reading)
    finally:
        if problems:
            raise problems[0]


def _judge(ranked: Sequence[AnalysedSweep], texts: Sequence[str], as_json: bool) -> NoReturn:
    """Print the verdicts on statements, and end with their exit code."""
    from amc_analysis.report.verdicts import exit_code, verdicts_json, verdicts_text
    from amc_analysis.statements.verdict import judge

    if len(ranked) > 1:
        refuse("--supports is about one sweep: give one")
    try:
        statements = [read_statement(text, ranked[0].ranked, ranked[0].parameters) for text in texts]
    except StatementError as error:
        refuse(str(error))
    sweep = add_findings(ranked[0])
    verdicts = judge(statements, sweep)
    click.echo(verdicts_json(sweep, verdicts) if as_json else verdicts_text(verdicts))
    click.get_current_context().exit(exit_code(verdicts))


def _with_importance(sweeps: Sequence[AnalysedSweep], reading: ReadingOptions) -> list[AnalysedSweep]:
    """Return the sweeps with importances: known ones from the cache, unless --no-cache was given."""
    with known_importances(None if reading.no_cache else cache_folder()) as known:
        return [sweep if sweep.importance is not None else add_importance(sweep, known) for sweep in sweeps]


def _print(sweeps: Sequence[AnalysedSweep], rows: int | None, reading: ReadingOptions) -> None:
    """Print the report; the ranking of a sweep without importances stands before these are computed."""
    from amc_analysis.report.terminal import print_comparison, print_head, print_sections

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a run's name may have a character that the terminal's encoding lacks
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    console = Console(width=width, highlight=False, emoji=False)
    if len(sweeps) > 1:
        print_comparison(compare(sweeps), console)
    for sweep in sweeps:
        print_head(sweep, console, rows)
        print_sections(_with_importance([sweep], reading)[0], console)


def _json(sweeps: Sequence[AnalysedSweep]) -> str:
    documents = [to_json(sweep) for sweep in sweeps]
    return documents[0] if len(documents) == 1 else comparison_json(compare(sweeps), documents)


def _csv(sweeps: Sequence[AnalysedSweep]) -> str:
    tables = [to_csv(sweep) for sweep in sweeps]
    return tables[0] if len(tables) == 1 else comparison_csv(sweeps, tables)


def _markdown(sweeps: Sequence[AnalysedSweep]) -> str:
    from amc_analysis.report.markdown import comparison_markdown, to_markdown

    pages = [to_markdown(sweep) for sweep in sweeps]
    return pages[0] if len(pages) == 1 else "\n".join([comparison_markdown(compare(sweeps)), *pages])


def _html(sweeps: Sequence[AnalysedSweep], evaluations: Path, fetch: FetchConfusions | None) -> str:
    from amc_analysis.report.page import to_html
    from amc_analysis.runs.confusion import read_confusions

    if len(sweeps) > 1:
        from amc_analysis.report.comparison_page import comparison_html

        return comparison_html(sweeps)
    (sweep,) = sweeps
    confusions = read_confusions(evaluations, sweep.record, sweep.ranked, fetch)
    return to_html(replace(sweep, confusions=confusions))


def _next(sweeps: Sequence[AnalysedSweep]) -> str:
    (sweep,) = sweeps
    assert sweep.next_sweep is not None
    return sweep.next_sweep.text
