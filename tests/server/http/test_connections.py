"""Connections that say nothing are closed, and too many of them shut nobody out."""

from __future__ import annotations

import contextlib
import socket
import time
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
