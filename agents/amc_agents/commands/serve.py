"""amc-sweep serve: the embedded W&B server, in this terminal until Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amc_sweeps.backend import NO_KEY, ServerState, remove_server_state, shell_quoted, write_server_state
from amc_sweeps.cli_options import Refusal

if TYPE_CHECKING:
    from amc_server.states import Limits


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8418, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option(
    "--data",
    default=None,
    type=click.Path(path_type=Path),
    help="Folder of the database, the files, the log and the key.  [default: ~/.local/share/amc-sweep]",
)
@click.option(
    "--key-file", type=click.Path(path_type=Path, dir_okay=False), help="Default: api.key in the data folder."
)
@click.option("--no-auth", is_flag=True, help="Ask for no key (on 127.0.0.1 only).")
@click.option("--seed", type=int, help="Makes the searches of new sweeps reproducible.")
@click.option(
    "limits",
    "--limit",
    multiple=True,
    hidden=True,  # for tests, which cannot wait for five minutes of silence
    metavar="NAME=SECONDS",
    help="How long silence may last: a field of amc_server.states.Limits.",
)
def serve_command(
    host: str,
    port: int,
    data: Path | None,
    key_file: Path | None,
    no_auth: bool,
    seed: int | None,
    limits: tuple[str, ...],
) -> None:
    """Serve W&B's sweep protocol to the plain wandb client: no account, no internet.

    \b
    amc-sweep serve                         on this machine
    amc-sweep serve --host 0.0.0.0          for others too; put TLS in front, or go through an SSH tunnel

    What it stores stays in the data folder; killed and started again on it, it goes on where it was, and so do its
    agents. Exit codes: 0 ended by Ctrl-C or SIGTERM, 2 cannot start.
    """
    # Imported here: --help of the whole command should not wait for a web server.
    from amc_server.app import LOOPBACK, ServerError, ServerOptions, Started, run

    def state_of(started: Started) -> ServerState:
        return ServerState(
            base_url=_reachable(started.base_url),
            key_file=str(started.key_file) if started.key_file else None,
            pid=os.getpid(),
            data=str(started.data),
            instance=started.instance,
        )

    def announce(started: Started) -> None:
        state = state_of(started)
        write_server_state(state)
        key = f'"$(cat {shell_quoted(started.key_file)})"' if started.key_file else NO_KEY
        click.echo(f"amc-sweep server at {state.base_url}, data in {started.data}. Ctrl-C ends it.", err=True)
        click.echo(
            "Every amc-sweep command of this user finds it. The plain wandb client is pointed at it by", err=True
        )
        click.echo(f"  WANDB_BASE_URL={state.base_url} WANDB_API_KEY={key} wandb agent ENTITY/PROJECT/SWEEP", err=True)
        if started.key_file:
            click.echo("In a browser: log in as api, the key (the content of that file) as the password.", err=True)
        if host not in LOOPBACK:
            click.echo(
                f"Warning: {host} is reachable from other machines and this server speaks plain HTTP: the key would "
                "travel in the clear. Put TLS in front of it (a reverse proxy), or use an SSH tunnel.",
                err=True,
            )

    options = ServerOptions(
        data=data or _default_data(),
        host=host,
        port=port,
        key_file=key_file,
        auth=not no_auth,
        seed=seed,
        limits=_limits(limits),
    )
    try:
        run(options, announce, lambda started: remove_server_state(state_of(started)))
    except ServerError as error:
        raise Refusal(str(error)) from error
    click.echo("amc-sweep server ended.", err=True)


def _reachable(base_url: str) -> str:
    """Return an address that a client on this machine can use: 0.0.0.0 is one to listen on only."""
    return base_url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _limits(texts: Iterable[str]) -> Limits:
    from amc_server.states import Limits

    changes = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in {field.name for field in fields(Limits)} or not value.replace(".", "", 1).isdigit():
            raise Refusal(f"--limit {text}: write NAME=SECONDS with a field of amc_server.states.Limits")
        changes[name] = type(getattr(Limits(), name))(value)
    return replace(Limits(), **changes)


def _default_data() -> Path:
    """Return one folder a user, whatever folder the command is called in: a sweep started today is found tomorrow."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "amc-sweep"
