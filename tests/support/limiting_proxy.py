"""An HTTP proxy: it answers with 429 and Retry-After, as W&B's cloud does, or 5xx, loses a reply, or shortens it."""

from __future__ import annotations

import http.server
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from types import TracebackType
from typing import Self


class LimitingProxy:
    """Forwards requests, but refuses one once, or ``always``, with a ``status`` if ``refuses(path, body)`` is true.

    With ``loses_replies`` it forwards such a request, too, and cuts the connection instead of answering.
    ``changes_reply`` gets the path, the body and the reply of a request that is passed, and returns what is answered.

    ``refused`` and ``passed`` have (time, path, body) of both, by the monotonic clock.
    """

    def __init__(
        self,
        target: str,
        refuses: Callable[[str, bytes], bool],
        retry_after: str = "1",
        *,
        status: int = 429,
        always: bool = False,
        loses_replies: bool = False,
        changes_reply: Callable[[str, bytes, bytes], bytes] = lambda _path, _body, reply: reply,
    ) -> None:
        proxy = self
        self.refused: list[tuple[float, str, bytes]] = []
        self.passed: list[tuple[float, str, bytes]] = []
        seen: set[tuple[str, bytes]] = set()
        lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    first = refuses(self.path, body) and (always or (self.path, body) not in seen)
                    seen.add((self.path, body))
                if first:
                    proxy.refused.append((time.monotonic(), self.path, body))
                    if loses_replies:
                        self._pass(body, is_lost=True)
                        return
                    self._answer(status, b'{"error": "rate limit exceeded"}', {"Retry-After": retry_after})
                    return
                proxy.passed.append((time.monotonic(), self.path, body))
                self._pass(body)

            do_GET = do_PUT = do_HEAD = do_POST  # noqa: N815 - names that http.server looks for

            def _pass(self, body: bytes, *, is_lost: bool = False) -> None:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
                request = urllib.request.Request(f"{target}{self.path}", body or None, headers, method=self.command)
                try:
                    with urllib.request.urlopen(request, timeout=60) as reply:
                        if is_lost:
                            self.connection.shutdown(socket.SHUT_RDWR)
                            self.close_connection = True
                            return
                        answer = changes_reply(self.path, body, reply.read())
                        self._answer(reply.status, answer, {"Content-Type": reply.headers["Content-Type"]})
                except urllib.error.HTTPError as error:
                    with error:
                        self._answer(error.code, error.read(), {})

            def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def waits_s(self) -> list[float]:
        """Return for each refused request how long after its refusal the client sent it again."""
        return [
            min(at for at, *request in self.passed if request == [path, body] and at > refused_at) - refused_at
            for refused_at, path, body in self.refused
        ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


_OWN = {"content-length", "connection"}  # the host header is kept, so that addresses from the server lead here
