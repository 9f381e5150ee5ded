"""The options that select the runs and the server for amc-analyze."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from amc_analysis.reading.sources import SEVERAL_PROJECTS, Selection
from amc_core.command_line import STDOUT, OutputFile, refuse
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, backend_options, collect_options
from amc_sweeps.backend.references import Kind, Reference, named_server, parse_reference


@dataclass(frozen=True)
class ReadingOptions:
    """The values of the options, see ``reading_options``."""

    sweeps: tuple[str, ...]
    runs: bool  # the arguments are runs
    metric: str | None
    goal: str | None
    offline: bool
    no_cache: bool
    public_api: bool
    from_files: tuple[Path, ...]
    save: Path | None
    choice: BackendChoice  # which W&B


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a click command, which gets them as one argument, ``reading``."""
    wrapped = backend_options(collect_options(command, "reading", ReadingOptions))
    for option in (
        click.option("--save", type=OutputFile(), metavar="FILE.parquet", help="Save all runs that were read."),
        click.option(
            "--from",
            "from_files",
            multiple=True,
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            metavar="FILE",
            help="Read a file of --save or of amc-sweep export, not a server. Several are compared.",
        ),
        click.option("--public-api", is_flag=True, help="Read run by run, also from a server that sends all at once."),
        click.option("--no-cache", is_flag=True, help="Read all runs again, and cache nothing."),
        click.option("--offline", is_flag=True, help="Use the runs in the cache; ask no server."),
        click.option(
            "--goal", type=click.Choice(["maximize", "minimize"]), help="Its goal (default: the sweep's own)."
        ),
        click.option("--metric", metavar="NAME", help="Rank by this metric (default: the sweep's own)."),
        click.option("--runs", is_flag=True, help="The arguments are runs, in or outside a sweep."),
        click.argument("sweeps", metavar="[SWEEP]...", nargs=-1),
    ):
        wrapped = option(wrapped)
    return wrapped


def check(options: ReadingOptions) -> None:
    """Refuse options that exclude one another.

    Raises:
        Refusal: with what to give instead.
    """
    if options.from_files and (options.sweeps or options.runs):
        refuse("--from reads a file: give no sweeps or runs with it")
    if not options.from_files and not options.sweeps and (options.runs or options.choice.project is None):
        remedy = "the ids of runs after --runs" if options.runs else "a SWEEP, --runs RUN ..., --project PROJECT"
        refuse(f"nothing to read: give {remedy} or --from FILE")
    if options.offline and options.no_cache:
        refuse("--offline reads the cache, and --no-cache does not use it: give only one of them")
    if options.save == STDOUT:
        refuse("--save -: a Parquet file cannot be printed; give the name of a file")


def selections(options: ReadingOptions) -> list[Selection]:
    """Return the selected runs, with the entities and projects that arguments, options and environment name.

    Raises:
        BackendError: for an argument that is no reference, or runs of several projects.
    """
    entity = options.choice.entity or os.environ.get("WANDB_ENTITY")
    project = options.choice.project or os.environ.get("WANDB_PROJECT")
    references = _references(options)
    if not references:
        return [Selection(entity, project)]
    if not options.runs:
        return [Selection(ref.entity or entity, ref.project or project, ref.id) for ref in references]
    projects = {(ref.entity or entity, ref.project or project) for ref in references}
    if len(projects) > 1:
        raise BackendError(SEVERAL_PROJECTS)
    ((entity, project),) = projects
    return [Selection(entity, project, run_ids=tuple(ref.id for ref in references))]


def server_url(options: ReadingOptions) -> str | None:
    """Return the server that an option or a pasted URL names."""
    if options.choice.names_server:
        return options.choice.base_url
    return named_server(_references(options))


def _references(options: ReadingOptions) -> list[Reference]:
    """Return the arguments as references to runs with --runs, else to sweeps.

    Raises:
        BackendError: for an argument that is none.
    """
    kind: Kind = "run" if options.runs else "sweep"
    return [parse_reference(text, (kind,)) for text in options.sweeps]
