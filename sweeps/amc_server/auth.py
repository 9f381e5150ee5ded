"""Access by one key, made at the first start and sent as W&B's clients send theirs.

The wandb client sends ``Authorization: Basic base64("api:" + key)`` with every request except uploads of files and
downloads of artifacts; their URLs are signed. A browser logs in once with the key and then sends a cookie that is not
the key and can only read. To change something, a page must also send the token that the server wrote into it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Any

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer

from amc_core.files import write_whole

KEY_FORM = re.compile(r"amc-[0-9a-f]{40}")
COOKIE = "amc_session"
COOKIE_LIFETIME_S = 90 * 86400
SIGNATURE_LIFETIME_S = 24 * 3600  # W&B's own signed URLs last a day


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
        """Return whether a browser's cookie belongs to the present key and is not too old."""
        return self._key is None or self._read(self._session(), cookie or "", COOKIE_LIFETIME_S) is not None

    def cookie(self) -> str:
        """Return the cookie of a new session, which a browser sends instead of the key."""
        return str(self._signer(self._session()).dumps([secrets.token_hex(16)]))

    def page_token(self, cookie: str | None) -> str:
        """Return the token that a page of this session needs to change anything; empty for one that may only read.

        A browser sends the cookie with every request, whichever page made it. It gives the token to pages of this
        server alone.
        """
        session = self._session_id(cookie)
        return "" if session is None else str(self._signer(self._buttons()).dumps([session]))

    def admits_change(self, cookie: str | None, token: str | None) -> bool:
        """Return whether a page's token belongs to the session of the browser that sends it."""
        session = self._session_id(cookie)
        return session is not None and self._read(self._buttons(), token or "", COOKIE_LIFETIME_S) == [session]

    def _session_id(self, cookie: str | None) -> str | None:
        """Return the id in a cookie; cookies of older servers have none. Without a key all browsers share one."""
        if self._key is None:
            return ""
        claim = self._read(self._session(), cookie or "", COOKIE_LIFETIME_S)
        return claim[0] if claim and isinstance(claim[0], str) else None

    def _session(self) -> str:
        return f"session/{self._key}"  # a new key ends every session

    def _buttons(self) -> str:
        return f"buttons/{self._key}"

    def sign(self, action: str, *claim: int | str) -> str:
        """Return a token that allows one action on one thing for a day: ``sign("run-file", run, file name)``."""
        return str(self._signer(action).dumps(claim))

    def read(self, action: str, token: str) -> list[Any] | None:
        """Return the claim of a token; None if it is not from this server, is for another action, or has expired."""
        return self._read(action, token, SIGNATURE_LIFETIME_S)

    def _read(self, purpose: str, token: str, lifetime_s: int) -> list[Any] | None:
        try:
            claim, signed_at = self._signer(purpose).loads(token, return_timestamp=True)
        except (BadData, UnicodeEncodeError):
            return None
        # max_age of loads would also refuse a token from the future: NTP may have set the clock back since.
        age_s = TimestampSigner(self._secret).get_timestamp() - signed_at.timestamp()
        return list(claim) if age_s <= lifetime_s else None

    def _signer(self, purpose: str) -> URLSafeTimedSerializer:
        """Return the signer for one purpose: its salt keeps a token from being used for another."""
        return URLSafeTimedSerializer(
            self._secret, salt=f"amc-sweep/{purpose}", signer_kwargs={"digest_method": hashlib.sha256}
        )


def _equal(text: str, expected: str) -> bool:
    return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), expected.encode())
