"""The embedded servers of this user: the state file that each one keeps, and its health check.

A server writes its state file when it starts and removes it when it stops. After a crash the file stays, so a state
counts only when its server answers the health check with the same instance id.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from amc_core.files import write_whole
from amc_sweeps.backend.errors import WAYS, BackendError, UntrustedError
from amc_sweeps.backend.patience import TOO_MANY, open_patiently

SERVICE_NAME = "amc-sweep"  # what /healthz of an embedded server calls itself
HEALTH_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class ServerState:
    """The state file of an embedded server; the key itself stays in ``key_file``."""

    base_url: str
    key_file: str | None  # None: the server asks for no key
    pid: int
    data: str
    instance: str  # from /healthz; a later server on the same port has another one


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of state files: AMC_STATE_DIR, else one in the user's state folder (XDG_STATE_HOME)."""
    if folder := environ.get("AMC_STATE_DIR"):
        return Path(folder)
    return platformdirs.user_state_path("amc-sweep") / "servers"


def write_server_state(state: ServerState, environ: Mapping[str, str] = os.environ) -> Path:
    """Write the state file, readable by this user alone, and return its path."""
    path = _state_file(state, environ)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(path, json.dumps(asdict(state)), mode=0o600)
    return path


def remove_server_state(state: ServerState, environ: Mapping[str, str] = os.environ) -> None:
    """Remove the state file, unless another server has replaced it."""
    path = _state_file(state, environ)
    if _read_state(path) == state:
        path.unlink(missing_ok=True)


def server_states(environ: Mapping[str, str] = os.environ) -> list[ServerState]:
    """Return what the state files of this user say, whether or not the servers still run."""
    states = (_read_state(path) for path in sorted(state_folder(environ).glob("*.json")))
    return [state for state in states if state is not None]


def running_servers(environ: Mapping[str, str] = os.environ) -> list[ServerState]:
    """Return the embedded servers of this user that answer their health check."""
    running = []
    for state in server_states(environ):
        with contextlib.suppress(UntrustedError):
            if is_running(state):
                running.append(state)
    return running


def is_running(state: ServerState) -> bool:
    """Return whether the server of a state file answers, and not another server on its port.

    Raises:
        UntrustedError: a server answers there with a certificate that this machine does not trust.
    """
    try:
        health = probe(state.base_url)
    except UntrustedError:
        raise
    except BackendError:
        return False
    return health is not None and health.get("instance") == state.instance


def probe(base_url: str) -> dict[str, Any] | None:
    """Return the health answer of an embedded server, None from any other server; no key is sent.

    Raises:
        UntrustedError: this machine does not trust the server's certificate.
        BackendError: no server answers at the address, or it limits requests for too long.
    """
    try:
        request = urllib.request.Request(f"{base_url}/healthz")
        with open_patiently(request, timeout_s=HEALTH_TIMEOUT_S, busy={TOO_MANY}) as response:
            health = json.loads(response.read(65536))
    except urllib.error.HTTPError:
        return None  # a server, but not an embedded one
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UntrustedError(
                f"the certificate of {base_url} is not trusted here: {reason.verify_message}.\n"
                "If the server is yours, name its certificate, with its chain, to our commands and the wandb client:\n"
                "  export SSL_CERT_FILE=cert.pem      (it replaces the machine's own list of authorities)\n"
                "and use the address that the certificate is for."
            ) from error
        raise BackendError(f"no server answers at {base_url} ({reason})\n{WAYS}") from error
    except ValueError:
        return None
    return health if isinstance(health, dict) and health.get("service") == SERVICE_NAME else None


def _state_file(state: ServerState, environ: Mapping[str, str]) -> Path:
    return state_folder(environ) / f"{urllib.parse.urlsplit(state.base_url).port}.json"


def _read_state(path: Path) -> ServerState | None:
    try:
        return ServerState(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
