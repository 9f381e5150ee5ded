"""The server's log: one JSON object a line, one line a request, in a file that is rotated at 10 MB."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestLog:
    """Writes one line a request to the log. The query string is left out: it may hold the key."""

    def __init__(self, app: ASGIApp, log: logging.Logger) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            path, seconds = scope["path"], time.perf_counter() - begin
            line = {
                "method": scope["method"],
                "path": "/storage/..." if path.startswith("/storage/") else path,
                "operation": scope.get("amc_operation"),
                "status": status,
                "ms": round(seconds * 1000, 1),
            }
            if status >= 400 or not scope.get("amc_unlogged"):
                fields = {key: value for key, value in line.items() if value is not None}
                self._log.info("request", extra={"fields": fields})


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line).replace("\x7f", "\\u007f")  # the one control character that JSON leaves


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Log to a file, which is rotated at 10 MB; five old files are kept."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=10_000_000, backupCount=5)
    handler.setFormatter(_JsonLines())
    loggers = [logging.getLogger(name) for name in ("amc_server", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
