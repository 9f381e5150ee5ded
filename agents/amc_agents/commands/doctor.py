"""amc-sweep doctor: is this machine ready for trials, and if not, what to do."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from amc_agents.commands.options import runs_dir_option
from amc_agents.commands.serve import default_data
from amc_agents.doctor import Check, examine
from amc_core.command_line import FAILED, refuse
from amc_core.verdicts import Verdict
from amc_sweeps.backend.choose import Backend, choose_backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, backend_options

_COLOURS = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


@click.command("doctor", short_help="Is this machine ready for trials?")
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="AMC_DATA", help="The data file to check.  [default: AMC_DATA]"
)
@runs_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@backend_options
def doctor_command(data: Path | None, runs_dir: Path, as_json: bool, choice: BackendChoice) -> None:
    """Check whether this machine is ready for trials; every check that does not pass says what to do.

    Checks versions, room for checkpoints (disk, number of files, your quota where the system tells it), the size of
    W&B's cache, your login at W&B, the clock against the server's, whether torch computes on the GPU, and a sample of
    the data file (amc-data audit FILE reads all of it). Nothing is changed.

    \b
    amc-sweep doctor
    amc-sweep doctor --local --data frames.hdf5 --json

    Exit codes: 0 no check fails (there may be warnings), 1 a check fails, 2 refused.
    """
    if choice.entity is not None or choice.project is not None:
        refuse("doctor checks a machine and a W&B: it does not use --entity and --project")
    backend: Backend | str
    try:
        backend = choose_backend(base_url=choice.base_url, local=choice.local, cloud=choice.cloud)
    except BackendError as error:
        backend = str(error)
    checks = []
    for check in examine(backend, data=data, runs_dir=runs_dir, server_data=default_data(), environ=dict(os.environ)):
        checks.append(check)
        if not as_json:
            _show(check)
    failed = [check.name for check in checks if check.verdict is Verdict.FAIL]
    if as_json:
        results = [
            {"name": check.name, "verdict": check.verdict, "message": check.text, "remedy": check.remedy}
            for check in checks
        ]
        document = {"schema": "amc-sweep doctor", "version": 1, "ready": not failed, "checks": results}
        click.echo(json.dumps(document, indent=2))
    elif failed:
        click.echo(f"not ready: {', '.join(failed)}", err=True)
    if failed:
        sys.exit(FAILED)


def _show(check: Check) -> None:
    click.echo(click.style(f"{check.verdict:<5}", fg=_COLOURS[check.verdict]) + f"{check.name:<9} {check.text}")
    if check.remedy is not None:
        click.echo(f"{'':15}-> {check.remedy}")
