"""Which W&B a command talks to: its address, its key, and the path of the sweep that was meant.

The order, first that applies:

1. ``--base-url URL``, ``--local`` or ``--cloud`` (or the address inside a pasted sweep URL)
2. the environment variable ``WANDB_BASE_URL``
3. the one embedded server of this user that is running, found by its state file and a health check
4. the user's own W&B login (``WANDB_API_KEY``, netrc, W&B's settings file)
5. an error that names the three ways

The wandb client sends ``WANDB_API_KEY`` to *any* host, so a key is only ever put into the environment here after it
was matched with the server: keys of embedded servers begin with ``amc-``, all others do not. W&B's own settings and
netrc are read, never written.
"""

from __future__ import annotations

import configparser
import json
import netrc
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

CLOUD_URL = "https://api.forge.coreweave.com"  # where wandb 0.31 goes by itself; one deployment under two names
OLDER_CLOUD_URL = "https://api.wandb.ai"
CLOUD_PAGES = frozenset({"forge.coreweave.com", "wandb.ai", "www.wandb.ai"})
KEY_PREFIX = "amc-"
NO_KEY = KEY_PREFIX + "0" * 40  # for a server that asks for none: the wandb client wants some key all the same
SERVICE_NAME = "amc-sweep"  # what /healthz of an embedded server calls itself
HEALTH_TIMEOUT_S = 3.0

WAYS = """\
Three ways to name a W&B:
  amc-sweep serve                   start the embedded server in another terminal: no account, no internet
  wandb login                       use your account in W&B's cloud, or add --host for a server of your own
  --base-url URL, WANDB_BASE_URL    name a server outright, its key in WANDB_API_KEY"""


class BackendError(RuntimeError):
    """No W&B, or no sweep, can be told from what was given; the message says what to do next."""


class UntrustedError(BackendError):
    """Something answers at the address, by TLS with a certificate that this machine does not trust."""


@dataclass(frozen=True)
class Backend:
    """A W&B and the key for it; ``api_key`` is None where the wandb client finds its own (netrc)."""

    kind: Literal["embedded", "cloud", "server"]
    base_url: str
    source: str  # how it was chosen, in words
    api_key: str | None = field(default=None, repr=False)  # never printed
    key_file: Path | None = None

    def environment(self) -> dict[str, str]:
        """Return what the wandb client needs in its environment."""
        key = {} if self.api_key is None else {"WANDB_API_KEY": self.api_key}
        return {"WANDB_BASE_URL": self.base_url, **key}

    def announce(self) -> str:
        """Say which W&B is meant, in one line."""
        kind = {"embedded": "embedded server", "cloud": "W&B cloud", "server": "W&B server"}[self.kind]
        return f"W&B: {kind} at {self.base_url} ({self.source})"

    def shell_prefix(self) -> str:
        """Return the variables to put before a ``wandb`` command, with no key shown.

        Empty for a login that the plain client finds by itself.
        """
        if self.kind == "cloud":
            return ""
        prefix = f"WANDB_BASE_URL={self.base_url} "
        if self.api_key == NO_KEY:
            prefix += f"WANDB_API_KEY={NO_KEY} "
        elif self.kind == "embedded":
            key_file = self.key_file or Path("KEYFILE")
            prefix += f'WANDB_API_KEY="$(cat {shell_quoted(key_file)})" '
        return prefix


def shell_quoted(path: Path) -> str:
    """Return a path that survives inside double quotes of a shell line."""
    text = str(path)
    return text if re.fullmatch(r"[\w@%+=:,./-]+", text) else "'" + text.replace("'", "'\\''") + "'"


# --- running embedded servers of this user -------------------------------------------------------------------------


@dataclass(frozen=True)
class ServerState:
    """What an embedded server leaves for this user's commands to find it; the key itself stays in ``key_file``."""

    base_url: str
    key_file: str | None  # None: the server asks for no key
    pid: int
    data: str
    instance: str  # answered by /healthz: another server on the same port is not taken for this one


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of state files (AMC_STATE_DIR, else XDG's)."""
    if own := environ.get("AMC_STATE_DIR"):
        return Path(own)
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".local" / "state"
    return Path(base) / "amc-sweep" / "servers"


def write_server_state(state: ServerState, environ: Mapping[str, str] = os.environ) -> Path:
    """Write the state file, readable by this user alone, and return its path."""
    folder = state_folder(environ)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{urllib.parse.urlsplit(state.base_url).port}.json"
    temporary = path.with_suffix(f".{state.pid}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(state), file)
    temporary.replace(path)
    return path


def remove_server_state(state: ServerState, environ: Mapping[str, str] = os.environ) -> None:
    """Remove the state file, unless another server has taken its place."""
    path = state_folder(environ) / f"{urllib.parse.urlsplit(state.base_url).port}.json"
    if _read_state(path) == state:
        path.unlink(missing_ok=True)


def running_servers(environ: Mapping[str, str] = os.environ) -> list[ServerState]:
    """Return the embedded servers of this user that answer their health check as themselves."""
    states = (_read_state(path) for path in sorted(state_folder(environ).glob("*.json")))
    return [state for state in states if state is not None and _is_running(state)]


def _read_state(path: Path) -> ServerState | None:
    try:
        return ServerState(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_running(state: ServerState) -> bool:
    try:
        answer = probe(state.base_url)
    except BackendError:
        return False
    return answer is not None and answer.get("instance") == state.instance


def probe(base_url: str) -> dict[str, Any] | None:
    """Ask a server what it is, without a key: its health answer if it is an embedded one, else None.

    Raises:
        BackendError: when nothing answers at the address, or something that is not trusted (UntrustedError).
    """
    try:
        with urllib.request.urlopen(f"{base_url}/healthz", timeout=HEALTH_TIMEOUT_S) as response:
            answer = json.loads(response.read(65536))
    except urllib.error.HTTPError:
        return None  # something answers, but it is not ours
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UntrustedError(
                f"the certificate of {base_url} is not trusted here: {reason.verify_message}.\n"
                "If it is your own, name it for our commands and the wandb client alike, with its chain:\n"
                "  export SSL_CERT_FILE=cert.pem      (it replaces the machine's own list of authorities)\n"
                "and use the address that the certificate is for."
            ) from error
        raise BackendError(f"no server answers at {base_url} ({reason})\n{WAYS}") from error
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and answer.get("service") == SERVICE_NAME else None


# --- the choice ----------------------------------------------------------------------------------------------------


def choose_backend(
    *,
    base_url: str | None = None,
    local: bool = False,
    cloud: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Backend:
    """Decide which W&B is meant, in the order at the top of this module.

    Raises:
        BackendError: when none can be told, several are possible, nothing answers, or the key belongs elsewhere.
    """
    if sum([base_url is not None, local, cloud]) > 1:
        raise BackendError("--base-url, --local and --cloud exclude one another: give one")
    if base_url is not None:
        return _at(base_url, "by --base-url", environ)
    if cloud:
        return _hosted(CLOUD_URL, "by --cloud", environ)
    if local:
        found = _one_running(environ)
        if found is None:
            raise BackendError("--local: no embedded server of this user is running; start one with: amc-sweep serve")
        return _embedded(found.base_url, "by --local", environ)
    if named := environ.get("WANDB_BASE_URL"):
        return _at(named, "by WANDB_BASE_URL", environ)
    if found := _one_running(environ):
        return _embedded(found.base_url, "running here", environ)
    if environ.get("WANDB_API_KEY", "").startswith(KEY_PREFIX):
        raise BackendError(
            f"WANDB_API_KEY is the key of an embedded server, but none is running here and no address is given\n{WAYS}"
        )
    login_url = _settings_url(environ) or CLOUD_URL
    if environ.get("WANDB_API_KEY") or _netrc_key(login_url, environ):
        return _hosted(login_url, "your W&B login", environ)
    raise BackendError(f"no W&B to talk to: no server is running here and nobody is logged in\n{WAYS}")


def _at(url: str, source: str, environ: Mapping[str, str]) -> Backend:
    base_url = url.rstrip("/")
    parts = urllib.parse.urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BackendError(f"{url!r} is not an address; write it like http://127.0.0.1:8418")
    if base_url in {CLOUD_URL, OLDER_CLOUD_URL}:
        return _hosted(base_url, source, environ)
    if probe(base_url) is not None:
        return _embedded(base_url, source, environ)
    return _hosted(base_url, source, environ)


def _one_running(environ: Mapping[str, str]) -> ServerState | None:
    servers = running_servers(environ)
    if len(servers) > 1:
        listed = "\n".join(f"  --base-url {server.base_url}    data in {server.data}" for server in servers)
        raise BackendError(f"{len(servers)} embedded servers are running: say which\n{listed}")
    if not servers:
        _name_an_untrusted_one(environ)
    return servers[0] if servers else None


def _name_an_untrusted_one(environ: Mapping[str, str]) -> None:
    """Raise UntrustedError where a server of this user was not found because its certificate is not trusted."""
    for path in state_folder(environ).glob("*.json"):
        state = _read_state(path)
        try:
            if state is not None:
                probe(state.base_url)
        except UntrustedError:
            raise
        except BackendError:
            continue


def _embedded(base_url: str, source: str, environ: Mapping[str, str]) -> Backend:
    """Return the embedded server with its own key: the key file's where this machine has it, else WANDB_API_KEY."""
    for state in running_servers(environ):
        if state.base_url == base_url:
            if state.key_file is None:
                return Backend("embedded", base_url, source, api_key=NO_KEY)
            key_file = Path(state.key_file)
            try:
                key = key_file.read_text().strip()
            except OSError as error:
                raise BackendError(f"the key of {base_url} cannot be read from {key_file}: {error.strerror}") from error
            return Backend("embedded", base_url, source, api_key=key, key_file=key_file)
    key = environ.get("WANDB_API_KEY", "")
    if not key:
        raise BackendError(
            f"{base_url} is an embedded server and wants its key: copy its key file here, then\n"
            '  export WANDB_API_KEY="$(cat KEYFILE)"'
        )
    if not key.startswith(KEY_PREFIX):
        raise BackendError(
            f"WANDB_API_KEY is not the key of the embedded server at {base_url} (those begin with {KEY_PREFIX}): "
            "it was not sent.\nPut the server's own key there: the content of its key file."
        )
    return Backend("embedded", base_url, source, api_key=key)


def _hosted(base_url: str, source: str, environ: Mapping[str, str]) -> Backend:
    """Return W&B's cloud or somebody's W&B server; its key is WANDB_API_KEY, else the login that the client finds."""
    kind: Literal["cloud", "server"] = "cloud" if base_url in {CLOUD_URL, OLDER_CLOUD_URL} else "server"
    key = environ.get("WANDB_API_KEY", "")
    if key.startswith(KEY_PREFIX):
        raise BackendError(
            f"WANDB_API_KEY is the key of an embedded server and does not belong to {base_url}: it was not sent.\n"
            "Unset it, or name the embedded server with --base-url."
        )
    if key:
        return Backend(kind, base_url, source, api_key=key)
    if _netrc_key(base_url, environ):
        return Backend(kind, base_url, source)
    host = "" if kind == "cloud" else f" --host {base_url}"
    raise BackendError(f"no key for {base_url}: run `wandb login{host}`, or set WANDB_API_KEY")


def _netrc_key(base_url: str, environ: Mapping[str, str]) -> bool:
    home = Path(environ.get("HOME", "~")).expanduser()
    named = environ.get("NETRC")
    # As the client looks: a login of its older name serves the newer one, not the other way round.
    urls = [base_url, OLDER_CLOUD_URL] if base_url == CLOUD_URL else [base_url]
    for path in [Path(named)] if named else [home / ".netrc", home / "_netrc"]:
        try:
            logins = netrc.netrc(path)
        except (OSError, netrc.NetrcParseError):
            continue
        entries = [logins.authenticators(urllib.parse.urlsplit(url).hostname or "") for url in urls]
        if any(entry is not None and entry[2] for entry in entries):
            return True
    return False


def _settings_url(environ: Mapping[str, str]) -> str | None:
    home = Path(environ.get("HOME", "~")).expanduser()
    folder = Path(environ.get("WANDB_CONFIG_DIR") or home / ".config" / "wandb")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(folder / "settings")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return None
    url = parser.get("default", "base_url", fallback=None)
    return url.rstrip("/") if url else None
