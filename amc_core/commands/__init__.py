"""amc-data: make, check, show and divide data files. One module a command; this one gathers them."""

from __future__ import annotations

import click

from amc_core.commands.audit import audit_command
from amc_core.commands.ceiling import ceiling_command
from amc_core.commands.show import show_command
from amc_core.commands.split import split_command
from amc_core.commands.synth import synth_command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=[audit_command, ceiling_command, show_command, split_command, synth_command],
)
def main() -> None:
    """Make, check, look at and divide RadioML files."""
