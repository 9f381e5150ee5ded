"""amc-sweep: steer sweeps. One small module per command; this one only gathers them."""

from __future__ import annotations

import click

from amc_agents.commands.agent import agent_command
from amc_agents.commands.backup import backup_command
from amc_agents.commands.create import create_command
from amc_agents.commands.demo import demo_command
from amc_agents.commands.doctor import doctor_command
from amc_agents.commands.export import export_command
from amc_agents.commands.import_ import import_command
from amc_agents.commands.list_ import list_command
from amc_agents.commands.repeat import repeat_command
from amc_agents.commands.resume import resume_command
from amc_agents.commands.serve import serve_command
from amc_agents.commands.status import status_command
from amc_agents.commands.steering import cancel_command, pause_command, stop_command
from amc_sweeps.backend.options import InterruptibleCommand


class _Commands(InterruptibleCommand, click.Group):
    """The group of all commands."""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="amc-sweep-toolkit")
def main() -> None:
    """Run W&B sweeps for modulation classification: in the cloud, on your own server, or on none at all.

    \b
    amc-sweep serve                           an embedded W&B server: no account, no internet
    amc-sweep create sweeps/smoke.yaml        check a sweep file, register it, print the agent command
    amc-sweep status SWEEP --watch            what runs, what failed where, how long it may still take
    amc-analyze SWEEP                         who really won, how each run ended

    Every command says on stderr which W&B it talks to: --base-url, --local or --cloud; else WANDB_BASE_URL; else the
    embedded server that runs here; else your W&B login.

    Exit codes: 0 done, 1 tried and failed, 2 refused as given, 130 interrupted; each command says more of its own.
    """


main.add_command(agent_command)
main.add_command(backup_command)
main.add_command(cancel_command)
main.add_command(create_command)
main.add_command(demo_command)
main.add_command(doctor_command)
main.add_command(export_command)
main.add_command(import_command)
main.add_command(list_command)
main.add_command(pause_command)
main.add_command(repeat_command)
main.add_command(resume_command)
main.add_command(serve_command)
main.add_command(status_command)
main.add_command(stop_command)
