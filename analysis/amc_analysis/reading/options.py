"""What amc-analyze reads: the options that say so, and the way from them to records."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amc_analysis.reading.sources import FileSource, NotFoundError, Progress, Selection, Source
from amc_analysis.runs.records import SweepUnreadableError
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.keys import CLOUD_URL
from amc_sweeps.backend.options import INTERRUPTED, BackendChoice, backend_options, connect, gathered, refuse
from amc_sweeps.backend.references import Kind, Reference, find_sweep, parse_reference
from amc_sweeps.runs.records import MetricError, SweepRecord

if TYPE_CHECKING:
    from amc_analysis.runs.confusion import Confusion
    from amc_sweeps.runs.ranking import RankedRun

Evaluations = Callable[[SweepRecord, "Sequence[RankedRun]"], "Mapping[str, Confusion]"]  # of some runs of a record


@dataclass(frozen=True)
class ReadingOptions:
    """What was given on the command line, see ``reading_options``."""

    sweeps: tuple[str, ...]
    runs: bool  # the arguments are runs
    metric: str | None
    goal: str | None
    offline: bool
    no_cache: bool
    public_api: bool
    from_file: Path | None
    save: Path | None
    choice: BackendChoice  # which W&B


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of reading to a click command, which gets them as one argument, ``reading``."""

    wrapped = backend_options(gathered(command, "reading", ReadingOptions))
    file = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--save", type=file, metavar="FILE.parquet", help="Keep everything that was read in one file."),
        click.option(
            "--from",
            "from_file",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            metavar="FILE",
            help="Read a file of --save or of amc-sweep export instead of a server.",
        ),
        click.option("--public-api", is_flag=True, help="Read run by run even where the server gives all at once."),
        click.option("--no-cache", is_flag=True, help="Read everything anew, and keep nothing."),
        click.option("--offline", is_flag=True, help="Show what was read last, without asking the server."),
        click.option(
            "--goal", type=click.Choice(["maximize", "minimize"]), help="Its goal (default: the sweep's own)."
        ),
        click.option("--metric", metavar="NAME", help="Rank by this metric (default: the sweep's own)."),
        click.option("--runs", is_flag=True, help="The arguments are runs, of no sweep or of several."),
        click.argument("sweeps", metavar="[SWEEP]...", nargs=-1),
    ):
        wrapped = option(wrapped)
    return wrapped


def check(options: ReadingOptions) -> None:
    """Refuse what does not go together.

    Raises:
        Refusal: with what to do instead.
    """
    if options.from_file is not None and (options.sweeps or options.runs):
        refuse("--from reads a file: give no sweeps or runs beside it")
    if options.from_file is None and not options.sweeps and (options.runs or options.choice.project is None):
        wanted = "the ids of runs after --runs" if options.runs else "a SWEEP, --runs RUN ..., --project PROJECT"
        refuse(f"nothing to read: give {wanted} or --from FILE")
    if options.offline and options.no_cache:
        refuse("--offline shows what is kept, and --no-cache leaves it alone: give one of them")
    if options.save is not None and (options.save.is_dir() or not options.save.parent.is_dir()):
        refuse(f"{options.save} cannot be written: its folder does not exist")


def read_records(options: ReadingOptions) -> tuple[list[SweepRecord], Evaluations]:
    """Read what was asked for, with progress on stderr, and keep it where --save says.

    Returns:
        The records, and whom to ask for evaluations that do not lie on this machine.

    Raises:
        Refusal: for what cannot be found or used.
    """
    check(options)
    evaluations: Evaluations = _no_evaluations
    try:
        if options.from_file is not None:
            records = _from_file(options.from_file, options)
        elif options.offline:
            records, evaluations = _offline(options)
        else:
            records, evaluations = _online(options)
    except (BackendError, MetricError, SweepUnreadableError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        # A plain exit would wait for requests in flight, which may be long on a server that does not answer.
        click.echo("interrupted: nothing was written; what was read is kept for the next time", err=True)
        os._exit(INTERRUPTED)
    if options.save is not None:
        from amc_analysis.reading.parquet_file import save

        try:
            save(options.save, records)
        except OSError as error:
            raise click.ClickException(f"{options.save} could not be written: {error.strerror or error}") from error
        click.echo(f"wrote {options.save}", err=True)
    return records, evaluations


# --- what is meant --------------------------------------------------------------------------------------------------


def references(options: ReadingOptions) -> list[Reference]:
    """Return what the arguments name: runs with --runs, else sweeps.

    Raises:
        BackendError: for what does not name one.
    """
    kind: Kind = "run" if options.runs else "sweep"
    return [parse_reference(text, (kind,)) for text in options.sweeps]


def selections(options: ReadingOptions) -> list[Selection]:
    """Return what is to be read, as far as the arguments, the flags and the environment say where.

    Raises:
        BackendError: for arguments that name nothing, or runs of several projects at once.
    """
    entity = options.choice.entity or os.environ.get("WANDB_ENTITY")
    project = options.choice.project or os.environ.get("WANDB_PROJECT")
    found = references(options)
    if not options.runs and found:
        return [Selection(ref.entity or entity, ref.project or project, ref.id) for ref in found]
    if not options.runs:
        return [Selection(entity, project)]
    homes = {(ref.entity or entity, ref.project or project) for ref in found}
    if len(homes) > 1:
        raise BackendError("these runs are of several projects: give those of one at a time")
    (home,) = homes
    if home[1] is None:
        raise BackendError("a run's id does not say its project: give --project NAME, or PROJECT/RUN")
    return [Selection(*home, run_ids=tuple(ref.id for ref in found))]


def _address(options: ReadingOptions) -> str | None:
    """Return the server that flags or a pasted URL name."""
    if options.choice.is_made:
        return options.choice.base_url
    urls = {ref.base_url for ref in references(options)} - {None}
    if len(urls) > 1:
        refuse(f"these are on several servers ({', '.join(map(str, sorted(map(str, urls))))}): give those of one")
    return urls.pop() if urls else None


# --- from a server --------------------------------------------------------------------------------------------------


def _online(options: ReadingOptions) -> tuple[list[SweepRecord], Evaluations]:
    from amc_analysis.reading.cache import Cache, cache_folder, cache_path
    from amc_analysis.reading.evaluations import fetch
    from amc_analysis.reading.reader import read

    wanted = selections(options)
    backend = connect(options.choice.or_at(_address(options)))
    cache_file = None if options.no_cache else cache_path(backend.base_url, cache_folder())
    records = []
    with ExitStack() as open_until_read:
        cache = None
        if cache_file is not None:
            try:
                cache = open_until_read.enter_context(Cache(cache_file))
            except OSError as error:
                click.echo(f"nothing is kept for the next time: {error}", err=True)
        reader = _Reader(backend, options)
        for selection in wanted:
            with progress_of(selection) as progress:
                records.append(
                    reader.read(
                        lambda source, found, progress=progress: read(  # type: ignore[misc]
                            source, found, cache=cache, metric=options.metric, goal=options.goal, progress=progress
                        ),
                        selection,
                    )
                )
    return records, partial(fetch, reader.files, cache_file, tell=partial(click.echo, err=True))


class _Reader:
    """The best way to read a server: all at once where it can, else through the public API."""

    def __init__(self, backend: Backend, options: ReadingOptions) -> None:
        self._backend = backend
        self._options = options
        self._has_bulk = backend.kind == "embedded" and not options.public_api

    def read(self, reading: Callable[[Source, Selection], SweepRecord], wanted: Selection) -> SweepRecord:
        from amc_analysis.reading.bulk import BulkSource, NoBulkError

        if self._has_bulk:
            try:
                return reading(BulkSource(self._backend.base_url, self._backend.api_key or ""), wanted)
            except NoBulkError:
                self._has_bulk = False
            except NotFoundError:
                pass  # the public API says what is there instead
        return self._through_the_public_api(reading, wanted)

    def files(self) -> FileSource:
        """Return where to ask for files of runs, once they have been read."""
        from amc_analysis.reading.bulk import BulkSource
        from amc_analysis.reading.public_api import PublicApiSource

        if self._has_bulk:
            return BulkSource(self._backend.base_url, self._backend.api_key or "")
        return PublicApiSource(self._api)

    @cached_property
    def _api(self) -> Any:
        import wandb

        return wandb.Api(overrides={"base_url": self._backend.base_url}, api_key=self._backend.api_key)

    def _through_the_public_api(
        self, reading: Callable[[Source, Selection], SweepRecord], wanted: Selection
    ) -> SweepRecord:
        import wandb

        from amc_analysis.reading.public_api import PublicApiSource

        try:
            found = self._located(self._api, wanted)
            try:
                return reading(PublicApiSource(self._api), found)
            except (NotFoundError, SweepUnreadableError) as error:
                said = str(error) if isinstance(error, SweepUnreadableError) else f"{found.path} cannot be found"
                refuse(f"{said}\n{self._candidates(self._api, found)}".rstrip())
        except wandb.Error as error:
            raise click.ClickException(f"{self._backend.base_url} does not answer as it should: {error}") from error

    def _located(self, api: Any, wanted: Selection) -> Selection:
        if wanted.sweep_id is None:
            entity = wanted.entity or api.default_entity
            if not entity:
                raise BackendError("no entity is known here: give --entity")
            return Selection(entity, wanted.project, run_ids=wanted.run_ids)
        ref = Reference(wanted.sweep_id, wanted.project, wanted.entity)
        entity, project, sweep_id = find_sweep(ref, api, entity=wanted.entity, project=wanted.project).split("/")
        return Selection(entity, project, sweep_id)

    def _candidates(self, api: Any, wanted: Selection) -> str:
        """Look around for what may have been meant by a full path that leads nowhere."""
        import wandb

        if wanted.sweep_id is None:
            return ""
        try:
            found = find_sweep(Reference(wanted.sweep_id), api, entity=wanted.entity, environ={})
        except (BackendError, wandb.Error, ValueError) as error:
            return str(error) if isinstance(error, BackendError) else ""
        return f"there is a sweep of this id elsewhere:\n  {found}" if found != wanted.path else ""


@contextmanager
def progress_of(wanted: Selection) -> Iterator[Progress]:
    """Show on stderr how far the reading is: a bar on a terminal, else one line."""
    if not sys.stderr.isatty():
        click.echo(f"reading {wanted.path}", err=True)
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(f"reading {wanted.path}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("runs", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# --- without a server -----------------------------------------------------------------------------------------------


def _offline(options: ReadingOptions) -> tuple[list[SweepRecord], Evaluations]:
    from amc_analysis.reading.cache import Cache, cache_folder, cache_path
    from amc_analysis.reading.evaluations import kept
    from amc_analysis.reading.reader import read_offline

    folder, address = cache_folder(), _address(options)
    if options.choice.cloud:
        address = CLOUD_URL
    paths = sorted(folder.glob("*.sqlite3")) if address is None else [cache_path(address, folder)]
    paths = [path for path in paths if path.is_file()]
    with ExitStack() as open_until_read:
        caches = [open_until_read.enter_context(Cache(path)) for path in paths]
        records = [
            read_offline(caches, wanted, metric=options.metric, goal=options.goal) for wanted in selections(options)
        ]
    for record in records:
        where = "/".join(piece for piece in (record.entity, record.project, record.sweep_id) if piece)
        click.echo(f"{where} as it was read on {record.read_at:%Y-%m-%d %H:%M} UTC", err=True)
    return records, partial(kept, paths)


def _no_evaluations(_record: SweepRecord, _wanted: Sequence[RankedRun]) -> Mapping[str, Confusion]:
    return {}


def _from_file(path: Path, options: ReadingOptions) -> list[SweepRecord]:
    from amc_analysis.reading.parquet_file import MAGIC

    with path.open("rb") as file:
        beginning = file.read(len(MAGIC))
    if beginning == MAGIC:
        from amc_analysis.reading.parquet_file import StoreError, load

        try:
            return load(path, metric=options.metric, goal=options.goal)
        except StoreError as error:
            raise SweepUnreadableError(str(error)) from error
    from amc_analysis.reading.export_file import records_of
    from amc_sweeps.runs import export_file

    try:
        export = export_file.read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SweepUnreadableError(f"{path} is neither Parquet of --save nor an export: {error}") from error
    return records_of(export, read_at=datetime.now(UTC), metric=options.metric, goal=options.goal)
