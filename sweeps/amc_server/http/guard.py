"""Access: programs send the key, browsers a cookie that they got for it; requests from other sites are refused."""

from __future__ import annotations

import urllib.parse
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from amc_server.auth import COOKIE, COOKIE_LIFETIME_S, Gate
from amc_server.errors import Refused
from amc_server.http.messages import forwarded_scheme

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Handler = Callable[[Request], Awaitable[Response]]


def guarded(gate: Gate, handler: Handler, *, cookies: bool) -> Handler:
    """Return a handler that asks for the key. Cookies are enough only for reading: other sites send them, too."""

    async def check(request: Request) -> Response:
        _refuse_other_sites(request, gate)
        header_is_good = gate.admits_header(request.headers.get("authorization"))
        if header_is_good or (cookies and gate.admits_cookie(request.cookies.get(COOKIE))):
            return await handler(request)
        raise Refused("the key is missing or wrong: WANDB_API_KEY is the content of the server's key file", status=401)

    return check


def _refuse_other_sites(request: Request, gate: Gate) -> None:
    """Refuse requests that a page of another site makes a browser send: the browser adds the password that it has.

    The wandb client sends no Origin. A server without a key also refuses host names that somebody else points to
    127.0.0.1 (DNS rebinding): the browser then takes the other page for one of this site. Starlette's
    TrustedHostMiddleware would answer 400 and not say why.

    Raises:
        Refused: with HTTP 403.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if origin is not None and _split(origin).netloc != host:
        raise Refused("a page of another site may not ask for this", status=403)
    if gate.is_open and _split(f"//{host}").hostname not in LOOPBACK:
        raise Refused(f"without a key this server answers to {', '.join(LOOPBACK)} only, not to {host!r}", status=403)


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(url)
    except ValueError as error:  # http://[ and the like
        raise Refused(f"{url[:100]!r} is not an address", status=403) from error


def guarded_page(gate: Gate, handler: Callable[[Request], str]) -> Handler:
    """Return a handler that gives HTML to a browser that logged in, by ``?key=`` once or by the password box."""

    async def serve(request: Request) -> Response:
        _refuse_other_sites(request, gate)
        key = request.query_params.get("key")
        if key is not None and gate.admits_key(key):
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
    """Give the browser a cookie that is not the key."""
    secure = forwarded_scheme(request) == "https"
    response.set_cookie(COOKIE, gate.cookie(), httponly=True, samesite="lax", secure=secure, max_age=COOKIE_LIFETIME_S)
