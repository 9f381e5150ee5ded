"""amc-data audit: check a data file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from amc_core.commands.terminal import progress_bar


@click.command("audit")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print verdicts and measurements as JSON.")
def audit_command(file: Path, as_json: bool) -> None:
    """Check a data file, with one verdict per line.

    Reads every frame once. The order of the classes and the SNR labels are compared with the signals.

    \b
    amc-data audit radioml.hdf5
    amc-data audit radioml.hdf5 --json

    Exit codes: 0 no check fails, 1 a check fails, 2 the arguments cannot be used.
    """
    from amc_core.audit.checks import audit_file

    with ExitStack() as stack:
        advance: Callable[[int], None] | None = None
        frames_read = 0

        def show(n_read: int, n_frames: int) -> None:
            nonlocal advance, frames_read
            if advance is None:  # a file that cannot be opened has no bar
                advance = stack.enter_context(progress_bar(f"reading {file.name}", "frames", n_frames))
            advance(n_read - frames_read)
            frames_read = n_read

        checks = audit_file(file, advance=show)
    passed = all(check.verdict != "fail" for check in checks)
    if as_json:
        facts = {"file": str(file), "passed": passed, "checks": [check.to_mapping() for check in checks]}
        click.echo(json.dumps(facts, indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(f"{check.verdict:4}  {check.name:{width}}  {check.text}")
    if not passed:
        sys.exit(1)
