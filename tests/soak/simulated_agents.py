"""Agents without a client: the same request bodies, from many threads, over real HTTP.

An agent asks for a run, begins it, posts its history in batches and ends it. The tally counts what the server
acknowledged, so that a test can ask for it afterwards. A failed request is sent again until it is answered, as the
client does.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

METRICS = 40  # numbers in a row
HEARTBEAT_S = 5.0

CREATE_SWEEP = """mutation UpsertSweep($config: String, $projectName: String) {
    upsertSweep(input: {config: $config, projectName: $projectName}) { sweep { name } } }"""
CREATE_AGENT = """mutation CreateAgent($host: String!, $projectName: String, $sweep: String!) {
    createAgent(input: {host: $host, projectName: $projectName, sweep: $sweep}) { agent { id } } }"""
HEARTBEAT = """mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
    agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) { agent { id } commands } }"""
UPSERT = """mutation UpsertBucket($name: String, $project: String, $config: JSONString, $sweep: String, $host: String) {
    upsertBucket(input: {name: $name, modelName: $project, config: $config, sweep: $sweep, host: $host}) {
        bucket { id name historyLineCount sweepName project { name entity { name } } } inserted } }"""


class Connection:
    """A kept connection to the server, for one thread."""

    def __init__(self, port: int, key: str, patience_s: float) -> None:
        self._port = port
        self._authorization = "Basic " + base64.b64encode(f"api:{key}".encode()).decode()
        self._patience_s = patience_s
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: Any) -> Any:
        """Send a JSON body until it is answered with 200; return the answer.

        Raises:
            AssertionError: the server answers with another status, or does not answer for too long.
        """
        text = json.dumps(body).encode()
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                if self._connection is None:
                    self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
                headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
                self._connection.request("POST", path, text, headers)
                response = self._connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException):
                self.close()
                assert time.monotonic() < deadline, f"no answer for {self._patience_s:g} s: POST {path}"
                time.sleep(0.1)
                continue
            assert response.status == 200, f"{response.status}: {answer[:500]!r}"
            return json.loads(answer)

    def graphql(self, document: str, **variables: Any) -> Any:
        """Execute a document and return its data."""
        answer = self.post("/graphql", {"query": document, "variables": variables})
        assert not answer.get("errors"), answer["errors"]
        return answer["data"]

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass
class Tally:
    """What the agents of all threads saw."""

    acknowledged: dict[str, int] = field(default_factory=dict)  # rows by run
    finished: set[str] = field(default_factory=set)
    handed_out: list[tuple[str, str]] = field(default_factory=list)  # run, its configuration as JSON
    heartbeat_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def rows(self) -> int:
        """Rows that were acknowledged."""
        with self.lock:
            return sum(self.acknowledged.values())


@dataclass(frozen=True)
class Work:
    """What every agent does."""

    sweep: str
    rows_a_run: int = 150
    rows_a_batch: int = 10
    pause_s: float = 0.0  # between batches
    with_machine: bool = (
        False  # also a line of system metrics and three of the console in each batch, as the client sends
    )
    project: str = "soak"


@cache  # the agents should need little CPU, because the server is measured
def row(step: int) -> str:
    """Return one history line as the client writes it."""
    values = {f"val/metric_{index}": step + index / 1000 for index in range(METRICS)}
    return json.dumps({"acc": step / 1000, **values, "_step": step, "_runtime": step, "_timestamp": 1.7e9 + step})


def _machine_lines(number: int) -> dict[str, dict[str, Any]]:
    """Return what a post has besides rows: system metrics of a machine with a GPU, and lines of the console."""
    values = {f"system.gpu.0.metric_{index}": 40.0 + index for index in range(20)}
    event = json.dumps({**values, "_runtime": 15.0 * number, "_timestamp": 1.7e9 + 15 * number, "_wandb": True})
    console = [f"2026-11-28T12:00:00.000000 epoch {number} of 100, part {part}: loss 0.5123" for part in range(3)]
    return {
        "wandb-events.jsonl": {"offset": number, "content": [event]},
        "output.log": {"offset": 3 * number, "content": console},
    }


class Agent(threading.Thread):
    """An agent, with its heartbeat in a second thread as in the client."""

    def __init__(self, connect: Callable[[], Connection], work: Work, tally: Tally, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._connect, self._work, self._tally, self._over = connect, work, tally, stop  # Thread has a _stop of its own
        self._id = ""
        self._running: str | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Work on runs until the sweep or the test is over."""
        heart = threading.Thread(target=self._beat, daemon=True)
        connection = self._connect()
        try:
            agent = connection.graphql(
                CREATE_AGENT, host="simulated", projectName=self._work.project, sweep=self._work.sweep
            )
            self._id = agent["createAgent"]["agent"]["id"]
            heart.start()
            while not self._over.is_set():
                commands = self._heartbeat(connection, [])
                kinds = [command["type"] for command in commands]
                if "exit" in kinds:
                    break
                if not commands:
                    self._over.wait(0.5)
                for command in commands:
                    if command["type"] in ("run", "resume"):
                        self._train(connection, command)
        except Exception as error:  # noqa: BLE001 - a thread's failure is the test's
            with self._tally.lock:
                self._tally.failures.append(f"{type(error).__name__}: {error}")
        finally:
            self._ended.set()
            connection.close()
            if heart.ident is not None:
                heart.join(timeout=60)

    def _heartbeat(self, connection: Connection, running: Iterable[str]) -> list[dict[str, Any]]:
        state = json.dumps(dict.fromkeys(running, True))
        begin = time.perf_counter()
        answer = connection.graphql(HEARTBEAT, id=self._id, metrics="{}", runState=state)
        with self._tally.lock:
            self._tally.heartbeat_s.append(time.perf_counter() - begin)
        return list(json.loads(answer["agentHeartbeat"]["commands"]))

    def _beat(self) -> None:
        connection = self._connect()
        try:
            while not self._ended.wait(HEARTBEAT_S):
                running = self._running
                if running is not None:
                    self._heartbeat(connection, [running])
        except Exception as error:  # noqa: BLE001
            with self._tally.lock:
                self._tally.failures.append(f"heartbeat: {type(error).__name__}: {error}")
        finally:
            connection.close()

    def _train(self, connection: Connection, command: dict[str, Any]) -> None:
        work, run = self._work, str(command["run_id"])
        self._running = run
        with self._tally.lock:
            self._tally.handed_out.append((run, json.dumps(command["args"], sort_keys=True)))
        config = {**command["args"], "_wandb": {"value": {"t": {}}}}
        connection.graphql(
            UPSERT, name=run, project=work.project, config=json.dumps(config), sweep=work.sweep, host="simulated"
        )
        path = f"/files/local/{work.project}/{run}/file_stream"
        for first in range(0, work.rows_a_run, work.rows_a_batch):
            lines = [row(step) for step in range(first, min(first + work.rows_a_batch, work.rows_a_run))]
            chunk = {"offset": first, "content": lines}
            files = {"wandb-history.jsonl": chunk, "wandb-summary.json": {"offset": 0, "content": [lines[-1]]}}
            if work.with_machine:
                files |= _machine_lines(first // work.rows_a_batch)
            connection.post(path, {"files": files})
            with self._tally.lock:
                self._tally.acknowledged[run] = first + len(lines)
            if self._over.wait(work.pause_s):
                break
        else:
            connection.post(path, {"complete": True, "exitcode": 0})
            with self._tally.lock:
                self._tally.finished.add(run)
        self._running = None
