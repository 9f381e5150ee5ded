"""Runs a command's work in the background: in a process that outlives the terminal, after it has reported its start."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from amc_core.command_line import Refusal

Announce = Callable[[list[str]], None]


def run_in_background(work: Callable[[Announce], None], output: Path) -> None:
    """Run ``work`` in a process without a terminal; return when it has started.

    Args:
        work: gets a function that it calls once, after its start, with the lines to print here. It raises
            ClickException when it cannot start.
        output: file for the process's stdout and stderr; overwritten.

    Raises:
        Refusal: ``work`` could not start.
    """
    output.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    reading_end, writing_end = os.pipe()
    if os.fork() == 0:
        os.close(reading_end)
        _run_as_daemon(work, output, writing_end)
    os.close(writing_end)
    with os.fdopen(reading_end) as pipe:
        answer = pipe.read()
    if not answer:
        raise Refusal(f"it ended while starting; its output is in {output}")
    start = json.loads(answer)
    if start["refused"] is not None:
        raise Refusal(start["refused"])
    for line in start["lines"]:
        click.echo(line, err=True)


def _run_as_daemon(work: Callable[[Announce], None], output: Path, pipe: int) -> None:
    """Become a daemon and work; the process ends here and never returns."""
    code = 1
    try:
        os.setsid()
        if os.fork() != 0:  # a session leader could get a terminal again, its child cannot
            os._exit(0)
        for descriptor, target in ((0, os.devnull), (1, output), (2, output)):
            flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            file = os.open(target, flags, 0o600)
            os.dup2(file, descriptor)
            os.close(file)

        def announce(lines: list[str], refused: str | None = None) -> None:
            with os.fdopen(pipe, "w") as stream:
                json.dump({"lines": lines, "refused": refused}, stream)

        try:
            work(announce)
            code = 0
        except click.ClickException as error:
            announce([], error.format_message())
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)
