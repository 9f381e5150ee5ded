"""Connections that say nothing, or read nothing, are closed, and too many of them shut nobody out."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import sqlite3
import time
import urllib.request
from collections.abc import Iterator

import pytest
from embedded_server import EmbeddedServer

SMALL = """
import amc_server.http.connections as connections
connections.SILENT_S = 1
connections.MOST_CONNECTIONS = 20
"""
BEGUN = b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server") / "data", prelude=SMALL) as running:
        yield running


def connect(server: EmbeddedServer) -> socket.socket:
    port = int(server.base_url.rsplit(":", 1)[1])
    return socket.create_connection(("127.0.0.1", port), timeout=20)


@pytest.mark.parametrize("sent", [b"", BEGUN, BEGUN + b"\r\n{"], ids=["nothing", "half a head", "half a body"])
def test_a_connection_that_falls_silent_is_closed(server: EmbeddedServer, sent: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(1000):  # an error about the missing key may come first
                pass
    assert server.health() is not None


def test_a_request_that_arrives_slowly_is_answered(server: EmbeddedServer) -> None:
    with connect(server) as connection:
        for part in (b"GET /healthz HT", b"TP/1.1\r\nHost: 127", b".0.0.1\r\nX-Long: ", b"value\r\n\r\n"):
            connection.sendall(part)
            time.sleep(0.5)  # together longer than the limit for silence
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_many_idle_connections_leave_room_for_a_new_one(server: EmbeddedServer) -> None:
    with contextlib.ExitStack() as opened:
        idle = [opened.enter_context(connect(server)) for _ in range(60)]
        assert server.health() is not None
        idle[0].settimeout(0.5)
        with contextlib.suppress(ConnectionResetError):
            assert idle[0].recv(1) == b"", "the one that was silent for longest was closed"


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nX-Long: ",
        BEGUN.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked") + b"\r\n0\r\nX-Long: ",
    ],
    ids=["address", "header", "trailer"],
)
def test_a_head_without_end_is_refused(server: EmbeddedServer, begun: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(begun)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(1000):  # together 64 MB
                connection.sendall(b"x" * 65_536)
            pytest.fail("the server read on")
    assert server.health() is not None


def test_damaged_requests_are_refused(server: EmbeddedServer) -> None:
    for request in (
        b"\x16\x03\x01 TLS?\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ):
        with connect(server) as connection:
            connection.sendall(request)
            assert connection.recv(1000).startswith(b"HTTP/1.1 4")


HISTORY_BYTES = 12_000_000  # more than the kernel keeps for a client that does not read


@pytest.fixture(scope="module")
def bulk(server: EmbeddedServer) -> bytes:
    """Return the request for a history that is longer than what the kernel keeps."""
    server.graphql('mutation { upsertBucket(input: {name: "r", modelName: "p"}) { bucket { id } } }')
    log(server, 0, HISTORY_BYTES)
    body = b'{"entity": "local", "project": "p"}'
    head = f"POST /bulk HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {credentials(server)}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def credentials(server: EmbeddedServer) -> str:
    return base64.b64encode(f"api:{server.key}".encode()).decode()


def log(server: EmbeddedServer, offset: int, size: int) -> None:
    row = json.dumps({"acc": 0.5, "text": "x" * 10_000})
    body = {"files": {"wandb-history.jsonl": {"offset": offset, "content": [row] * max(size // len(row), 1)}}}
    headers = {"Authorization": f"Basic {credentials(server)}"}
    address = f"{server.base_url}/files/local/p/r/file_stream"
    urllib.request.urlopen(urllib.request.Request(address, json.dumps(body).encode(), headers), timeout=20).read()


def test_a_client_that_stops_reading_keeps_no_snapshot_of_the_database(server: EmbeddedServer, bulk: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(bulk)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        log(server, HISTORY_BYTES, 1)
        with contextlib.closing(sqlite3.connect(server.data / "amc.sqlite3", timeout=20)) as database:
            is_busy, *_ = database.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()  # waits for readers
        assert not is_busy, "the log of the database could only grow"


def test_a_client_that_reads_slowly_gets_everything(server: EmbeddedServer, bulk: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(bulk.replace(b"HTTP/1.1", b"HTTP/1.0"))  # the end of the reply ends the connection
        size = 0
        while part := connection.recv(1_000_000):
            size += len(part)
            if size < HISTORY_BYTES / 2:
                time.sleep(0.3)  # together longer than the limit for silence
        assert size > HISTORY_BYTES


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_upgrade_is_ignored_and_costs_no_body(server: EmbeddedServer, protocol: str) -> None:
    upgrade = f"Host: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n"
    with connect(server) as connection, connection.makefile("rb") as replies:
        connection.sendall(f"GET /healthz HTTP/1.1\r\n{upgrade}\r\n".encode())
        assert replies.readline().startswith(b"HTTP/1.1 200")
        connection.sendall(f"PUT /storage/x HTTP/1.1\r\n{upgrade}Content-Length: 3\r\n\r\nabc".encode())
        reply = replies.read().partition(b"}")[2]
    assert reply.startswith(b"HTTP/1.1 400")
    assert reply.count(b"HTTP/1.1") == 1
    assert b"leave out the header Upgrade" in reply
    assert "WebSocket library" not in (server.data / "server.log").read_text()
