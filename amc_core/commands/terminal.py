"""Progress bars, and opening a data file for a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from amc_core.data.radioml import RadioMLFile


@contextmanager
def progress_bar(title: str, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr; lend ``advance(by)``."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda by: progress.update(task, advance=by)


@contextmanager
def open_file(path: Path) -> Iterator[RadioMLFile]:
    """Lend an open data file; a fault of the file ends the command with its message and exit code 1."""
    from amc_core.data.radioml import DataError, RadioMLFile

    try:
        with RadioMLFile(path) as data:
            yield data
    except DataError as error:
        raise click.ClickException(str(error)) from error
