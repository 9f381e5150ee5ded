"""The server's connections: how many there may be, and when a silent one is closed.

uvicorn closes a connection that is silent after a reply. It waits for ever for the first request, for the rest of a
request that has begun, and for a client that does not read its reply. Such a client (an amc-analyze that was stopped by
Ctrl-Z) would keep a snapshot of the database, and the write-ahead log would grow until the disk is full.

httptools parses in C: a fifth more posts than with h11, but it bounds no header.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SILENT_S = 75  # longer than the client's pauses, so that it never posts to a closing connection
MOST_CONNECTIONS = 4096  # an agent and its trial have 7 to 12: docs/sizes.md
MOST_HEAD_BYTES = 65_536  # of a request's line and headers, and of what follows its body
OTHER_FILES = 128  # descriptors for the database, its readers and files


def most_connections() -> int:
    """Raise the number of files that this process may open, and return how many connections that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MOST_CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < target:
        soft = target if hard == resource.RLIM_INFINITY else min(hard, target)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, max(soft - OTHER_FILES, 1))


class Connection(HttpToolsProtocol):
    """Closed when its client neither sends nor reads, or when there are too many and it is silent for longest."""

    most = MOST_CONNECTIONS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._heard_s = self.loop.time()
        self._unread_bytes = 0  # received since the last part of a body or the last end of a request
        self._unsent_bytes = 0  # of replies, at the last check
        self._check = self.loop.call_later(SILENT_S, self._close_if_silent)
        if len(self.connections) > self.most:
            others = [other for other in self.connections if isinstance(other, Connection) and other.is_waiting()]
            min(others, key=lambda other: other._heard_s, default=self).transport.abort()

    def data_received(self, data: bytes) -> None:
        self._heard_s = self.loop.time()
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MOST_HEAD_BYTES:
            self.send_400_response(f"The request's headers are longer than {MOST_HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        names = {name for name, _ in self.headers}
        if self.parser.should_upgrade() and names & {b"content-length", b"transfer-encoding"}:
            # httptools takes the body for the new protocol, so an upload would be stored as an empty file.
            refusal = "A request with a body cannot ask for another protocol: leave out the header Upgrade."
            self.send_400_response(refusal)
            raise ValueError(refusal)
        super().on_headers_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: the request is answered, and uvicorn would advise to install a library for WebSockets."""

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():  # the first reason is the right one
            super().send_400_response(msg)

    def on_body(self, body: bytes) -> None:
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread_bytes = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._check.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._heard_s = self.loop.time()
        super().on_response_complete()

    def resume_writing(self) -> None:
        self._heard_s = self.loop.time()
        super().resume_writing()

    def is_waiting(self) -> bool:
        """Return whether the server waits for the client, and not the client for the server."""
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete or (cycle.more_body and not self.flow.read_paused)

    def _close_if_silent(self) -> None:
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes != self._unsent_bytes:  # the client reads
            self._unsent_bytes, self._heard_s = unsent_bytes, self.loop.time()
        silent_s = self.loop.time() - self._heard_s if unsent_bytes or self.is_waiting() else 0.0
        if silent_s >= SILENT_S:
            self.transport.abort()
        else:
            self._check = self.loop.call_later(SILENT_S - silent_s, self._close_if_silent)
