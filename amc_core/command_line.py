"""What all commands share: how they end, and how they name the files that they write.

Every wing uses this module, so it imports click, the standard library, and what every wing may import.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from amc_core.files import exists, is_file, why_not_writable
from amc_core.missing_packages import DISTRIBUTION, required_package
from amc_core.unread_output import drop_unread_output, lost_output
from amc_sweeps.number_formats import shortened

STDOUT = Path("-")
# docs/commands.md says what they mean for each command.
DONE = 0
FAILED = 1  # the server does not answer, or a check fails; also click's own code for an error
USAGE_ERROR = 2  # the arguments cannot be used; nothing was changed
INTERRUPTED = 130  # 128 + SIGINT, as in shells


class Refusal(click.ClickException):
    """The arguments cannot be used: one message, exit code 2."""

    exit_code = USAGE_ERROR


def refuse(message: str) -> NoReturn:
    """End the command with a message and exit code 2."""
    raise Refusal(message)


class ExplainingCommand(click.Command):
    """A command or a group that ends with one line instead of a traceback.

    So it ends at Ctrl-C (exit code 130), where a package is missing, where a file cannot be used, and where the disk of
    its standard output is full. A reader of its output that has gone ends nothing.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        drop_unread_output()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise SystemExit(INTERRUPTED) from None
        except ModuleNotFoundError as error:
            package = required_package(error)
            if package is None:
                raise
            command = " ".join(filter(None, [ctx.command_path, ctx.invoked_subcommand]))
            raise click.ClickException(
                f"{command} needs {package}, and this environment lacks it: a light install leaves out what only "
                f"training needs. Add everything that is missing with\n"
                f"  {shlex.quote(sys.executable)} -m pip install {DISTRIBUTION}"
            ) from error
        except OSError as error:
            if error.filename is None:
                raise
            kind = Refusal if error.errno == errno.ENAMETOOLONG else click.ClickException
            raise kind(f"{shortened(str(error.filename))}: {error.strerror}") from error
        if (lost := lost_output()) is not None:
            raise click.ClickException(f"a part of the output is lost: standard output: {lost.strerror}")
        return result


def tidy_up_when_ended() -> None:
    """Let SIGTERM and SIGHUP end this process by an exception, so that no half-written file is left behind."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, end)


class OutputFile(click.Path):
    """The type of an argument that names a file to write. One that cannot be written is refused before the work begins.

    Args:
        allow_dash: whether ``-`` may be given, for standard output.
    """

    def __init__(self, *, allow_dash: bool = False) -> None:
        super().__init__(readable=False, path_type=Path, allow_dash=allow_dash)
        self.name = "file"  # in the help

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        is_stdout = self.allow_dash and path == STDOUT
        if not is_stdout and (reason := why_not_writable(path)) is not None:
            self.fail(f"{shortened(str(path))} cannot be written: {reason}", param, ctx)
        return path


class OutputFolder(click.Path):
    """The type of an argument that names a folder to write into, which is made when it is missing."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, readable=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if exists(folder))
        if (reason := why_not_writable(there / "file")) is not None:
            self.fail(f"nothing can be written into {shortened(str(path))}: {reason}", param, ctx)
        return path


def refuse_one_file_twice(written: Iterable[Path | None], read: Iterable[Path] = ()) -> None:
    """Refuse a file to write that is also read, or written a second time: its content would be lost.

    Raises:
        Refusal: with its name.
    """
    taken = {os.path.realpath(path) for path in read}
    for path in written:
        if path is None or path == STDOUT or (exists(path) and not is_file(path)):  # such as /dev/null
            continue
        if (place := os.path.realpath(path)) in taken:
            raise Refusal(f"{path} is given twice, and writing it would destroy the other content: give another name")
        taken.add(place)
