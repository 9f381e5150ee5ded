"""Parts of requests and replies: bodies within their limits, JSON, the server's address as the client sees it, errors.

Every refusal has the same form: a JSON object with ``errors``, or a page for a browser.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from amc_server.errors import Refused
from amc_server.json_texts import read_json
from amc_server.pages.templates import message_page
from amc_server.store.storage import FilesLostError, describe_failure, is_locked

logger = logging.getLogger(__name__)


class Json(JSONResponse):
    """JSON in ASCII: a client's text may hold half a surrogate pair, which UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        """Return the text; a NaN raises ValueError."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body.

    Raises:
        Refused: the body is larger than the limit (413).
    """
    too_large = Refused(f"the body is larger than {limit:,} bytes", status=413)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and len(length) < 20 and int(length) > limit:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def read_json_body(body: bytes) -> Any:
    """Return the value that a JSON body holds.

    Raises:
        Refused: the body is not JSON, or holds text that cannot be stored.
    """
    content = read_json(body, "the body", status=400)
    try:
        if b"\\ud" in body.lower():
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Refused("the body holds half a surrogate pair, which UTF-8 cannot store", status=400) from error
    return content


def forwarded_scheme(request: Request) -> str:
    """Return http or https as the client sees it: a proxy in front of the server may end TLS."""
    return request.headers.get("x-forwarded-proto", request.url.scheme)


def base_url_of(request: Request) -> str:
    """Return the server's address as this client reaches it, perhaps through a tunnel."""
    return f"{forwarded_scheme(request)}://{request.headers.get('host', request.url.netloc)}"


async def _refused(request: Request, error: Refused) -> Response:
    status = error.status or 400
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(message_page(HTTPStatus(status).phrase, error.message), status_code=status)
    return Json({"errors": [{"message": error.message}]}, status_code=status)


async def _no_route(request: Request, error: HTTPException) -> Response:
    """Answer a request that no route takes, in the form of every other refusal."""
    target = f"{request.method[:20]} {request.url.path[:200]}"
    allowed = (error.headers or {}).get("Allow", "")
    message = f"{target} is not possible; this address takes {allowed}" if allowed else f"there is nothing at {target}"
    return await _refused(request, Refused(message, status=error.status_code))


async def _disconnected(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)


async def _storage_failed(request: Request, error: sqlite3.Error | OSError) -> Response:
    """Answer 500 or 503, so that the client sends again what was not stored."""
    logger.error("%s", describe_failure(error), exc_info=error)
    is_short = isinstance(error, sqlite3.Error) and is_locked(error)
    return await _refused(request, Refused(describe_failure(error), status=503 if is_short else 500))


async def _files_lost(request: Request, error: FilesLostError) -> Response:
    """Answer 503, so that the client keeps what was not stored and sends it again."""
    return await _refused(request, Refused(str(error), status=503))


EXCEPTION_HANDLERS: dict[Any, Any] = {
    FilesLostError: _files_lost,
    Refused: _refused,
    ClientDisconnect: _disconnected,
    HTTPException: _no_route,
    sqlite3.Error: _storage_failed,
    OSError: _storage_failed,
}
