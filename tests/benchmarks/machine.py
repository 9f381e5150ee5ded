"""Tables of results: the machine and the command in them, their folder, and which runs replace them."""

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
    """Replace results/NAME.md by the text, headed by the command that measured it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(f"# {name}\n\nWritten by `{command}`.\n\n{text.rstrip()}\n", encoding="utf-8")
    return path


def add_write_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options --write and --no-write for results/NAME.md."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true", help=f"replace results/{name}.md whatever the arguments")
    choice.add_argument("--no-write", action="store_true", help=f"leave results/{name}.md as it is")


def unlike_committed(
    parser: argparse.ArgumentParser, options: argparse.Namespace, committed: Mapping[str, Any] | None = None
) -> str:
    """Return the arguments that differ from those of the committed table, as text.

    Args:
        parser: gives the defaults.
        options: the arguments of this run.
        committed: arguments of the table that are not the defaults, because the defaults give a short run.
    """
    expected = {name: parser.get_default(name) for name in vars(options) if name not in {"write", "no_write"}}
    expected |= committed or {}
    return ", ".join(
        f"--{name.replace('_', '-')} {getattr(options, name)} instead of {value}"
        for name, value in expected.items()
        if getattr(options, name) != value
    )


def keep_table(
    name: str, text: str, options: argparse.Namespace, *, worse: str, hidden: Mapping[str, str] | None = None
) -> None:
    """Replace results/NAME.md, or print why it stays: this run is worse, or --no-write was given.

    Args:
        name: of the table.
        text: the table.
        options: with the options of ``add_write_options``.
        worse: why this run is worse than the committed one, empty if it is not; --write overrides it.
        hidden: arguments and their replacement in the table, such as a path of this machine.
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
