"""A stand-in for another W&B server than ours: the embedded server without its extras.

Fields that W&B's schema lacks are refused as W&B refuses them. /healthz and everything outside the protocol is not
found. The key looks like any W&B key. Tests cannot reach the real cloud.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from embedded_server import EmbeddedServer

KEY = "0123456789abcdef" * 2 + "01234567"  # 40 hex digits
EXTRAS = re.compile(r"\b(stopReason|stopBand|stopValue|stopThreshold|seed shuffle|leaseRun|giveBackRun)\b")
PROTOCOL = ("/graphql", "/files/", "/storage/")


class PlainWandb:
    """A proxy in front of an embedded server; ``refused`` lists the paths and fields that W&B does not know."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._behind = urllib.parse.urlsplit(server.base_url)
        self._authorization = "Basic " + base64.b64encode(f"api:{server.key}".encode()).decode()
        self.refused: list[str] = []
        plain = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                plain._answer(self)

            do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815 - names that http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._listener.daemon_threads = True
        self._thread = threading.Thread(target=self._listener.serve_forever, daemon=True)

    @property
    def base_url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self._listener.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if not request.path.startswith(PROTOCOL):
            self.refused.append(request.path)
            _reply(request, 404, b"404 page not found")
        elif extra := EXTRAS.search(body.decode(errors="replace")):
            self.refused.append(extra[0])
            message = f'Cannot query field "{extra[0]}" on type "Run".'
            _reply(request, 400, json.dumps({"errors": [{"message": message}], "data": None}).encode())
        else:
            _reply(request, *self._ask(request, body))

    def _ask(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        # Keep the host header, so that addresses from the server lead here.
        headers = {name: value for name, value in request.headers.items() if name.lower() != "connection"}
        expected = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
        if headers.get("Authorization") == expected:
            headers["Authorization"] = self._authorization
        connection = http.client.HTTPConnection(self._behind.hostname or "", self._behind.port, timeout=60)
        try:
            connection.request(request.command, request.path, body or None, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _reply(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
