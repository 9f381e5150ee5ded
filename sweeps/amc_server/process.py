"""The server's process: options, data folder, key, certificate, listener, log, and the end by a signal."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import secrets
import signal
import socket
import sqlite3
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from amc_server.app import create_app
from amc_server.auth import KeyFileError, read_or_make_key
from amc_server.http.connections import SILENT_S, Connection, most_connections
from amc_server.http.guard import LOOPBACK
from amc_server.scheduling.state_inference import Limits
from amc_server.server_log import RequestLog, log_to
from amc_server.store.storage import Storage, StorageError, describe_failure

DEFAULT_PORT = 8418
GRACE_S = 5  # for running requests when the server ends
YOUNG_OBJECTS = 50_000  # made between two searches for cycles
SWITCH_S = 0.001  # after which a thread that computes gives way to another


class ServerError(RuntimeError):
    """The server cannot start; the message says what to do."""


@dataclass(frozen=True)
class ServerOptions:
    """How to run a server."""

    data: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT  # 0: any free port
    key_file: Path | None = None  # default: api.key in the data folder
    auth: bool = True
    tls_cert: Path | None = None  # PEM, with tls_key
    tls_key: Path | None = None
    seed: int | None = None  # makes every sweep's search reproducible
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class ListeningServer:
    """The address and the files of a server that listens."""

    base_url: str
    key_file: Path | None  # None: the server asks for no key
    data: Path
    instance: str


@contextlib.contextmanager
def _files_for_this_user_alone() -> Iterator[None]:
    """Make files that only this user may read: the database holds the key that signs upload URLs."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _usable(data: Path) -> Iterator[None]:
    """Turn what is wrong with a file or a folder in the data folder into a message.

    Raises:
        ServerError: a name in the folder is taken by something else, or may not be read.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise ServerError(f"{data}: {describe_failure(error)}") from error
    except OSError as error:
        raise ServerError(f"the data folder {data} cannot be used ({error}). Choose another with --data.") from error


@_files_for_this_user_alone()
def run(
    options: ServerOptions, announce: Callable[[ListeningServer], None], report_end: Callable[[ListeningServer], None]
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        announce: called when the server listens.
        report_end: called when it no longer listens.

    Raises:
        ServerError: when it cannot start.
    """
    if not options.auth and options.host not in LOOPBACK:
        raise ServerError(
            f"--no-auth would give access to everybody who reaches {options.host}: it is for 127.0.0.1 only. "
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
        with contextlib.closing(listener), contextlib.ExitStack() as opened:
            with _usable(options.data):
                opened.enter_context(log_to(options.data / "server.log"))
            host, port = listener.getsockname()[:2]
            address = f"[{host}]" if ":" in host else host
            scheme = "https" if options.tls_cert else "http"
            server = ListeningServer(
                f"{scheme}://{address}:{port}", key_file, options.data.absolute(), secrets.token_hex(16)
            )
            with _usable(options.data):
                app = create_app(storage, key=key, limits=options.limits, seed=options.seed, instance=server.instance)
            announce(server)
            try:
                logged_app = RequestLog(app, logging.getLogger("amc_server.requests"))
                _serve(logged_app, listener, options)
            finally:
                report_end(server)


def _check_tls(options: ServerOptions) -> None:
    """Check the certificate and its key before the server starts.

    Raises:
        ServerError: one is missing, cannot be read, or does not belong to the other.
    """
    if options.tls_cert is None and options.tls_key is None:
        return
    if options.tls_cert is None or options.tls_key is None:
        raise ServerError("--tls-cert and --tls-key belong together: give the certificate and its private key, in PEM")
    try:
        # The empty password avoids a prompt: a server in the background cannot show one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ServerError(
            f"TLS cannot be set up with {options.tls_cert} and {options.tls_key} ({error}): "
            "give a PEM certificate and its private key without a password"
        ) from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # IPPROTO_TCP is given because asyncio turns Nagle's algorithm off only for such sockets. Otherwise every reply on a
    # kept connection waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A restarted server takes its port again although old connections to it have not timed out.
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
    Connection.most = most_connections()
    # Every post makes thousands of objects that live for milliseconds. With Python's own threshold of 700, the search
    # for cycles among them took a quarter of the time under load.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    # A thread that comes back from SQLite or a socket waits this long for Python's lock, and a heartbeat often does.
    # With 64 agents and 20 open pages on a busy machine the p99 of heartbeats was 0.66 s with Python's own 5 ms, and
    # 0.40 s with 1 ms. Rows a second stayed the same.
    sys.setswitchinterval(SWITCH_S)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=Connection,
        ws="none",
        timeout_keep_alive=SILENT_S,
        timeout_graceful_shutdown=GRACE_S,
        lifespan="on",
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    _Uvicorn(config).run(sockets=[listener])


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Shut down on SIGTERM and SIGINT; uvicorn would then raise the signal again and end the caller, too."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.should_exit = True

        previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
