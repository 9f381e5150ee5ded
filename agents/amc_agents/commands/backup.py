"""amc-sweep backup: a consistent copy of the embedded server's data, while it runs."""

from __future__ import annotations

from pathlib import Path

import click

from amc_agents.commands.serve import default_data
from amc_core.command_line import OutputFile, Refusal, refuse, tidy_up_when_ended
from amc_sweeps.backend.running_servers import running_servers
from amc_sweeps.number_formats import counted


@click.command("backup")
@click.argument("file", type=OutputFile())
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="The server's data folder.  [default: that of the running server, else ~/.local/share/amc-sweep]",
)
def backup_command(file: Path, data: Path | None) -> None:
    """Save the embedded server's data to FILE (tar). Agents may go on writing meanwhile. FILE must not exist.

    FILE has runs, histories, sweeps, files and artifacts, but no key and no other secret. To save and restore:

    \b
    amc-sweep backup monday.tar
    mkdir restored && tar -xf monday.tar -C restored && amc-sweep serve --data restored

    Exit codes: 0 saved, 2 refused.
    """
    from amc_server.store.backup import BackupError, back_up

    tidy_up_when_ended()
    try:
        copy = back_up(data or _data_folder(), file)
    except BackupError as error:
        raise Refusal(str(error)) from error
    click.echo(
        f"{file}: {counted(copy.runs, 'run')}, {counted(copy.history_rows, 'history row')}, "
        f"{counted(copy.files, 'file')}, {copy.size / 1e6:,.1f} MB",
        err=True,
    )


def _data_folder() -> Path:
    servers = running_servers()
    if len(servers) > 1:
        lines = "\n".join(f"  --data {server.data}    at {server.base_url}" for server in servers)
        refuse(f"{len(servers)} embedded servers are running: choose one\n{lines}")
    return Path(servers[0].data) if servers else default_data()
