"""A server whose process is stopped for a while (Ctrl-Z, docker pause) goes on as if no time had passed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from embedded_server import EmbeddedServer

BEGIN = (
    """mutation B($run: String) { upsertBucket(input: {name: $run, modelName: "p", host: "box"}) { bucket { id } } }"""
)
STATE = """query R($run: String!) { project(name: "p", entityName: "local") { run(name: $run) { state } } }"""
SHORT = "import amc_server.scheduling.last_heard as last_heard; last_heard.STOPPED_S = 1.0"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_is_not_lost_because_the_server_was_stopped(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data", options=("--limit", "silence_s=3"), prelude=SHORT) as server:
        server.graphql(BEGIN, run="r")
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(4)  # longer than a run may be silent
        os.kill(server.pid, signal.SIGCONT)
        log = server.data / "server.log"
        wait_until(lambda: "the server was stopped for" in log.read_text())

        def state() -> str:
            return str(server.graphql(STATE, run="r")["project"]["run"]["state"])

        assert state() == "running"
        wait_until(lambda: state() == "crashed")
        events = [json.loads(line).get("event", "") for line in log.read_text().splitlines()]
        assert sum("was stopped" in event for event in events) == 1
