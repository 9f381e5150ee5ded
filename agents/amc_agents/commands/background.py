"""Leave the terminal and go on: a command's child that outlives it, and what it has to say before that."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from amc_sweeps.backend.options import Refusal

Say = Callable[[list[str]], None]


def detach(work: Callable[[Say], None], output: Path) -> None:
    """Run ``work`` in a process of its own that belongs to no terminal, and return once it has said its lines.

    Args:
        work: gets a function to call once, when all is well, with the lines to show here; raises ClickException when
            it cannot begin.
        output: what the process writes to stdout and stderr from then on; begun anew.

    Raises:
        Refusal: what ``work`` refused, or that it ended without a word.
    """
    output.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.close(ours)
        _child(work, output, theirs)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    if not said:
        raise Refusal(f"it ended while starting; what it wrote is in {output}")
    answer = json.loads(said)
    if answer["refused"] is not None:
        raise Refusal(answer["refused"])
    for line in answer["lines"]:
        click.echo(line, err=True)


def _child(work: Callable[[Say], None], output: Path, pipe: int) -> None:
    """Become a daemon, work, and end without ever returning into the caller's code."""
    code = 1
    try:
        os.setsid()
        if os.fork() != 0:  # a session leader could take a terminal again: its child cannot
            os._exit(0)
        for descriptor, target in ((0, os.devnull), (1, output), (2, output)):
            flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            opened = os.open(target, flags, 0o600)
            os.dup2(opened, descriptor)
            os.close(opened)

        def tell(lines: list[str], refused: str | None = None) -> None:
            with os.fdopen(pipe, "w") as stream:
                json.dump({"lines": lines, "refused": refused}, stream)

        try:
            work(tell)
            code = 0
        except click.ClickException as error:
            tell([], error.format_message())
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)
