"""Access by one key, made at the first start and sent as W&B's clients send theirs.

The wandb client sends ``Authorization: Basic base64("api:" + key)`` with every request except uploads of files and
downloads of artifacts; their URLs are signed. A browser logs in once with the key and then sends a cookie that is not
the key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from pathlib import Path
from typing import Any

from amc_core.files import write_whole

KEY_FORM = re.compile(r"amc-[0-9a-f]{40}")
COOKIE = "amc_session"
SIGNATURE_LIFETIME_S = 24 * 3600.0  # W&B's own signed URLs last a day


class KeyFileError(RuntimeError):
    """The key file cannot be used; the message says what to do."""


def read_or_make_key(path: Path) -> str:
    """Return the key in the file, making the file (0600) if it does not exist.

    Raises:
        KeyFileError: the file cannot be read or written, others may read it, or it does not hold a key.
    """
    key = f"amc-{secrets.token_hex(20)}"
    try:
        if path.exists():  # its folder may be read-only
            return _read_key(path)
        write_whole(path, f"{key}\n", replace=False, durable=True, mode=0o600)
    except FileExistsError:
        return _read_key(path)
    except OSError as error:
        raise KeyFileError(
            f"the key file {path} cannot be written ({error.strerror}): name another by --key-file"
        ) from error
    return key


def _read_key(path: Path) -> str:
    try:
        key = path.read_text().strip()
        mode = path.stat().st_mode & 0o777
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the key file {path} cannot be read: {error}") from error
    if not KEY_FORM.fullmatch(key):
        raise KeyFileError(f"{path} does not hold a key (amc- and 40 hex digits): remove it and a new key is made")
    if mode & 0o077:
        raise KeyFileError(f"others may read the key file {path} (mode {mode:o}): chmod 600 {path}")
    return key


class Gate:
    """Checks credentials against the key, and signs URLs; with ``key=None`` no key is asked for."""

    def __init__(self, key: str | None, signing_secret: bytes) -> None:
        self._key = key
        self._secret = signing_secret

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return self._key is None

    def admits_key(self, key: str) -> bool:
        return self._key is None or _equal(key, self._key)

    def admits_header(self, authorization: str | None) -> bool:
        """Return whether an Authorization header carries the key."""
        if self._key is None:
            return True
        scheme, _, value = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            return _equal(value.strip(), self._key)
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (ValueError, UnicodeDecodeError):
            return False
        return _equal(password, self._key) and user == "api"

    def admits_cookie(self, cookie: str | None) -> bool:
        """Return whether a browser's cookie belongs to the present key."""
        return self._key is None or (cookie is not None and _equal(cookie, self.cookie()))

    def cookie(self) -> str:
        """Return the cookie that a browser sends instead of the key."""
        return self._sign(f"session/{self._key}")

    def sign(self, action: str, *claim: int | str, now: float | None = None) -> str:
        """Return a token that allows one action on one thing for a day: ``sign("run-file", run, file name)``."""
        expires = (time.time() if now is None else now) + SIGNATURE_LIFETIME_S
        payload = _encode(json.dumps([action, *claim, round(expires)]).encode())
        return f"{payload}.{self._sign(payload)}"

    def read(self, action: str, token: str, *, now: float | None = None) -> list[Any] | None:
        """Return the claim of a token; None if it is not from this server, is for another action, or has expired."""
        payload, _, signature = token.partition(".")
        if not _equal(signature, self._sign(payload)):
            return None
        signed_action, *claim, expires = json.loads(_decode(payload))
        return claim if signed_action == action and (time.time() if now is None else now) <= expires else None

    def _sign(self, text: str) -> str:
        return _encode(hmac.new(self._secret, text.encode(), hashlib.sha256).digest())


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> Any:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
