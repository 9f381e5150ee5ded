"""Access: programs send the key, browsers a cookie that they got for it; requests from other sites are refused.

A browser's cookie reads. To press a button, a page also sends a token that only this server's pages know.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from amc_server.auth import COOKIE, COOKIE_LIFETIME_S, Gate
from amc_server.errors import Refused
from amc_server.http.messages import forwarded_scheme, read_body
from amc_server.pages.templates import login_page
from amc_sweeps.number_formats import quoted

TOKEN_HEADER = "x-amc-token"
MOST_LOGIN_BYTES = 10_000
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",  # with "no-referrer" a browser hides the origin of its own forms
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
        raise Refused(
            f"without a key this server answers to {', '.join(LOOPBACK)} only, not to {quoted(host)}", status=403
        )


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(url)
    except ValueError as error:  # http://[ and the like
        raise Refused(f"{url[:100]!r} is not an address", status=403) from error


def guarded_page(gate: Gate, handler: Callable[[Request], str], state: Callable[[], str]) -> Handler:
    """Return a handler that gives HTML to a browser that logged in, by ``?key=`` once or by the login page.

    Args:
        state: a word that changes with everything that is stored; a page that asks again with the same one gets 304.
    """

    async def serve(request: Request) -> Response:
        _refuse_other_sites(request, gate)
        key = request.query_params.get("key")
        if key is not None and gate.admits_key(key):
            rest = [(name, value) for name, value in request.query_params.multi_items() if name != "key"]
            query = urllib.parse.urlencode(rest)
            response: Response = RedirectResponse(request.url.path + (f"?{query}" if query else ""), status_code=303)
            _log_in(response, request, gate.cookie())
            return response
        cookie = request.cookies.get(COOKIE)
        has_cookie = gate.admits_cookie(cookie)
        if not (has_cookie or gate.admits_header(request.headers.get("authorization"))):
            return HTMLResponse(login_page(request.url.path), status_code=401, headers=_PAGE_HEADERS)
        if not has_cookie:
            cookie = gate.cookie()
        tag = f'"{state()}"'
        headers = {**_PAGE_HEADERS, "ETag": tag, "Cache-Control": "no-store"}
        if request.headers.get("if-none-match") == tag:
            request.scope["amc_unlogged"] = True
            return Response(status_code=304, headers=headers)
        request.state.token = gate.page_token(cookie)
        text = await run_in_threadpool(handler, request)
        response = HTMLResponse(text, headers=headers)
        if not has_cookie and cookie is not None:
            _log_in(response, request, cookie)
        return response

    return serve


def login(gate: Gate) -> Handler:
    """Return the handler of the login page: it shows it, and takes the key that was typed into it."""

    async def serve(request: Request) -> Response:
        _refuse_other_sites(request, gate)
        if request.method == "GET":
            return HTMLResponse(login_page("/"), headers=_PAGE_HEADERS)
        body = await read_body(request, MOST_LOGIN_BYTES)
        form = urllib.parse.parse_qs(body.decode("utf-8", "replace"))
        target = form.get("next", ["/"])[0]
        if not target.startswith("/") or target.startswith("//") or not target.isprintable() or "\\" in target:
            target = "/"  # an address of another site
        if not gate.admits_key(form.get("key", [""])[0].strip()):
            return HTMLResponse(login_page(target, is_wrong=True), status_code=401, headers=_PAGE_HEADERS)
        response = RedirectResponse(urllib.parse.quote(target, safe="/%"), status_code=303)
        _log_in(response, request, gate.cookie())
        return response

    return serve


def guarded_change(gate: Gate, handler: Handler) -> Handler:
    """Return a handler that changes something for a page of this server: it needs its session's cookie and token.

    A page of another site makes a browser send the cookie, but cannot read the token, and cannot set the header.
    """

    async def check(request: Request) -> Response:
        _refuse_other_sites(request, gate)
        site = request.headers.get("sec-fetch-site", "same-origin")  # older browsers do not send it
        if request.headers.get("origin") is None or site != "same-origin":
            raise Refused("only a page of this server may ask for this", status=403)
        if not gate.admits_change(request.cookies.get(COOKIE), request.headers.get(TOKEN_HEADER)):
            raise Refused("this page may only read: load it again, and log in if it asks for the key", status=403)
        return await handler(request)

    return check


def _log_in(response: Response, request: Request, cookie: str) -> None:
    """Give the browser a cookie that is not the key."""
    secure = forwarded_scheme(request) == "https"
    response.set_cookie(COOKIE, cookie, httponly=True, samesite="lax", secure=secure, max_age=COOKIE_LIFETIME_S)
