"""What every table of results says of the machine and the command, where tables go, and which runs replace them."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"


def describe_machine() -> str:
    """Return the processor, the cores that this process may use, and the libraries, in one line."""
    cores = len(os.sched_getaffinity(0))
    return (
        f"{_processor()}, {cores} cores; Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}."
    )


def write_table(name: str, text: str, *, command: str) -> Path:
    """Replace results/NAME.md by the text, under the command that it came from."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(f"# {name}\n\nWritten by `{command}`.\n\n{text.rstrip()}\n", encoding="utf-8")
    return path


def add_write_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Let the command line decide about results/NAME.md."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true", help=f"replace results/{name}.md whatever the arguments")
    choice.add_argument("--no-write", action="store_true", help=f"leave results/{name}.md as it is")


def unlike_committed(
    parser: argparse.ArgumentParser, options: argparse.Namespace, committed: Mapping[str, Any] | None = None
) -> str:
    """Say which arguments are not those of the committed table; empty: none.

    Args:
        parser: what the defaults come from.
        options: the arguments of this run.
        committed: the arguments of the table where they are not the defaults, by which a run would be too long.
    """
    wanted = {name: parser.get_default(name) for name in vars(options) if name not in {"write", "no_write"}}
    wanted |= committed or {}
    return ", ".join(
        f"--{name.replace('_', '-')} {getattr(options, name)} instead of {value}"
        for name, value in wanted.items()
        if getattr(options, name) != value
    )


def keep_table(
    name: str, text: str, options: argparse.Namespace, *, worse: str, hidden: Mapping[str, str] | None = None
) -> None:
    """Replace results/NAME.md, unless this run is worse than the one that it holds, or --no-write was given; say so.

    Args:
        name: of the table.
        text: the table.
        options: with those of ``add_write_options``.
        worse: in what this run is not as good as the committed one; --write overrules it.
        hidden: arguments that stand in the table's command as something else, such as a path of this machine.
    """
    if options.no_write or (worse and not options.write):
        print(f"\nresults/{name}.md stays as it is: {worse or '--no-write'}" + "; --write replaces it" * bool(worse))
    else:
        write_table(name, text, command=_command(hidden or {}))


def _command(hidden: Mapping[str, str]) -> str:
    command = shlex.join(["python", f"tests/benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    for given, shown in hidden.items():
        command = command.replace(given, shown)
    return command


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
