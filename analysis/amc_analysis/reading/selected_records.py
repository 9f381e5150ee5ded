"""The records that the options of amc-analyze select: from a server, from the cache, or from a file."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread

import click

from amc_analysis.reading.cache import Cache, cache_folder, cache_path
from amc_analysis.reading.evaluations import cached_confusions, fetch_confusions
from amc_analysis.reading.export_file import records_of
from amc_analysis.reading.options import ReadingOptions, check, selections, server_url
from amc_analysis.reading.parquet_file import MAGIC, load, save
from amc_analysis.reading.reader import read, read_offline
from amc_analysis.reading.server import ServerSource
from amc_analysis.reading.slurm_accounting import with_jobs
from amc_analysis.reading.sources import Progress, Selection
from amc_analysis.reading.wandb_api import translate_errors
from amc_analysis.runs.confusion import FetchConfusions
from amc_analysis.runs.records import SweepUnreadableError
from amc_core.command_line import INTERRUPTED, refuse
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.keys import CLOUD_URL
from amc_sweeps.backend.options import connect
from amc_sweeps.backend.stderr import say
from amc_sweeps.bounded_texts import read_file
from amc_sweeps.runs import export_file
from amc_sweeps.runs.records import MetricError, SweepRecord


def read_records(options: ReadingOptions) -> tuple[list[SweepRecord], FetchConfusions | None]:
    """Read the selected records, with progress on stderr, and save them in the file of --save.

    Returns:
        The records, and a function that reads confusion matrices of other machines' runs; None for a file.

    Raises:
        Refusal: for runs that do not exist, or options that cannot be used.
        click.ClickException: when the server does not answer as it should, or the file of --save cannot be written.
    """
    check(options)
    fetch: FetchConfusions | None = None
    try:
        if options.from_files:
            records = [record for path in options.from_files for record in _read_file(path, options)]
        elif options.offline:
            records, fetch = _read_cache(options)
        else:
            records, fetch = _read_server(options)
    except (BackendError, MetricError, SweepUnreadableError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        say("interrupted: no report was written; the runs read so far are cached")
        os._exit(INTERRUPTED)  # a plain exit would wait for open requests, which may take minutes
    if options.save is not None:
        try:
            save(options.save, records)
        except OSError as error:
            raise click.ClickException(f"{options.save} could not be written: {error.strerror or error}") from error
        say(f"wrote {options.save}")
    return records, fetch


def _read_server(options: ReadingOptions) -> tuple[list[SweepRecord], FetchConfusions]:
    selected = selections(options)
    backend = connect(options.choice.or_at(server_url(options)))
    cache_file = None if options.no_cache else cache_path(backend.base_url, cache_folder())
    server = ServerSource(backend, public_api=options.public_api)
    # The tests of the effects need it. Its import takes 0.1 s, which pass while the server collects the runs.
    Thread(target=import_module, args=("scipy.special",)).start()
    records = []
    with ExitStack() as stack:
        cache = None
        if cache_file is not None:
            try:
                cache = stack.enter_context(Cache(cache_file))
            except OSError as error:
                say(f"nothing is cached: {error}")
        stack.enter_context(translate_errors(backend))
        for selection in selected:
            try:
                record = _read_one(server, selection, cache, options)
            except sqlite3.Error as error:
                say(f"everything is read again, because the cache {cache_file} cannot be used: {error}")
                if cache is not None and not isinstance(error, sqlite3.OperationalError):  # damaged, not full or busy
                    cache.path.unlink(missing_ok=True)
                cache, record = None, _read_one(server, selection, None, options)
            records.append(with_jobs(record, server.files()))
    return records, partial(fetch_confusions, server.files, cache_file, report=say)


def _read_one(server: ServerSource, selection: Selection, cache: Cache | None, options: ReadingOptions) -> SweepRecord:
    with _progress(selection) as progress:
        return read(server, selection, cache=cache, metric=options.metric, goal=options.goal, progress=progress)


def _read_cache(options: ReadingOptions) -> tuple[list[SweepRecord], FetchConfusions]:
    folder = cache_folder()
    url = CLOUD_URL if options.choice.cloud else server_url(options)
    files = sorted(folder.glob("*.sqlite3")) if url is None else [cache_path(url, folder)]
    files = [file for file in files if file.is_file()]
    try:
        with ExitStack() as stack:
            caches = [stack.enter_context(Cache(file)) for file in files]
            records = [
                read_offline(caches, selection, metric=options.metric, goal=options.goal)
                for selection in selections(options)
            ]
    except (OSError, sqlite3.Error) as error:
        raise SweepUnreadableError(f"the cache in {folder} cannot be read: {error}; leave --offline out") from error
    for record in records:
        path = Selection(record.entity, record.project, record.sweep_id).path
        say(f"{path} as it was read on {record.read_at:%Y-%m-%d %H:%M} UTC")
    return records, partial(cached_confusions, files)


def _read_file(path: Path, options: ReadingOptions) -> list[SweepRecord]:
    with path.open("rb") as file:
        is_parquet = file.read(len(MAGIC)) == MAGIC
    if is_parquet:
        return load(path, metric=options.metric, goal=options.goal)
    try:
        export = export_file.read(read_file(path, export_file.MOST_BYTES))
    except (OSError, ValueError) as error:
        raise SweepUnreadableError(
            f"{path} is neither a file of --save nor one of amc-sweep export: {error}"
        ) from error
    return records_of(export, read_at=datetime.now(UTC), metric=options.metric, goal=options.goal)


@contextmanager
def _progress(selection: Selection) -> Iterator[Progress]:
    """Show the progress of reading on stderr: a bar on a terminal, else one line."""
    if not sys.stderr.isatty():
        say(f"reading {selection.path}")
        yield lambda _runs, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(f"reading {selection.path}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("runs", total=None)
        yield lambda runs, total: bar.update(task, completed=runs, total=total)
