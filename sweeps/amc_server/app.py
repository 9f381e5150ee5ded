"""The application: which door is where, what the doors share, and what the server does while nobody asks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version

import psutil
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from amc_server.auth import Gate
from amc_server.clients import WANDB_RANGE
from amc_server.clock import Clock, SystemClock
from amc_server.errors import Refused
from amc_server.graphql.endpoint import MAX_GRAPHQL_BYTES, GraphqlDoor
from amc_server.http import bulk
from amc_server.http.file_stream import apply_post, read_post
from amc_server.http.files import FileDoors, run_at
from amc_server.http.guard import guarded, guarded_page
from amc_server.http.imports import take_in
from amc_server.http.messages import EXCEPTION_HANDLERS, Json, read_body, read_json
from amc_server.http.write_queue import PostBox, Work
from amc_server.metrics import CONTENT_TYPE, Metrics
from amc_server.pages.browser import Pages
from amc_server.scheduling import search
from amc_server.scheduling.coordinator import Coordinator
from amc_server.scheduling.states import Limits
from amc_server.store.blobs import Blobs
from amc_server.store.storage import Storage
from amc_sweeps.runs import export_file

logger = logging.getLogger(__name__)

SERVICE = "amc-sweep"
MAX_POST_BYTES = 128 * 1024**2  # of a file_stream body; the client's own limit is far below
MAX_IMPORT_BYTES = 512 * 1024**2
LOOK_AROUND_S = 1.0


class _Server:
    """The handlers and what they share."""

    def __init__(self, storage: Storage, coordinator: Coordinator, gate: Gate, instance: str) -> None:
        self.storage = storage
        self.coordinator = coordinator
        self.gate = gate
        self.instance = instance
        blobs = Blobs(storage.folder / "blobs")
        self.graphql = GraphqlDoor(storage, coordinator, gate, blobs)
        self.files = FileDoors(storage, coordinator.clock, gate, blobs)
        self.post_box = PostBox(storage)
        self.pages = Pages(storage, gate)
        self.metrics = Metrics()

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

    async def file_stream(self, request: Request) -> Response:
        body = await read_body(request, MAX_POST_BYTES)
        path = request.path_params
        rows = 0

        def read() -> Work:
            nonlocal rows
            post = read_post(body)
            rows = len(post.history_rows)
            return lambda store: apply_post(store, self.coordinator, run_at(store, path), post)

        reply = await self.post_box.write(len(body), read)
        self.metrics.rows(rows)
        return Json(reply)

    async def take_in(self, request: Request) -> Response:
        body = await read_body(request, MAX_IMPORT_BYTES)
        return await run_in_threadpool(self._take_in, body)

    def _take_in(self, body: bytes) -> Response:
        try:
            export = export_file.read(body.decode())
        except (UnicodeDecodeError, export_file.ExportFileError) as error:
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

    def warm_up(self) -> None:
        """Do what the first agent would otherwise have to wait for."""
        try:
            search.warm_up()
            with self.storage.write_unsettled(in_a_hurry=False) as store:
                self.coordinator.remember(store)
        except Exception:
            logger.exception("warming up failed; the first suggestions will take longer")

    def look_around(self) -> None:
        """Record what follows from silence; the writer is only taken when something does."""
        with self.storage.read() as reader:
            if not self.coordinator.has_something_to_conclude(reader):
                return
        with self.storage.write() as store:
            self.coordinator.look_around(store)


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
    page = functools.partial(guarded_page, server.gate)
    pages, files = server.pages, server.files
    app = Starlette(
        routes=[
            Route("/healthz", server.health),
            Route("/metrics", either(server.show_metrics)),
            Route("/graphql", key_only(server.graphql.answer), methods=["POST"]),
            Route(f"{run_path}/file_stream", key_only(server.file_stream), methods=["POST"]),
            Route("/import", key_only(server.take_in), methods=["POST"]),
            Route("/bulk", key_only(server.bulk), methods=["POST"]),
            Route("/storage/{token}", files.upload, methods=["PUT"]),
            Route("/storage/{token}", files.signed_download, methods=["GET"]),
            Route(run_path + "/{name:path}", either(files.download), methods=["GET"]),
            Route("/sdk/otel/v1/{signal}", server.no_telemetry, methods=["POST"]),
            Route("/", page(pages.projects)),
            Route("/authorize", page(pages.projects)),
            Route("/{entity}/{project}", page(pages.project)),
            Route("/{entity}/{project}/workspace", page(pages.project)),
            Route("/{entity}/{project}/sweeps/{sweep}", page(pages.sweep)),
            Route("/{entity}/{project}/runs/{run}", page(pages.run)),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.state.metrics = server.metrics
    app.state.look_around = server.look_around  # for a test, whose clock does not tick by itself
    return app


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
