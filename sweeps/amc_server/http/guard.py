"""Who is let in: programs by the key, browsers by a cookie that they get for it, and nobody from another site."""

from __future__ import annotations

import urllib.parse
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from amc_server.auth import COOKIE, Gate
from amc_server.errors import Refused
from amc_server.http.messages import Json, forwarded_scheme

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Handler = Callable[[Request], Awaitable[Response]]


def guarded(gate: Gate, handler: Handler, *, cookies: bool) -> Handler:
    """Let only those in who have the key. Cookies do for reading alone: another site's page could send them too."""

    async def guard(request: Request) -> Response:
        _refuse_other_sites(request, gate)
        header_is_good = gate.admits_header(request.headers.get("authorization"))
        if header_is_good or (cookies and gate.admits_cookie(request.cookies.get(COOKIE))):
            return await handler(request)
        return Json(
            {
                "errors": [
                    {"message": "the key is missing or wrong: WANDB_API_KEY is the content of the server's key file"}
                ]
            },
            status_code=401,
        )

    return guard


def _refuse_other_sites(request: Request, gate: Gate) -> None:
    """Refuse what a page of another site makes a browser of ours send: a browser adds the password that it knows.

    The wandb client sends no Origin. Where no key is asked for, a name that somebody else points to 127.0.0.1 (DNS
    rebinding) must not do either: then the page would not even be of another site.

    Raises:
        Refused: with HTTP 403.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if origin is not None and urllib.parse.urlsplit(origin).netloc != host:
        raise Refused("a page of another site may not ask for this", status=403)
    if gate.is_open and urllib.parse.urlsplit(f"//{host}").hostname not in LOOPBACK:
        raise Refused(f"without a key this server answers to {', '.join(LOOPBACK)} only, not to {host!r}", status=403)


def guarded_page(gate: Gate, handler: Callable[[Request], str]) -> Handler:
    """Serve HTML to a browser that has logged in, by ``?key=`` once or by a password box."""

    async def serve(request: Request) -> Response:
        _refuse_other_sites(request, gate)
        given = request.query_params.get("key")
        if given is not None and gate.admits_key(given):
            rest = [(name, value) for name, value in request.query_params.multi_items() if name != "key"]
            query = urllib.parse.urlencode(rest)
            response: Response = RedirectResponse(request.url.path + (f"?{query}" if query else ""), status_code=303)
            _log_in(response, request, gate)
            return response
        has_cookie = gate.admits_cookie(request.cookies.get(COOKIE))
        if not (has_cookie or gate.admits_header(request.headers.get("authorization"))):
            return HTMLResponse(
                "<!doctype html><title>amc-sweep</title><p>Log in as <b>api</b> with the server's key "
                "(the content of its key file) as the password.",
                status_code=401,
                headers={"WWW-Authenticate": 'Basic realm="amc-sweep: user api, password the key", charset="UTF-8"'},
            )
        text = await run_in_threadpool(handler, request)
        response = HTMLResponse(text, headers=_PAGE_HEADERS)
        if not has_cookie:
            _log_in(response, request, gate)
        return response

    return serve


def _log_in(response: Response, request: Request, gate: Gate) -> None:
    """Let the browser be known from now on, by something that is not the key."""
    secure = forwarded_scheme(request) == "https"
    response.set_cookie(COOKIE, gate.cookie(), httponly=True, samesite="lax", secure=secure, max_age=90 * 86400)
