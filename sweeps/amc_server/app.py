"""The server's doors: routes, the key, size limits, one log line a request; and the process around them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import logging
import logging.handlers
import secrets
import signal
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import uvicorn
from graphql import GraphQLError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from amc_server import bulk, graphql, search
from amc_server.auth import COOKIE, Gate, KeyFileError, read_or_make_key
from amc_server.browser import Pages
from amc_server.clients import WANDB_RANGE, is_tested, range_hint, version_of
from amc_server.clock import Clock, SystemClock
from amc_server.context import Context
from amc_server.coordinator import ENTITY, Coordinator
from amc_server.errors import Refused
from amc_server.file_stream import apply_post, read_post
from amc_server.files import Blob, Blobs
from amc_server.imports import take_in
from amc_server.metrics import CONTENT_TYPE, Metrics
from amc_server.records import Run
from amc_server.resolvers import MutationRoot, QueryRoot
from amc_server.states import Limits
from amc_server.storage import Reader, Storage, StorageError
from amc_sweeps import exchange

logger = logging.getLogger(__name__)

SERVICE = "amc-sweep"
DEFAULT_PORT = 8418
MAX_GRAPHQL_BYTES = 32 * 1024**2
MAX_POST_BYTES = 128 * 1024**2  # of a file_stream body; the client's own limit is far below
MAX_IMPORT_BYTES = 512 * 1024**2
LOOK_AROUND_S = 1.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")
GRACE_S = 5  # for requests under way when the server is told to end


class ServerError(RuntimeError):
    """The server cannot start; the message says what to do."""


@dataclass(frozen=True)
class ServerOptions:
    """How to run a server."""

    data: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT  # 0: a free one
    key_file: Path | None = None  # default: api.key in the data folder
    auth: bool = True
    tls_cert: Path | None = None  # PEM, with tls_key
    tls_key: Path | None = None
    seed: int | None = None  # makes every sweep's search reproducible
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Started:
    """What a server says of itself once it listens."""

    base_url: str
    key_file: Path | None  # None: no key is asked for
    data: Path
    instance: str


class _Server:
    """The handlers and what they share."""

    def __init__(self, storage: Storage, coordinator: Coordinator, gate: Gate, instance: str) -> None:
        self.storage = storage
        self.coordinator = coordinator
        self.gate = gate
        self.instance = instance
        self.blobs = Blobs(storage.folder / "blobs")
        self.pages = Pages(storage, gate)
        self.metrics = Metrics()
        self._untested: set[str] = set()  # versions of clients that the log has been told of

    # --- the client's doors

    async def health(self, request: Request) -> Response:
        return Json({"service": SERVICE, "instance": self.instance, "version": own_version(), "wandb": WANDB_RANGE})

    async def show_metrics(self, request: Request) -> Response:
        return PlainTextResponse(await run_in_threadpool(self._metrics_text), media_type=CONTENT_TYPE)

    def _metrics_text(self) -> str:
        with self.storage.read() as store:
            runs, sweeps = store.count_states("runs"), store.count_states("sweeps")
        return self.metrics.text(
            runs=runs,
            sweeps=sweeps,
            living_agents=self.coordinator.presence.agents_heard_within(60.0),
            resident_bytes=psutil.Process().memory_info().rss,
            database_bytes=self.storage.size(),
        )

    async def graphql(self, request: Request) -> Response:
        body = await read_body(request, MAX_GRAPHQL_BYTES)
        return await run_in_threadpool(self._graphql, body, base_url_of(request), request.scope, _user_agent(request))

    def _graphql(self, body: bytes, base_url: str, scope: Scope, user_agent: str | None) -> Response:
        self._note_version(user_agent)
        content = read_json(body)
        text = content.get("query") if isinstance(content, dict) else None
        if not isinstance(text, str):
            raise Refused('the body is a JSON object with "query"', status=400)
        variables, name = content.get("variables") or {}, content.get("operationName") or None
        if not isinstance(variables, dict) or not isinstance(name, str | None):
            raise Refused("variables is a JSON object and operationName a text", status=400)
        try:
            document, operation = graphql.prepare(text, name)
        except graphql.UnknownError as error:
            logger.warning("graphql not understood: operation %s: %s", name or operation_in(text), error)
            return graphql_errors([*error.messages, range_hint(user_agent)])
        scope["amc_operation"] = operation.name.value if operation.name else "unnamed"
        run = self._mutate if graphql.is_mutation(operation) else self._query
        return run(lambda root: graphql.execute(document, name, variables, root), base_url)

    def _note_version(self, user_agent: str | None) -> None:
        """Say once in the log that a client is outside of what was tested; most of it may work all the same."""
        version = version_of(user_agent)
        if version is not None and not is_tested(version) and version not in self._untested:
            self._untested.add(version)
            logger.warning("a client says it is wandb %s; this server is tested with %s", version, WANDB_RANGE)

    def _query(self, execute: Callable[[object], Any], base_url: str) -> Response:
        with self.storage.read() as store:
            result = execute(QueryRoot(Context(store, self.coordinator, self.gate, self.blobs, base_url)))
            return graphql_response(result)

    def _mutate(self, execute: Callable[[object], Any], base_url: str) -> Response:
        response: Response
        discarded: list[str] = []
        with contextlib.suppress(_Undo):
            with self.storage.write() as store:
                context = Context(store, self.coordinator, self.gate, self.blobs, base_url, discarded)
                result = execute(MutationRoot(context))
                response = graphql_response(result)
                if result.errors:
                    raise _Undo
            for blob in discarded:
                self.blobs.remove(blob)
        return response

    async def file_stream(self, request: Request) -> Response:
        body = await read_body(request, MAX_POST_BYTES)
        return await run_in_threadpool(self._file_stream, body, request.path_params)

    def _file_stream(self, body: bytes, path: dict[str, str]) -> Response:
        post = read_post(body)
        with self.storage.write() as store:
            reply = apply_post(store, self.coordinator, run_at(store, path), post)
        self.metrics.rows(len(post.history_rows))
        return Json(reply)

    async def upload(self, request: Request) -> Response:
        token = request.path_params["token"]
        record = self._recorder(token)
        if record is None:
            raise Refused("this upload URL is not ours or has expired: ask for another (createRunFiles)", status=403)
        blob = await self.blobs.receive(request.stream())
        try:
            discarded = await run_in_threadpool(record, blob)
        except BaseException:
            self.blobs.remove(blob.name)
            raise
        if discarded is not None:
            self.blobs.remove(discarded)
        return Response(status_code=200)

    def _recorder(self, token: str) -> Callable[[Blob], str | None] | None:
        """Return what records the bytes that a token allows: it takes them and returns the blob that is now nobody's.

        None for a token that allows nothing.
        """
        if allowed := self.gate.read_upload(token):
            return functools.partial(self._record_file, *allowed)
        if claim := self.gate.read("artifact-file", token):
            return functools.partial(self._record_artifact_file, *claim)
        if claim := self.gate.read("manifest", token):
            return functools.partial(self._record_manifest, *claim)
        return None

    def _record_file(self, run: int, name: str, blob: Blob) -> str | None:
        with self.storage.write() as store:
            if store.run_by_key(run) is None:
                return blob.name
            before = store.file(run, name)
            now = self.coordinator.clock.wall()
            store.put_file(run, name=name, blob=blob.name, size=blob.size, md5=blob.md5, updated_at=now)
            return before.blob if before else None

    def _record_artifact_file(self, pk: int, blob: Blob) -> str | None:
        with self.storage.write() as store:
            file = store.artifact_file(pk)
            artifact = store.artifact(file.artifact) if file else None
            if file is None or artifact is None or artifact.is_committed:
                return blob.name  # sent again after the commit, or deleted meanwhile
            if file.md5 and blob.md5 != file.md5:
                raise Refused(f"{file.name} was announced with MD5 {file.md5} and arrived with {blob.md5}", status=400)
            now = self.coordinator.clock.wall()
            store.update("artifact_files", pk, blob=blob.name, size=blob.size, md5=blob.md5, updated_at=now)
            return file.blob

    def _record_manifest(self, pk: int, blob: Blob) -> str | None:
        with self.storage.write() as store:
            artifact = store.artifact(pk)
            if artifact is None or artifact.is_committed:
                return blob.name
            store.update("artifacts", pk, manifest=blob.name, updated_at=self.coordinator.clock.wall())
            return artifact.manifest

    async def signed_download(self, request: Request) -> Response:
        """Give the bytes that a signed URL names; the client fetches artifacts without the key."""
        claim = self.gate.read("blob", request.path_params["token"])
        if claim is None:
            raise Refused("this download URL is not ours or has expired: ask for another", status=403)
        path = self.blobs.path(claim[0])
        if not path.is_file():
            raise Refused("the file has been deleted", status=404)
        return FileResponse(path, filename=claim[1].rsplit("/", 1)[-1], headers={"X-Content-Type-Options": "nosniff"})

    async def download(self, request: Request) -> Response:
        def find() -> tuple[Path, str]:
            with self.storage.read() as store:
                run = run_at(store, request.path_params)
                file = store.file(run.pk, request.path_params["name"])
            if file is None:
                raise Refused(f"the run has no file {request.path_params['name'][:200]!r}", status=404)
            return self.blobs.path(file.blob), file.name.rsplit("/", 1)[-1]

        path, name = await run_in_threadpool(find)
        # As an attachment: a file that a trial wrote is never shown as a page of ours.
        return FileResponse(path, filename=name, headers={"X-Content-Type-Options": "nosniff"})

    async def take_in(self, request: Request) -> Response:
        body = await read_body(request, MAX_IMPORT_BYTES)
        return await run_in_threadpool(self._take_in, body)

    def _take_in(self, body: bytes) -> Response:
        try:
            export = exchange.read(body.decode())
        except (UnicodeDecodeError, exchange.ExchangeError) as error:
            raise Refused(f"this is no export: {error}", status=400) from error
        with self.storage.write() as store:
            counts = take_in(store, self.coordinator, export)
        return Json(counts)

    async def bulk(self, request: Request) -> Response:
        wanted = bulk.read_request(read_json(await read_body(request, MAX_GRAPHQL_BYTES)))
        return StreamingResponse(bulk.reply(self.storage, wanted), media_type=bulk.CONTENT_TYPE)

    async def no_telemetry(self, request: Request) -> Response:
        return Json({"error": "telemetry is not collected here"}, status_code=404)

    # --- what nobody asks for

    async def look_around_for_ever(self) -> None:
        """Conclude from silence, once a second."""
        while True:
            await asyncio.sleep(LOOK_AROUND_S)
            try:
                await run_in_threadpool(self.look_around)
            except Exception:
                logger.exception("looking around failed; it is tried again")

    def look_around(self) -> None:
        """Record what follows from silence; the writer is only taken when something does."""
        with self.storage.read() as reader:
            if not self.coordinator.has_something_to_conclude(reader):
                return
        with self.storage.write() as store:
            self.coordinator.look_around(store)


class _Undo(Exception):  # noqa: N818
    """Undoes a transaction whose reply is an error."""


def create_app(
    storage: Storage,
    *,
    key: str | None,
    clock: Clock | None = None,
    limits: Limits | None = None,
    seed: int | None = None,
    instance: str | None = None,
) -> Starlette:
    """Return the server as an ASGI application over an open data folder.

    Args:
        key: None lets everybody in.
        instance: tells this server from others at the same address.
    """
    coordinator = Coordinator(clock or SystemClock(), limits=limits, seed=seed)
    server = _Server(storage, coordinator, Gate(key, signing_secret(storage)), instance or secrets.token_hex(16))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(server.look_around_for_ever())
        threading.Thread(target=search.warm_up, name="load-optuna", daemon=True).start()
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    run_path = "/files/{entity}/{project}/{run}"
    key_only = functools.partial(_guarded, server.gate, cookies=False)
    either = functools.partial(_guarded, server.gate, cookies=True)
    page = functools.partial(_page, server.gate)
    pages = server.pages
    app = Starlette(
        routes=[
            Route("/healthz", server.health),
            Route("/metrics", either(server.show_metrics)),
            Route("/graphql", key_only(server.graphql), methods=["POST"]),
            Route(f"{run_path}/file_stream", key_only(server.file_stream), methods=["POST"]),
            Route("/import", key_only(server.take_in), methods=["POST"]),
            Route("/bulk", key_only(server.bulk), methods=["POST"]),
            Route("/storage/{token}", server.upload, methods=["PUT"]),
            Route("/storage/{token}", server.signed_download, methods=["GET"]),
            Route(run_path + "/{name:path}", either(server.download), methods=["GET"]),
            Route("/sdk/otel/v1/{signal}", server.no_telemetry, methods=["POST"]),
            Route("/", page(pages.projects)),
            Route("/authorize", page(pages.projects)),
            Route("/{entity}/{project}", page(pages.project)),
            Route("/{entity}/{project}/workspace", page(pages.project)),
            Route("/{entity}/{project}/sweeps/{sweep}", page(pages.sweep)),
            Route("/{entity}/{project}/runs/{run}", page(pages.run)),
        ],
        exception_handlers=_HANDLERS,
        lifespan=lifespan,
    )
    app.state.metrics = server.metrics
    app.state.look_around = server.look_around  # for a test, whose clock does not tick by itself
    return app


class Json(JSONResponse):
    """JSON in plain ASCII: what a client sent may hold half a surrogate pair, which UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        """Return the text; a NaN that should have been taken care of raises ValueError."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


# --- at the door ----------------------------------------------------------------------------------------------------

Handler = Callable[[Request], Awaitable[Response]]


def _guarded(gate: Gate, handler: Handler, *, cookies: bool) -> Handler:
    """Let only those in who have the key. Cookies do for reading alone: another site's page could send them too."""

    async def guard(request: Request) -> Response:
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


def _page(gate: Gate, handler: Callable[[Request], str]) -> Handler:
    """Serve HTML to a browser that has logged in, by ``?key=`` once or by a password box."""

    async def serve(request: Request) -> Response:
        given = request.query_params.get("key")
        if given is not None and gate.admits_key(given):
            rest = [(name, value) for name, value in request.query_params.multi_items() if name != "key"]
            query = urllib.parse.urlencode(rest)
            response: Response = RedirectResponse(request.url.path + (f"?{query}" if query else ""), status_code=303)
            secure = forwarded_scheme(request) == "https"
            response.set_cookie(COOKIE, gate.cookie(), httponly=True, samesite="lax", secure=secure, max_age=90 * 86400)
            return response
        if not (
            gate.admits_header(request.headers.get("authorization")) or gate.admits_cookie(request.cookies.get(COOKIE))
        ):
            return HTMLResponse(
                "<!doctype html><title>amc-sweep</title><p>Log in as <b>api</b> with the server's key "
                "(the content of its key file) as the password.",
                status_code=401,
                headers={"WWW-Authenticate": 'Basic realm="amc-sweep: user api, password the key", charset="UTF-8"'},
            )
        text = await run_in_threadpool(handler, request)
        return HTMLResponse(text, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})

    return serve


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


_HANDLERS: dict[Any, Any] = {Refused: _refused, ClientDisconnect: _disconnected, HTTPException: _nothing_there}


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


def _user_agent(request: Request) -> str | None:
    return request.headers.get("user-agent")


def forwarded_scheme(request: Request) -> str:
    """Return http or https as the client sees it, TLS may end in front of us."""
    return request.headers.get("x-forwarded-proto", request.url.scheme)


def base_url_of(request: Request) -> str:
    """Return the server's address as this client reaches it, through a tunnel perhaps."""
    return f"{forwarded_scheme(request)}://{request.headers.get('host', request.url.netloc)}"


def run_at(store: Reader, path: dict[str, str]) -> Run:
    """Return the run that a path names.

    Raises:
        Refused: when there is none (404).
    """
    project = store.project(ENTITY, path["project"]) if path["entity"] == ENTITY else None
    run = store.run(project.pk, path["run"]) if project else None
    if run is None:
        raise Refused(f"there is no run {path['entity']}/{path['project']}/{path['run']}", status=404)
    return run


def graphql_response(result: Any) -> Response:
    """Return the reply to an executed document; a refusal may bring its own status."""
    if not result.errors:
        return Json({"data": result.data})
    messages, status = [], 200
    for error in result.errors:
        cause = error.original_error
        if isinstance(cause, Refused):
            messages.append(cause.message)
            status = cause.status or status
        else:
            if cause is not None and not isinstance(cause, GraphQLError):  # its own are about the variables
                logger.error("a resolver failed at %s", error.path, exc_info=cause)
            messages.append(error.message)
    return graphql_errors(messages, status)


def graphql_errors(messages: list[str], status: int = 200) -> Response:
    """Return a GraphQL reply that holds nothing but errors."""
    return Json({"data": None, "errors": [{"message": message} for message in messages]}, status_code=status)


def operation_in(text: str) -> str:
    """Return the first words of a document that could not be understood."""
    return " ".join(text.split())[:80]


def own_version() -> str:
    """Return the version of this package."""
    try:
        return version("amc-sweep-toolkit")
    except PackageNotFoundError:
        return "unknown"


def signing_secret(storage: Storage) -> bytes:
    """Return what upload URLs are signed with; it outlives restarts, so that URLs do."""
    with storage.write() as store:
        found = store.meta("signing_secret")
        if found is None:
            found = secrets.token_hex(32)
            store.set_meta("signing_secret", found)
    return bytes.fromhex(found)


class RequestLog:
    """Writes one JSON line a request to the server's log. The query string is left out: it may hold the key."""

    def __init__(self, app: ASGIApp, log: logging.Logger, metrics: Metrics) -> None:
        self._app = app
        self._log = log
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            path, seconds = scope["path"], time.perf_counter() - begin
            self._metrics.request(path, scope.get("amc_operation") if status == 200 else None, status, seconds)
            line = {
                "method": scope["method"],
                "path": "/storage/..." if path.startswith("/storage/") else path,
                "operation": scope.get("amc_operation"),
                "status": status,
                "ms": round(seconds * 1000, 1),
            }
            self._log.info(
                "request", extra={"fields": {key: value for key, value in line.items() if value is not None}}
            )


# --- the process ----------------------------------------------------------------------------------------------------


def run(options: ServerOptions, announce: Callable[[Started], None], ended: Callable[[Started], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        announce: called once the server listens.
        ended: called when it no longer does.

    Raises:
        ServerError: when it cannot start.
    """
    if not options.auth and options.host not in LOOPBACK:
        raise ServerError(
            f"--no-auth would let anybody on the network in who reaches {options.host}: it is for 127.0.0.1 only. "
            "Leave it out; the key is in the key file."
        )
    _check_tls(options)
    try:
        storage = Storage(options.data)
    except StorageError as error:
        raise ServerError(str(error)) from error
    with contextlib.closing(storage):
        key_file = (options.key_file or options.data / "api.key").absolute() if options.auth else None
        try:
            key = read_or_make_key(key_file) if key_file else None
        except KeyFileError as error:
            raise ServerError(str(error)) from error
        listener = _listen(options.host, options.port)
        with contextlib.closing(listener), _log_to(options.data / "server.log"):
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            scheme = "https" if options.tls_cert else "http"
            started = Started(f"{scheme}://{shown}:{port}", key_file, options.data.absolute(), secrets.token_hex(16))
            app = create_app(storage, key=key, limits=options.limits, seed=options.seed, instance=started.instance)
            announce(started)
            try:
                logged = RequestLog(app, logging.getLogger("amc_server.requests"), app.state.metrics)
                _serve(logged, listener, options)
            finally:
                ended(started)


def _check_tls(options: ServerOptions) -> None:
    """Find faults of certificate and key before anything is begun.

    Raises:
        ServerError: when one is missing, cannot be read, or does not belong to the other.
    """
    if options.tls_cert is None and options.tls_key is None:
        return
    if options.tls_cert is None or options.tls_key is None:
        raise ServerError("--tls-cert and --tls-key belong together: give the certificate and its private key, in PEM")
    try:
        # No password prompt: a server in the background has nobody to ask.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ServerError(
            f"TLS cannot be set up with {options.tls_cert} and {options.tls_key} ({error}): "
            "give a PEM certificate and its private key without a password"
        ) from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # IPPROTO_TCP is spelled out because asyncio turns Nagle's algorithm off only where it reads that: otherwise every
    # reply on a kept connection waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A server that is started again at once takes its old port back although connections to it linger.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ServerError(
                f"port {port} on {host} is in use, perhaps by another amc-sweep serve. "
                "Stop that one, or choose another with --port (0: any free one)."
            ) from error
        raise ServerError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


def _serve(app: ASGIApp, listener: socket.socket, options: ServerOptions) -> None:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,  # longer than the client's pauses, so that it never posts to a closing connection
        timeout_graceful_shutdown=GRACE_S,
        lifespan="on",
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    _Uvicorn(config).run(sockets=[listener])


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End in peace on SIGTERM and SIGINT; uvicorn's own way ends by the signal, and its caller with it."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.should_exit = True

        previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


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
        return json.dumps(line)


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Log to a file, 10 MB at a time, the last five kept."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=10_000_000, backupCount=5)
    handler.setFormatter(_JsonLines())
    loggers = [logging.getLogger(name) for name in ("amc_server", "uvicorn.error")]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.INFO)
        each.propagate = False
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)
        handler.close()
