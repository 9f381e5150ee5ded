"""Messages to a webhook, for people who do not watch a terminal.

A message is a JSON object, posted to a URL. Slack, Mattermost, Rocket.Chat and Google Chat show its ``text``; a script
finds ``event``, ``sweep`` and more facts in it. Nothing waits for the webhook, and its failure stops nothing.
"""

from __future__ import annotations

import http.client
import json
import queue
import shutil
import threading
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import click

from amc_sweeps.backend.addresses import split_address

TIMEOUT_S = 10.0
TRIES_AFTER_S = (0.0, 2.0, 10.0)
LAST_MESSAGES_S = 15.0  # for the messages of the end
BEST_EVERY_S = 900.0  # a good run improves at nearly every epoch
LEAST_FREE_BYTES = 5 * 2**30
_ENOUGH_FREE_BYTES = 2 * LEAST_FREE_BYTES  # before the next shortage is a new one


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: the library would ask for the new address without the message."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


class Notifier:
    """Posts messages in a thread of its own, in order."""

    def __init__(self, url: str, sweep: str) -> None:
        self._url, self._sweep = url, sweep
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="notifier", daemon=True)
        self._thread.start()

    def send(self, event: str, text: str, **facts: object) -> None:
        """Queue a message."""
        self._messages.put({"text": f"{self._sweep}: {text}", "event": event, "sweep": self._sweep, **facts})

    def close(self) -> None:
        """Wait for the messages that are queued, but not for long."""
        self._is_ending.set()
        self._messages.put(None)
        self._thread.join(LAST_MESSAGES_S)

    def _work(self) -> None:
        while (message := self._messages.get()) is not None:
            for pause_s in TRIES_AFTER_S:
                error = self._post(message, pause_s)
                if error is None:
                    break
            else:
                # The URL is a secret: whoever has it can post.
                host = urllib.parse.urlsplit(self._url).hostname
                click.echo(f"the webhook at {host} did not take a message: {error}", err=True)

    def _post(self, message: dict[str, Any], pause_s: float) -> str | None:
        """Post a message after a pause; return the error, or None."""
        self._is_ending.wait(pause_s)
        body = json.dumps(message).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with _OPENER.open(request, timeout=TIMEOUT_S):
                return None
        except (OSError, http.client.HTTPException, ValueError) as error:
            return str(error) or type(error).__name__


class BestSoFar:
    """Tells of a new best value, at most every 15 minutes; the best one is never left out, only late."""

    def __init__(self, *, minimise: bool) -> None:
        self._sign = -1.0 if minimise else 1.0
        self.value: float | None = None
        self._told: float | None = None
        self._told_s: float | None = None

    def update(self, value: float | None, now_s: float) -> float | None:
        """Take a value; return the best one if it is new and its time has come."""
        if value is not None and (self.value is None or self._sign * value > self._sign * self.value):
            self.value = value
        if self.value == self._told or (self._told_s is not None and now_s - self._told_s < BEST_EVERY_S):
            return None
        self._told, self._told_s = self.value, now_s
        return self.value


class FreeSpace:
    """Tells once that a disk runs full, and again after it had room in between."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_low = False

    def shortage(self) -> int | None:
        """Return the free bytes if the disk has become full."""
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError:  # somebody has removed the folder
            return None
        was_low = self._is_low
        self._is_low = free < (_ENOUGH_FREE_BYTES if was_low else LEAST_FREE_BYTES)
        return free if self._is_low and not was_low else None


def _check_url(_context: click.Context, _option: click.Parameter, url: str | None) -> str | None:
    if url is not None:
        parts = split_address(url)
        if parts is None or parts.username is not None:  # the URL is a secret, so it is not repeated
            raise click.BadParameter("give the http or https address of a webhook, without a user's name")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise click.BadParameter("write blanks and characters besides ASCII in the address percent-encoded")
    return url


notify_option = click.option(
    "--notify",
    "notify_url",
    metavar="URL",
    envvar="AMC_NOTIFY_URL",
    show_envvar=True,
    callback=_check_url,
    help="Post a JSON message with `text` to this webhook when something happens that a person should know.",
)
