"""amc-sweep serve: the embedded W&B server, in this terminal until Ctrl-C or in the background."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import platformdirs

from amc_agents.background_process import Announce, run_in_background
from amc_core.command_line import Refusal
from amc_sweeps.backend.keys import NO_KEY
from amc_sweeps.backend.running_servers import ServerState, remove_server_state, write_server_state

if TYPE_CHECKING:
    from amc_server.process import ListeningServer, ServerOptions
    from amc_server.scheduling.state_inference import Limits


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8418, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option(
    "--data",
    default=None,
    type=click.Path(path_type=Path),
    help="Folder of the database, files, log and key.  [default: ~/.local/share/amc-sweep]",
)
@click.option(
    "--key-file", type=click.Path(path_type=Path, dir_okay=False), help="Default: api.key in the data folder."
)
@click.option("--no-auth", is_flag=True, help="Serve without a key (on 127.0.0.1 only).")
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Speak HTTPS with this certificate (PEM, with its chain); needs --tls-key.",
)
@click.option(
    "--tls-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Its private key (PEM, no password).",
)
@click.option("--background", is_flag=True, help="Run in the background, and print the pid.")
@click.option("--seed", type=int, help="Seed of the searches of new sweeps.")
@click.option(
    "limits",
    "--limit",
    multiple=True,
    hidden=True,  # for tests, which cannot wait for the five minutes of the real limits
    metavar="NAME=SECONDS",
    help="A timeout: a field of amc_server.scheduling.state_inference.Limits.",
)
def serve_command(
    host: str,
    port: int,
    data: Path | None,
    key_file: Path | None,
    no_auth: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    background: bool,
    seed: int | None,
    limits: tuple[str, ...],
) -> None:
    """Serve W&B's sweep protocol to the plain wandb client: no account, no internet.

    \b
    amc-sweep serve                         on this machine
    amc-sweep serve --background            the same, without keeping the terminal
    amc-sweep serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem     for other machines too

    The data stays in the data folder. A server that was killed continues when it is started again on that folder, and
    its agents continue too.

    Exit codes: 0 ended by Ctrl-C or SIGTERM, 2 cannot start.
    """
    # Imported here, so that --help does not wait for the import of a web server.
    from amc_server.process import ServerOptions

    options = ServerOptions(
        data=data or default_data(),
        host=host,
        port=port,
        key_file=key_file,
        auth=not no_auth,
        tls_cert=tls_cert,
        tls_key=tls_key,
        seed=seed,
        limits=_limits(limits),
    )
    from amc_server.store.network_disk import network_disk, network_disk_warning

    if (mount := network_disk(options.data)) is not None:
        click.echo("Warning: {}. {}.".format(*network_disk_warning(options.data, mount)), err=True)
    if background:
        try:
            run_in_background(
                lambda announce: _serve(options, announce, background=True), options.data / "background.log"
            )
        except OSError as error:
            raise Refusal(
                f"the data folder {options.data} cannot be written ({error.strerror}). Choose another with --data."
            ) from error
        return
    _serve(options, lambda lines: click.echo("\n".join(lines), err=True), background=False)
    click.echo("amc-sweep server ended.", err=True)


def _serve(options: ServerOptions, announce: Announce, *, background: bool) -> None:
    from amc_server.process import ServerError, run

    def state_of(server: ListeningServer) -> ServerState:
        return ServerState(
            base_url=_reachable(server.base_url),
            key_file=str(server.key_file) if server.key_file else None,
            pid=os.getpid(),
            data=str(server.data),
            instance=server.instance,
        )

    def announce_start(server: ListeningServer) -> None:
        state = state_of(server)
        path = write_server_state(state)
        ending = f"kill {state.pid} ends it." if background else "Ctrl-C ends it."
        announce([*_announcement(options, server, state, ending), *([f"State file: {path}"] if background else [])])

    try:
        run(options, announce_start, lambda server: remove_server_state(state_of(server)))
    except ServerError as error:
        raise Refusal(str(error)) from error


def _announcement(options: ServerOptions, server: ListeningServer, state: ServerState, ending: str) -> list[str]:
    """Return the lines for the user of a server that has started. They name the key's file, never the key."""
    from amc_server.http.guard import LOOPBACK

    key = f'"$(cat {shlex.quote(str(server.key_file))})"' if server.key_file else NO_KEY
    lines = [
        f"amc-sweep server at {state.base_url}, data in {server.data}. {ending}",
        "Every amc-sweep command of this user finds it. For the plain wandb client, set",
        f"  WANDB_BASE_URL={state.base_url} WANDB_API_KEY={key} wandb agent ENTITY/PROJECT/SWEEP",
    ]
    if server.key_file:
        lines.append("In a browser: open that address and log in with the key (the content of that file).")
    if options.tls_cert:
        lines.append("TLS: clients must use the host name of the certificate, and trust its issuer (SSL_CERT_FILE).")
    elif options.host not in LOOPBACK:
        lines.append(
            f"Warning: other machines can reach {options.host}, and plain HTTP sends the key unencrypted. "
            "Use --tls-cert and --tls-key, a reverse proxy with TLS, or an SSH tunnel."
        )
    return lines


def _reachable(base_url: str) -> str:
    """Return an address for clients on this machine, since they cannot connect to 0.0.0.0."""
    return base_url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _limits(texts: Iterable[str]) -> Limits:
    from amc_server.scheduling.state_inference import Limits

    changes = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in {field.name for field in fields(Limits)} or not value.replace(".", "", 1).isdigit():
            raise Refusal(
                f"--limit {text}: write NAME=SECONDS with a field of amc_server.scheduling.state_inference.Limits"
            )
        changes[name] = type(getattr(Limits(), name))(value)
    return replace(Limits(), **changes)


def default_data() -> Path:
    """Return the user's data folder. It does not depend on the current folder, so that a later command finds it."""
    return platformdirs.user_data_path("amc-sweep")
