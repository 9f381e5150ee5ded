"""What operators see of a server: metrics, and warnings about untested clients."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process_server import InProcessServer

from amc_server.clients import is_tested, range_hint, version_of
from amc_server.metrics import MOST_OPERATIONS, Metrics, endpoint_of
from amc_server.server_log import RequestLog


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


def test_metrics_need_the_key_and_count_requests_rows_and_states(server: InProcessServer) -> None:
    assert server.request("GET", "/metrics", auth=False).status == 401
    sweep = server.create_sweep("method: random\nparameters: {a: {min: 0.0, max: 1.0}}\n")
    run = server.draw(server.create_agent(sweep))["run_id"]
    server.app = RequestLog(server.app, logging.getLogger("test"), server.app.state.metrics)  # type: ignore[assignment]
    server.begin(run)
    server.log(run, 0.1, 0.2)
    reply = server.request("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = reply.body.decode().splitlines()
    assert "amc_history_rows_total 2.0" in lines
    assert 'amc_runs{state="running"} 1.0' in lines
    assert 'amc_sweeps{state="RUNNING"} 1.0' in lines
    assert "amc_living_agents 1.0" in lines
    assert 'amc_requests_total{endpoint="file_stream",operation="",status="200"} 1.0' in lines
    assert 'amc_requests_total{endpoint="graphql",operation="UpsertBucket",status="200"} 1.0' in lines
    assert 'amc_request_duration_seconds_bucket{endpoint="graphql",le="+Inf"} 1.0' in lines
    assert run not in reply.body.decode(), "ids as labels would make any number of series"


def test_the_number_of_operation_labels_is_limited() -> None:
    metrics = Metrics()
    for number in range(MOST_OPERATIONS + 50):
        metrics.request("/graphql", f"Op{number}", 200, 0.001)
    text = metrics.text(runs={}, sweeps={}, living_agents=0, resident_bytes=1, database_bytes=1).decode()
    assert text.count("amc_requests_total{") == MOST_OPERATIONS + 1
    assert 'operation="other",status="200"} 50.0' in text


def test_label_values_are_escaped() -> None:
    metrics = Metrics()
    metrics.request("/graphql", 'a"\\\n', 200, 99.0)
    text = metrics.text(runs={}, sweeps={}, living_agents=0, resident_bytes=1, database_bytes=1).decode()
    assert r'operation="a\"\\\n"' in text
    assert endpoint_of("/files/local/p/r/file_stream") == "file_stream"
    assert endpoint_of("/local/p/runs/r") == "page"
