"""What requests bring and what is answered: bodies within their limits, JSON, the client's view of our address, errors.

Every refusal has the same form, a JSON object with ``errors``, or a page where a browser asked.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from amc_server.errors import Refused
from amc_server.pages.browser import Pages


class Json(JSONResponse):
    """JSON in plain ASCII: what a client sent may hold half a surrogate pair, which UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        """Return the text; a NaN that should have been taken care of raises ValueError."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body.

    Raises:
        Refused: when it is larger than the limit (413).
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Refused(f"the body is larger than {limit} bytes", status=413)
        chunks.append(chunk)
    return b"".join(chunks)


def read_json(body: bytes) -> Any:
    """Return what a JSON body holds.

    Raises:
        Refused: when it is no JSON, or holds text that cannot be stored.
    """
    try:
        content = json.loads(body)
        if b"\\ud" in body.lower():
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Refused("the body holds half a surrogate pair, which is no text", status=400) from error
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON: {error}", status=400) from error
    return content


def forwarded_scheme(request: Request) -> str:
    """Return http or https as the client sees it, TLS may end in front of us."""
    return request.headers.get("x-forwarded-proto", request.url.scheme)


def base_url_of(request: Request) -> str:
    """Return the server's address as this client reaches it, through a tunnel perhaps."""
    return f"{forwarded_scheme(request)}://{request.headers.get('host', request.url.netloc)}"


async def _refused(request: Request, error: Refused) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(
            Pages.message(error.message.encode("utf-8", "replace").decode()), status_code=error.status or 400
        )
    return Json({"errors": [{"message": error.message}]}, status_code=error.status or 400)


async def _nothing_there(request: Request, error: HTTPException) -> Response:
    """Answer what no route takes, in the words of every other refusal."""
    where = f"{request.method[:20]} {request.url.path[:200]}"
    allowed = (error.headers or {}).get("Allow", "")
    message = f"{where} is not possible here, {allowed} is" if allowed else f"there is nothing at {where}"
    return await _refused(request, Refused(message, status=error.status_code))


async def _disconnected(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)


EXCEPTION_HANDLERS: dict[Any, Any] = {Refused: _refused, ClientDisconnect: _disconnected, HTTPException: _nothing_there}
