"""amc-data: make, check, show and divide data files, score checkpoints on them. Every command has its own module."""

from __future__ import annotations

import click

from amc_core.command_line import ExplainingCommand, tidy_up_when_ended
from amc_core.commands.audit import audit_command
from amc_core.commands.ceiling import ceiling_command
from amc_core.commands.evaluate import evaluate_command
from amc_core.commands.show import show_command
from amc_core.commands.split import split_command
from amc_core.commands.synth import synth_command
from amc_core.missing_packages import DISTRIBUTION


class _Commands(ExplainingCommand, click.Group):
    pass


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=[audit_command, ceiling_command, evaluate_command, show_command, split_command, synth_command],
)
@click.version_option(package_name=DISTRIBUTION)
def main() -> None:
    """Make, check, show and divide RadioML files, and score checkpoints on them.

    Files are written whole or not at all. Ctrl-C ends a command with exit code 130.
    """
    tidy_up_when_ended()
