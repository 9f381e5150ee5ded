"""Which key goes to which server, and where the user's W&B login is kept.

The wandb client sends ``WANDB_API_KEY`` to *any* host. So a key is checked against its server before the client gets
it: keys of embedded servers begin with ``amc-``, all others do not. W&B's settings file and netrc are read, never
written.
"""

from __future__ import annotations

import configparser
import netrc
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.running_servers import ServerState

CLOUD_URL = "https://api.forge.coreweave.com"  # the default of wandb 0.31: one deployment with two names
OLDER_CLOUD_URL = "https://api.wandb.ai"
CLOUD_PAGES = frozenset({"forge.coreweave.com", "wandb.ai", "www.wandb.ai"})
KEY_PREFIX = "amc-"
NO_KEY = KEY_PREFIX + "0" * 40  # for a server that asks for none: the wandb client still wants a key


def embedded_key(base_url: str, state: ServerState | None, environ: Mapping[str, str]) -> tuple[str, Path | None]:
    """Return the key of an embedded server and the file that holds it; without a state the key is WANDB_API_KEY.

    Raises:
        BackendError: the key file cannot be read, or WANDB_API_KEY is missing or belongs to another server.
    """
    if state is not None:
        if state.key_file is None:
            return NO_KEY, None
        key_file = Path(state.key_file)
        try:
            return key_file.read_text().strip(), key_file
        except OSError as error:
            raise BackendError(f"the key of {base_url} cannot be read from {key_file}: {error.strerror}") from error
    key = environ.get("WANDB_API_KEY", "")
    if not key:
        raise BackendError(
            f"{base_url} is an embedded server and needs its key: copy its key file here, then\n"
            '  export WANDB_API_KEY="$(cat KEYFILE)"'
        )
    if not key.startswith(KEY_PREFIX):
        raise BackendError(
            f"WANDB_API_KEY is not the key of the embedded server at {base_url} (its key begins with {KEY_PREFIX}): "
            "it was not sent.\nSet WANDB_API_KEY to the content of the server's key file."
        )
    return key, None


def hosted_key(base_url: str, environ: Mapping[str, str]) -> str | None:
    """Return the key of W&B's cloud or of another W&B server; None where the client finds the login by itself.

    Raises:
        BackendError: there is no key, or WANDB_API_KEY belongs to an embedded server.
    """
    key = environ.get("WANDB_API_KEY", "")
    if key.startswith(KEY_PREFIX):
        raise BackendError(
            f"WANDB_API_KEY is the key of an embedded server and does not belong to {base_url}: it was not sent.\n"
            "Unset it, or name the embedded server with --base-url."
        )
    if not key and not has_login(base_url, environ):
        host = "" if is_cloud(base_url) else f" --host {base_url}"
        raise BackendError(f"no key for {base_url}: run `wandb login{host}`, or set WANDB_API_KEY")
    return key or None


def is_cloud(base_url: str) -> bool:
    """Return whether an address is that of W&B's cloud."""
    return base_url in {CLOUD_URL, OLDER_CLOUD_URL}


def has_login(base_url: str, environ: Mapping[str, str]) -> bool:
    """Return whether netrc holds a login for an address, looked for as the wandb client does."""
    home, netrc_path = _home(environ), environ.get("NETRC")
    # A login under the cloud's older name serves the newer name, but not the other way round.
    urls = [base_url, OLDER_CLOUD_URL] if base_url == CLOUD_URL else [base_url]
    for path in [Path(netrc_path)] if netrc_path else [home / ".netrc", home / "_netrc"]:
        try:
            logins = netrc.netrc(path)
        except (OSError, netrc.NetrcParseError):
            continue
        entries = [logins.authenticators(urllib.parse.urlsplit(url).hostname or "") for url in urls]
        if any(entry is not None and entry[2] for entry in entries):
            return True
    return False


def login_url(environ: Mapping[str, str]) -> str:
    """Return the address in W&B's settings file, else the cloud's."""
    folder = Path(environ.get("WANDB_CONFIG_DIR") or _home(environ) / ".config" / "wandb")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(folder / "settings")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return CLOUD_URL
    return parser.get("default", "base_url", fallback="").rstrip("/") or CLOUD_URL


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME", "~")).expanduser()
