"""Who may come in: one key, made at the first start, sent as W&B's clients send theirs.

The wandb client sends ``Authorization: Basic base64("api:" + key)`` with everything but file uploads and the downloads
of artifacts, whose URLs are signed instead. A browser logs in once with the key and then carries a cookie that is not
the key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

KEY_FORM = re.compile(r"amc-[0-9a-f]{40}")
COOKIE = "amc_session"
SIGNATURE_LIFETIME_S = 24 * 3600.0  # W&B's own signed URLs last a day


class KeyFileError(RuntimeError):
    """The key file cannot be used; the message says what to do."""


def read_or_make_key(path: Path) -> str:
    """Return the key in the file, making one (0600) where there is none.

    Raises:
        KeyFileError: when it cannot be read or written, others may read it, or what it holds is no key.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    except OSError as error:
        raise KeyFileError(
            f"the key file {path} cannot be written ({error.strerror}): name another by --key-file"
        ) from error
    key = f"amc-{secrets.token_hex(20)}"
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{key}\n")
        file.flush()
        os.fsync(file.fileno())
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
    """Checks credentials against the one key; ``key=None`` lets everybody in."""

    def __init__(self, key: str | None, signing_secret: bytes) -> None:
        self._key = key
        self._secret = signing_secret

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return self._key is None

    def admits_key(self, key: str) -> bool:
        """Return whether this is the key."""
        return self._key is None or _same(key, self._key)

    def admits_header(self, authorization: str | None) -> bool:
        """Return whether an Authorization header carries the key."""
        if self._key is None:
            return True
        scheme, _, value = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(value.strip(), self._key)
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (ValueError, UnicodeDecodeError):
            return False
        return _same(password, self._key) and user == "api"

    def admits_cookie(self, cookie: str | None) -> bool:
        """Return whether a browser's cookie was given out for the present key."""
        return self._key is None or (cookie is not None and _same(cookie, self.cookie()))

    def cookie(self) -> str:
        """Return what a browser carries instead of the key."""
        return self._sign(f"session/{self._key}")

    def sign_upload(self, *, run: int, name: str, now: float | None = None) -> str:
        """Return a token that allows one file of one run to be uploaded for a day."""
        return self.sign("run-file", run, name, now=now)

    def read_upload(self, token: str, *, now: float | None = None) -> tuple[int, str] | None:
        """Return (run, file name) of a token that is ours and has not expired."""
        claim = self.read("run-file", token, now=now)
        return None if claim is None else (claim[0], claim[1])

    def sign(self, what: str, *claim: int | str, now: float | None = None) -> str:
        """Return a token that allows one thing, and no other, for a day."""
        expires = (time.time() if now is None else now) + SIGNATURE_LIFETIME_S
        payload = _encode(json.dumps([what, *claim, round(expires)]).encode())
        return f"{payload}.{self._sign(payload)}"

    def read(self, what: str, token: str, *, now: float | None = None) -> list[Any] | None:
        """Return what a token claims, if it is ours, for this very thing, and has not expired."""
        payload, _, signature = token.partition(".")
        if not _same(signature, self._sign(payload)):
            return None
        found, *claim, expires = json.loads(_decode(payload))
        return claim if found == what and (time.time() if now is None else now) <= expires else None

    def _sign(self, text: str) -> str:
        return _encode(hmac.new(self._secret, text.encode(), hashlib.sha256).digest())


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> Any:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
