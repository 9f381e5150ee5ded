"""Which W&B a command talks to. The order, first that applies:

1. ``--base-url URL``, ``--local`` or ``--cloud`` (or the address inside a pasted URL)
2. the environment variable ``WANDB_BASE_URL``
3. the one embedded server of this user that is running
4. the user's own W&B login (``WANDB_API_KEY``, netrc, W&B's settings file)
5. an error that names the three ways
"""

from __future__ import annotations

import os
import shlex
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from amc_sweeps.backend.addresses import split_address
from amc_sweeps.backend.errors import WAYS, BackendError
from amc_sweeps.backend.keys import (
    CLOUD_URL,
    KEY_PREFIX,
    NO_KEY,
    embedded_key,
    has_login,
    hosted_key,
    is_cloud,
    login_url,
)
from amc_sweeps.backend.running_servers import ServerState, is_running, probe, running_servers, server_states
from amc_sweeps.number_formats import quoted


@dataclass(frozen=True)
class Backend:
    """A W&B and the key for it; ``api_key`` is None where the wandb client finds its own (netrc)."""

    kind: Literal["embedded", "cloud", "server"]
    base_url: str
    source: str  # how it was chosen, in words
    api_key: str | None = field(default=None, repr=False)  # never printed
    key_file: Path | None = None

    @property
    def is_on_this_machine(self) -> bool:
        """Whether the address is one that only this machine reaches."""
        return urllib.parse.urlsplit(self.base_url).hostname in {"127.0.0.1", "localhost", "::1"}

    def environment(self) -> dict[str, str]:
        """Return the variables that the wandb client needs."""
        key = {} if self.api_key is None else {"WANDB_API_KEY": self.api_key}
        return {"WANDB_BASE_URL": self.base_url, **key}

    def announce(self) -> str:
        """Return one line that names the W&B."""
        kind = {"embedded": "embedded server", "cloud": "W&B cloud", "server": "W&B server"}[self.kind]
        return f"W&B: {kind} at {self.base_url} ({self.source})"

    def shell_prefix(self) -> str:
        """Return the variables to put before a ``wandb`` command, with no key shown; empty for W&B's cloud."""
        if self.kind == "cloud":
            return ""
        prefix = f"WANDB_BASE_URL={self.base_url} "
        if self.api_key == NO_KEY:
            prefix += f"WANDB_API_KEY={NO_KEY} "
        elif self.kind == "embedded":
            prefix += f'WANDB_API_KEY="$(cat {shlex.quote(str(self.key_file or "KEYFILE"))})" '
        return prefix


def choose_backend(
    *,
    base_url: str | None = None,
    local: bool = False,
    cloud: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Backend:
    """Return the W&B that is meant, in the order at the top of this module.

    Raises:
        BackendError: no W&B fits, several fit, no server answers, or the key belongs to another server.
    """
    if sum([base_url is not None, local, cloud]) > 1:
        raise BackendError("--base-url, --local and --cloud exclude one another: give one")
    if base_url is not None:
        return _at(base_url, "by --base-url", environ)
    if cloud:
        return _hosted(CLOUD_URL, "by --cloud", environ)
    if local:
        state = _only_running(environ)
        if state is None:
            raise BackendError("--local: no embedded server of this user is running; start one with: amc-sweep serve")
        return _embedded(state.base_url, state, "by --local", environ)
    if address := environ.get("WANDB_BASE_URL"):
        return _at(address, "by WANDB_BASE_URL", environ)
    if state := _only_running(environ):
        return _embedded(state.base_url, state, "running here", environ)
    if environ.get("WANDB_API_KEY", "").startswith(KEY_PREFIX):
        raise BackendError(
            f"WANDB_API_KEY is the key of an embedded server, but none is running here and no address is given\n{WAYS}"
        )
    url = login_url(environ)
    if environ.get("WANDB_API_KEY") or has_login(url, environ):
        return _hosted(url, "your W&B login", environ)
    raise BackendError(f"no W&B to talk to: no server is running here and nobody is logged in\n{WAYS}")


def _at(url: str, source: str, environ: Mapping[str, str]) -> Backend:
    base_url = url.rstrip("/")
    if split_address(base_url) is None:
        raise BackendError(f"{quoted(url)} is not an address; write it like http://127.0.0.1:8418")
    if is_cloud(base_url):
        return _hosted(base_url, source, environ)
    health = probe(base_url)
    if health is None:
        return _hosted(base_url, source, environ)
    states = [state for state in server_states(environ) if state.base_url == base_url]
    state = next((state for state in states if state.instance == health.get("instance")), None)
    return _embedded(base_url, state, source, environ)


def _only_running(environ: Mapping[str, str]) -> ServerState | None:
    servers = running_servers(environ)
    if len(servers) > 1:
        lines = "\n".join(f"  --base-url {server.base_url}    data in {server.data}" for server in servers)
        raise BackendError(f"{len(servers)} embedded servers are running: give one of these\n{lines}")
    if not servers:
        for state in server_states(environ):
            is_running(state)  # raises where only its certificate kept it from being listed
    return servers[0] if servers else None


def _embedded(base_url: str, state: ServerState | None, source: str, environ: Mapping[str, str]) -> Backend:
    key, key_file = embedded_key(base_url, state, environ)
    return Backend("embedded", base_url, source, api_key=key, key_file=key_file)


def _hosted(base_url: str, source: str, environ: Mapping[str, str]) -> Backend:
    kind: Literal["cloud", "server"] = "cloud" if is_cloud(base_url) else "server"
    return Backend(kind, base_url, source, api_key=hosted_key(base_url, environ))
