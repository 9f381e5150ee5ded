"""How long a request waits for a server that is busy or limits requests, and what the user is told meanwhile.

W&B's cloud answers 429 to those who ask too often, with a ``Retry-After``. It counts by the minute, so three minutes
are enough for whoever is not alone.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator, MutableMapping
from email.utils import parsedate_to_datetime

from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.stderr import say
from amc_sweeps.number_formats import duration

PATIENCE_S = 180.0  # for one request with all its repetitions
FIRST_WORD_S = 10.0  # of silence, before the user is told; the next word comes after twice as long
FIRST_WAIT_S, LEAST_WAIT_S, LONGEST_WAIT_S = 1.0, 0.1, 60.0
TOO_MANY = 429
BUSY = frozenset({TOO_MANY, 502, 503, 504})  # status codes after which a request is sent again


class GaveUpError(BackendError):
    """A server has refused a request as too many, or as too busy, for as long as we wait."""


def wait_s(retry_after: str | None, attempt: int, now: float) -> float:
    """Return the wait before the next try, in seconds.

    Args:
        retry_after: the header of that name: seconds, or a date (RFC 9110, 10.2.3). Without it, the wait doubles with
            every attempt, up to LONGEST_WAIT_S.
        attempt: how many earlier tries were refused.
        now: Unix time.
    """
    doubling = float(min(FIRST_WAIT_S * 2.0**attempt, LONGEST_WAIT_S))
    if retry_after is None:
        return doubling
    try:
        if retry_after.strip().isdecimal():
            return float(retry_after)
        return max(float(parsedate_to_datetime(retry_after).timestamp()) - now, 0.0)
    except ValueError:
        return doubling


def open_patiently(
    request: urllib.request.Request,
    *,
    timeout_s: float,
    busy: Collection[int] = BUSY,
    sleep: Callable[[float], None] = time.sleep,
    tell: Callable[[str], None] = say,
) -> http.client.HTTPResponse:
    """Return the reply to a request, which is sent again while the server is busy or limits requests.

    Args:
        request: the request.
        timeout_s: without a byte from the server.
        busy: the status codes after which it is sent again.
        sleep: waits.
        tell: tells the user of each wait.

    Raises:
        GaveUpError: the server refused it as too many or too busy, and would so for longer than PATIENCE_S.
        urllib.error.HTTPError: the server refused it for another reason.
        OSError: the server does not answer.
    """
    parts = urllib.parse.urlsplit(request.full_url)
    server, waited_s = f"{parts.scheme}://{parts.netloc}", 0.0
    for attempt in itertools.count():
        try:
            reply: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            if error.code not in busy:
                raise
            with error:
                retry_after = error.headers.get("Retry-After")
                said = " ".join(error.read(300).decode(errors="replace").split())
            pause_s = max(wait_s(retry_after, attempt, time.time()), LEAST_WAIT_S)
            what = "limits requests" if error.code == TOO_MANY else "is busy"
            if waited_s + pause_s > PATIENCE_S:
                raise GaveUpError(
                    f"{server} {what} (HTTP {error.code}), and asks to wait {duration(pause_s)} more. Gave up after "
                    f"{duration(waited_s)}, because {duration(PATIENCE_S)} is the longest wait. Repeat this later"
                    + (f". The server said: {said}" if said else "")
                ) from error
            tell(f"{server} {what} (HTTP {error.code}): waiting {duration(pause_s)}")
            sleep(pause_s)
            waited_s += pause_s
        else:
            return reply
    raise AssertionError("itertools.count() has no end")


def be_patient(environ: MutableMapping[str, str]) -> None:
    """Make the wandb client wait for PATIENCE_S instead of 10 or 19 s; where it was imported already, it may not.

    Commands give their own client its timeout. This is for what the client makes by
    itself, in agents and in trials.
    """
    environ.setdefault("WANDB_HTTP_TIMEOUT", str(int(PATIENCE_S)))


class Silence:
    """Tells the user that a server is silent, while requests of the wandb client wait: the client itself says nothing.

    Requests may be open in several threads. An answer to any of them ends the silence.
    """

    def __init__(self, base_url: str, tell: Callable[[str], None] = say) -> None:
        self._base_url, self._tell = base_url, tell
        self._lock = threading.Lock()
        self._open = 0
        self._since = 0.0  # when the last answer came, or the first request went out
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Be around one request."""
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._since = time.monotonic()
                self._arm(FIRST_WORD_S, FIRST_WORD_S)
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                self._since = time.monotonic()
                if self._open == 0 and self._timer is not None:
                    self._timer.cancel()

    def _arm(self, pause_s: float, word_s: float) -> None:
        self._timer = threading.Timer(pause_s, self._look, (word_s,))
        self._timer.daemon = True
        self._timer.start()

    def _look(self, word_s: float) -> None:
        """Tell if the silence has lasted for ``word_s``; look again when it may have."""
        with self._lock:
            if self._open == 0:
                return
            silent_s = time.monotonic() - self._since
            if silent_s < word_s:  # an answer came in between
                word_s = FIRST_WORD_S if silent_s < FIRST_WORD_S else word_s
                self._arm(word_s - silent_s, word_s)
                return
            self._arm(word_s, 2 * word_s)
        self._tell(
            f"no answer from {self._base_url} for {duration(silent_s)}: it may be busy, or limit requests (HTTP 429). "
            f"The request is repeated for up to {duration(PATIENCE_S)}; Ctrl-C ends the wait"
        )
