"""What operators see of a server: warnings about untested clients."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process_server import InProcessServer

from amc_server.clients import is_tested, range_hint, version_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


@pytest.mark.parametrize(
    ("user_agent", "version", "tested"),
    [
        ("W&B Public Client 0.31.0", "0.31.0", True),
        ("W&B Public Client 0.31.12", "0.31.12", True),
        ("W&B Public Client 0.31.0rc1", "0.31.0rc1", True),
        ("W&B Public Client 0.32.0", "0.32.0", False),
        ("W&B Public Client 0.30.9", "0.30.9", False),
        ("W&B Public Client 1.31.0", "1.31.0", False),
    ],
)
def test_the_version_of_a_client_is_compared_with_the_tested_range(user_agent: str, version: str, tested: bool) -> None:
    assert version_of(user_agent) == version
    assert is_tested(version) is tested
    assert (version in range_hint(user_agent)) is not tested


@pytest.mark.parametrize("user_agent", [None, "", "wandb-core", "curl/8", "W&B Public Client x"])
def test_a_client_without_a_version_gets_no_guess(user_agent: str | None) -> None:
    assert version_of(user_agent) is None
    assert range_hint(user_agent) == "this server is tested with wandb >=0.31,<0.32"


def test_an_untested_client_is_served_and_logged_once(
    server: InProcessServer, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"query": "{ viewer { id } }"}).encode()
    with caplog.at_level(logging.WARNING, logger="amc_server"):
        for _ in range(3):
            reply = server.request("POST", "/graphql", body, {"user-agent": "W&B Public Client 0.99.1"})
            assert reply.json()["data"]["viewer"]
    (warning,) = [record for record in caplog.records if "0.99.1" in record.getMessage()]
    assert ">=0.31,<0.32" in warning.getMessage()


def test_the_error_for_an_unknown_field_names_the_tested_range_and_the_client(server: InProcessServer) -> None:
    body = json.dumps({"query": "query New { brandNewThing { id } }"}).encode()
    reply = server.request("POST", "/graphql", body, {"user-agent": "W&B Public Client 0.99.1"})
    messages = " ".join(error["message"] for error in reply.json()["errors"])
    assert "brandNewThing" in messages
    assert ">=0.31,<0.32" in messages
    assert "0.99.1" in messages
