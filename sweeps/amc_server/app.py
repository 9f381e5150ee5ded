"""The application: the routes, what their handlers share, and what the server does between requests."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import secrets
from collections.abc import AsyncIterator, Generator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from amc_server.auth import Gate
from amc_server.clients import WANDB_RANGE
from amc_server.clock import Clock, SystemClock
from amc_server.errors import Refused
from amc_server.graphql.context import Context
from amc_server.graphql.endpoint import MAX_GRAPHQL_BYTES, GraphqlEndpoint
from amc_server.graphql.mutations import MutationRoot
from amc_server.graphql.query_nodes import NODES, QueryRoot
from amc_server.graphql.run_lists import RunLists
from amc_server.http import whole_histories
from amc_server.http.file_stream import apply_post, read_post
from amc_server.http.files import FileEndpoints, run_at
from amc_server.http.guard import guarded, guarded_change, guarded_page, login
from amc_server.http.imports import import_
from amc_server.http.messages import EXCEPTION_HANDLERS, Json, read_body, read_json_body
from amc_server.http.shared_writers import writer_of
from amc_server.http.write_queue import StorePost, WriteQueue
from amc_server.pages.actions import press
from amc_server.pages.browser import Pages, sweep_at
from amc_server.pages.sweep_view import SweepViews
from amc_server.scheduling.coordinator import Coordinator
from amc_server.scheduling.state_inference import Limits
from amc_server.store.blobs import Blobs
from amc_server.store.reader import Reader
from amc_server.store.storage import FilesLostError, Storage
from amc_server.store.writer import Writer
from amc_sweeps.browser import assets
from amc_sweeps.runs import export_file

logger = logging.getLogger(__name__)

SERVICE = "amc-sweep"
MAX_POST_BYTES = 128 * 1024**2  # of a file_stream body; the client's own limit is far below
MAX_BUTTON_BYTES = 10_000
PAUSE_S = 1.0  # between two rounds of the work between requests


class _Histories(StreamingResponse):
    """Histories piece by piece. When the client has gone, their snapshot of the database ends at once.

    Otherwise it would end when the garbage collector finds the generator, and an idle server collects nothing.
    """

    media_type = whole_histories.CONTENT_TYPE

    def __init__(self, pieces: Generator[bytes]) -> None:
        super().__init__(pieces)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pieces.close()


class _Server:
    def __init__(self, storage: Storage, coordinator: Coordinator, gate: Gate, instance: str) -> None:
        self.storage = storage
        self.coordinator = coordinator
        self.gate = gate
        self.instance = instance
        self.blobs = Blobs(storage.folder / "blobs")
        self.run_lists = RunLists()
        self.graphql = GraphqlEndpoint(storage, self.blobs, self._query_root, self._mutation_root)
        self.files = FileEndpoints(storage, coordinator.clock, gate, self.blobs)
        self.write_queue = WriteQueue(storage)
        self.pages = Pages(storage, coordinator.clock)
        self.views = SweepViews(storage, coordinator.clock, coordinator.agent_is_alive)

    def _context(self, store: Reader, base_url: str, *, is_next_page: bool = False) -> Context:
        alive, client_began = self.coordinator.agent_is_alive, self.coordinator.created_sweeps.client_began
        return Context(store, self.gate, base_url, NODES, alive, self.run_lists, is_next_page, client_began)

    def _query_root(self, store: Reader, base_url: str, is_next_page: bool) -> QueryRoot:
        return QueryRoot(self._context(store, base_url, is_next_page=is_next_page))

    def _mutation_root(self, store: Writer, base_url: str, discarded: list[str]) -> MutationRoot:
        return MutationRoot(self._context(store, base_url), store, self.coordinator, self.blobs, discarded)

    # --- handlers

    async def health(self, request: Request) -> Response:
        return Json({"service": SERVICE, "instance": self.instance, "version": own_version(), "wandb": WANDB_RANGE})

    async def file_stream(self, request: Request) -> Response:
        body = await read_body(request, MAX_POST_BYTES)
        path, writer = request.path_params, writer_of(request.headers)

        def read() -> StorePost:
            post = read_post(body)
            return lambda store: apply_post(store, self.coordinator, run_at(store, path), post, writer=writer)

        return Json(await self.write_queue.write(len(body), read))

    async def import_(self, request: Request) -> Response:
        body = await read_body(request, export_file.MOST_BYTES)
        return await run_in_threadpool(self._import, body)

    def _import(self, body: bytes) -> Response:
        try:
            export = export_file.read(body.decode())
        except (UnicodeDecodeError, export_file.ExportFileError) as error:
            raise Refused(f"this is not an export file: {error}", status=400) from error
        with self.storage.write() as store:
            counts = import_(store, self.coordinator, export)
        return Json(counts)

    async def bulk(self, request: Request) -> Response:
        content = whole_histories.read_request(read_json_body(await read_body(request, MAX_GRAPHQL_BYTES)))
        return _Histories(whole_histories.reply(self.storage, content))

    # --- what a page asks for

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in assets.names():
            raise Refused(f"there is nothing at {request.url.path[:200]}", status=404)
        is_current = request.path_params["version"] == assets.version()
        age = "public, max-age=31536000, immutable" if is_current else "no-store"
        headers = {"Cache-Control": age, "X-Content-Type-Options": "nosniff"}
        return Response(assets.text(name), media_type=assets.media_type(name), headers=headers)

    async def sweep_data(self, request: Request) -> Response:
        path, since = tuple(request.path_params.values()), request.query_params.get("since")
        content = None
        if not self.views.is_unchanged(path, since):
            content = await run_in_threadpool(self.views.changes, path, since)
        request.scope["amc_unlogged"] = True  # a page asks every two seconds
        headers = {"Cache-Control": "no-store"}
        if content is None:
            return Response(status_code=204, headers=headers)
        return Response(content, media_type="application/json", headers=headers)

    async def run_data(self, request: Request) -> Response:
        content = await run_in_threadpool(self.pages.run_data, request.path_params, request.query_params)
        request.scope["amc_unlogged"] = True
        return Response(content, media_type="application/json", headers={"Cache-Control": "no-store"})

    async def press(self, request: Request) -> Response:
        content = read_json_body(await read_body(request, MAX_BUTTON_BYTES))
        return await run_in_threadpool(self._press, request.path_params, content)

    def _press(self, path: Mapping[str, str], content: Any) -> Response:
        with self.storage.write() as store:
            press(store, self.coordinator, sweep_at(store, path), content)
        return Json({"done": True})

    async def no_telemetry(self, request: Request) -> Response:
        return Json({"error": "telemetry is not collected here"}, status_code=404)

    # --- between requests

    async def work_between_requests(self) -> None:
        """Check the timeouts and shorten the log, once a second, for ever."""
        clock, last_heard = self.coordinator.clock, self.coordinator.last_heard
        while True:
            begin = clock.monotonic()
            await asyncio.sleep(PAUSE_S)
            last_heard.delayed(clock.monotonic() - begin - PAUSE_S)
            for work in (self.check_timeouts, self.storage.checkpoint, self.views.forget):
                try:
                    await run_in_threadpool(work)
                except FilesLostError:
                    pass  # it is in the log, and every request is told
                except Exception:
                    logger.exception("%s failed; it is tried again", work.__name__)

    def check_timeouts(self) -> None:
        """Record which runs have timed out. The writer is taken only if one has."""
        with self.storage.read() as reader:
            if not self.coordinator.has_timeouts(reader):
                return
        with self.storage.write() as store:
            self.coordinator.check_timeouts(store)

    def warm_up(self) -> None:
        """Prepare the searches, so that the first agent need not wait for its configuration."""
        try:
            with self.storage.write_unflushed(urgent=False) as store:
                self.coordinator.load_searches(store)
        except Exception:
            logger.exception("warming up failed; the first suggestions will take longer")


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
        key: None: clients need no key.
        instance: differs from that of other servers at the same address.
    """
    coordinator = Coordinator(clock or SystemClock(), limits=limits, seed=seed)
    server = _Server(storage, coordinator, Gate(key, signing_secret(storage)), instance or secrets.token_hex(16))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(server.work_between_requests())
        warming = asyncio.create_task(run_in_threadpool(server.warm_up))
        try:
            yield
        finally:
            await warming
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    run_path = "/files/{entity}/{project}/{run}"
    key_only = functools.partial(guarded, server.gate, cookies=False)
    either = functools.partial(guarded, server.gate, cookies=True)
    page = functools.partial(
        guarded_page, server.gate, state=lambda: f"{server.instance}-{storage.commits}-{assets.version()}"
    )
    pages, files = server.pages, server.files
    app = Starlette(
        routes=[
            Route("/healthz", server.health),
            Route("/graphql", key_only(server.graphql.answer), methods=["POST"]),
            Route(f"{run_path}/file_stream", key_only(server.file_stream), methods=["POST"]),
            Route("/import", key_only(server.import_), methods=["POST"]),
            Route("/bulk", key_only(server.bulk), methods=["POST"]),
            Route("/storage/{token}", files.upload, methods=["PUT"]),
            Route("/storage/{token}", files.signed_download, methods=["GET"]),
            Route(
                "/artifactsV2/{region}/{entity}/{project}/{collection}/{rest:path}",
                key_only(files.download_artifact_file),
                methods=["GET"],
            ),
            Route(run_path + "/{name:path}", either(files.download), methods=["GET"]),
            Route("/sdk/otel/v1/{signal}", server.no_telemetry, methods=["POST"]),
            Route("/assets/{version}/{name}", server.asset),
            Route("/login", login(server.gate), methods=["GET", "POST"]),
            Route("/", page(pages.projects)),
            Route("/authorize", page(pages.projects)),
            Route("/{entity}/{project}", page(pages.project)),
            Route("/{entity}/{project}/workspace", page(pages.project)),
            Route("/{entity}/{project}/sweeps/{sweep}", page(pages.sweep)),
            Route("/{entity}/{project}/sweeps/{sweep}/data", either(server.sweep_data)),
            Route(
                "/{entity}/{project}/sweeps/{sweep}/actions",
                guarded_change(server.gate, server.press),
                methods=["POST"],
            ),
            Route("/{entity}/{project}/runs/{run}", page(pages.run)),
            Route("/{entity}/{project}/runs/{run}/data", either(server.run_data)),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.state.check_timeouts = server.check_timeouts  # for tests that move the clock
    return app


def own_version() -> str:
    """Return the version of this package."""
    try:
        return version("amc-sweep-toolkit")
    except PackageNotFoundError:
        return "unknown"


def signing_secret(storage: Storage) -> bytes:
    """Return the key that signs upload URLs. It is stored, so that URLs stay valid after a restart."""
    with storage.write() as store:
        secret = store.meta("signing_secret")
        if secret is None or re.fullmatch("[0-9a-f]{64}", secret) is None:
            secret = secrets.token_hex(32)
            store.set_meta("signing_secret", secret)
    return bytes.fromhex(secret)
