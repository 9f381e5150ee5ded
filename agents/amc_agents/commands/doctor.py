"""amc-sweep doctor: is this machine ready for trials, and if not, what is to be done."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from amc_agents.doctor import Check, examine
from amc_core.verdicts import Verdict
from amc_sweeps.backend.choose import Backend, choose_backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import DONE, FAILED, BackendChoice, backend_options, refuse

_COLOURS = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


@click.command("doctor", short_help="Is this machine ready for trials?")
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="AMC_DATA", help="The data file to look at.  [default: AMC_DATA]"
)
@click.option(
    "--runs-dir",
    type=click.Path(path_type=Path),
    envvar="AMC_RUNS_DIR",
    default=Path("runs"),
    help="Where checkpoints go.  [default: AMC_RUNS_DIR, else runs]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@backend_options
def doctor_command(
    data: Path | None,
    runs_dir: Path,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """Look whether this machine is ready for trials; every line that does not pass says what to do.

    Versions, room for checkpoints, which W&B and who you are there, the clock against the server's, GPU and driver and
    whether torch computes on them, the data file by samples (amc-data audit FILE reads all of it). Nothing is changed.

    \b
    amc-sweep doctor
    amc-sweep doctor --local --data frames.hdf5 --json

    Exit codes: 0 nothing fails (there may be warnings), 1 something fails, 2 refused.
    """
    if choice.entity is not None or choice.project is not None:
        refuse("doctor looks at a machine and a W&B: --entity and --project say nothing to it")
    backend: Backend | str
    try:
        backend = choose_backend(base_url=choice.base_url, local=choice.local, cloud=choice.cloud)
    except BackendError as error:
        backend = str(error)
    checks = []
    for check in examine(backend, data=data, runs_dir=runs_dir, environ=dict(os.environ)):
        checks.append(check)
        if not as_json:
            _say(check)
    failed = [check.name for check in checks if check.verdict is Verdict.FAIL]
    if as_json:
        found = {"schema": "amc-sweep doctor", "version": 1, "ready": not failed, "checks": [asdict(c) for c in checks]}
        click.echo(json.dumps(found, indent=2))
    elif failed:
        click.echo(f"not ready: {', '.join(failed)}", err=True)
    sys.exit(FAILED if failed else DONE)


def _say(check: Check) -> None:
    click.echo(click.style(f"{check.verdict:<5}", fg=_COLOURS[check.verdict]) + f"{check.name:<9} {check.said}")
    if check.remedy is not None:
        click.echo(f"{'':15}-> {check.remedy}")
