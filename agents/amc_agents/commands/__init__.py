"""amc-sweep: run and control sweeps. Every command is one module."""

from __future__ import annotations

import click

from amc_agents.commands.agent import agent_command
from amc_agents.commands.backup import backup_command
from amc_agents.commands.clean import clean_command
from amc_agents.commands.create import create_command
from amc_agents.commands.demo import demo_command
from amc_agents.commands.doctor import doctor_command
from amc_agents.commands.export import export_command
from amc_agents.commands.import_ import import_command
from amc_agents.commands.launch import launch_command
from amc_agents.commands.list_ import list_command
from amc_agents.commands.next_ import give_back_command, next_command
from amc_agents.commands.promote import promote_command
from amc_agents.commands.repeat import repeat_command
from amc_agents.commands.resume import resume_command
from amc_agents.commands.serve import serve_command
from amc_agents.commands.status import status_command
from amc_agents.commands.steering import cancel_command, pause_command, stop_command
from amc_agents.commands.update import update_command
from amc_core.command_line import ExplainingCommand
from amc_core.missing_packages import DISTRIBUTION


class _Commands(ExplainingCommand, click.Group):
    pass


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name=DISTRIBUTION)
def main() -> None:
    """Run W&B sweeps for modulation classification: in the cloud, on your own server, or without any account.

    \b
    amc-sweep serve                           an embedded W&B server: no account, no internet
    amc-sweep create sweeps/smoke.yaml        check a sweep file, register it, print the agent command
    amc-sweep status SWEEP --watch            what runs, what failed where, the time left
    amc-analyze SWEEP                         the best runs by peak, and how each run ended

    Every command prints on stderr which W&B it uses: --base-url, --local or --cloud; else WANDB_BASE_URL; else the
    embedded server that runs here; else your W&B login.

    Exit codes: 0 done, 1 failed, 2 refused (nothing was changed), 130 interrupted; see the help of each command.
    """


for _command in (
    *(agent_command, backup_command, cancel_command, clean_command, create_command, demo_command, doctor_command),
    *(export_command, give_back_command, import_command, launch_command, list_command, next_command, pause_command),
    *(promote_command, repeat_command, resume_command, serve_command, status_command, stop_command, update_command),
):
    main.add_command(_command)
