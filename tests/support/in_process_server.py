"""The server's application in this process, with a clock that tests move: no sockets, no waiting."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amc_server.app import create_app
from amc_server.scheduling.state_inference import Limits
from amc_server.store.storage import Storage

KEY = "amc-" + "0123456789" * 4


class FakeClock:
    """A clock that only tests move."""

    def __init__(self) -> None:
        self._wall, self._monotonic = 1_700_000_000.0, 50.0

    def wall(self) -> float:
        """Return Unix time."""
        return self._wall

    def monotonic(self) -> float:
        """Return seconds since a fixed moment."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._wall += seconds
        self._monotonic += seconds

    def set_wall(self, seconds: float) -> None:
        """Set the host's clock, as NTP does; no time passes."""
        self._wall += seconds


@dataclass(frozen=True)
class Reply:
    """A reply of the application."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's value."""
        return json.loads(self.body)


class GraphqlRefused(Exception):  # noqa: N818
    """A reply with errors."""

    def __init__(self, status: int, messages: list[str]) -> None:
        super().__init__("; ".join(messages))
        self.status = status


@dataclass
class InProcessServer:
    """An application over a data folder."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    limits: Limits = field(default_factory=Limits)
    key: str | None = KEY
    seed: int | None = 1

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Start on the folder."""
        self.storage = Storage(self.folder)
        self.app = create_app(
            self.storage, key=self.key, clock=self.clock, limits=self.limits, seed=self.seed, instance="test"
        )

    def close(self) -> None:
        """End; ``open`` starts again on the same folder."""
        self.storage.close()

    def advance(self, seconds: float) -> None:
        """Let time pass, and let the server check the timeouts."""
        self.clock.advance(seconds)
        self.app.state.check_timeouts()

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, auth: bool = True
    ) -> Reply:
        """Send one request; ``auth`` adds the key as the wandb client does."""
        sent = {"host": "server.test", **(headers or {})}
        if auth and self.key is not None:
            sent["authorization"] = "Basic " + base64.b64encode(f"api:{self.key}".encode()).decode()
        return asyncio.run(_call(self.app, method, path, body, sent))

    def graphql(self, document: str, **variables: Any) -> dict[str, Any]:
        """Execute a document; raises GraphqlRefused."""
        body = json.dumps({"query": document, "variables": variables}).encode()
        reply = self.request("POST", "/graphql", body)
        answer = reply.json()
        if answer.get("errors"):
            raise GraphqlRefused(reply.status, [error["message"] for error in answer["errors"]])
        assert reply.status == 200
        return dict(answer["data"])

    # what the client does in a sweep

    def create_sweep(self, config: str, **more: Any) -> str:
        """Register a sweep in project ``p`` and return its id."""
        document = """mutation UpsertSweep($config: String, $projectName: String, $priorRunsFilters: JSONString) {
            upsertSweep(input: {config: $config, projectName: $projectName, priorRunsFilters: $priorRunsFilters}) {
                sweep { name } configValidationWarnings } }"""
        answer = self.graphql(document, config=config, projectName="p", **more)
        return str(answer["upsertSweep"]["sweep"]["name"])

    def set_state(self, sweep: str, state: str) -> None:
        """Pause, resume, stop or cancel."""
        document = (
            "mutation UpsertSweep($id: ID, $state: String) { upsertSweep(input: {id: $id, state: $state})"
            " { sweep { name } } }"
        )
        self.graphql(document, id=self.sweep(sweep)["id"], state=state)

    def sweep(self, sweep: str) -> dict[str, Any]:
        """Return the sweep with its runs by id."""
        document = """query S($sweep: String!) { project(name: "p", entityName: "local") { sweep(sweepName: $sweep) {
            id state runCount runCountExpected bestLoss
            runs { edges { node { id name state config exitcode shouldStop stopReason stopBand stopValue } } } } } }"""
        node = self.graphql(document, sweep=sweep)["project"]["sweep"]
        return {**node, "runs": {edge["node"]["name"]: edge["node"] for edge in node["runs"]["edges"]}}

    def states(self, sweep: str) -> list[str]:
        """Return the states of the sweep's runs, oldest first."""
        return [run["state"] for run in self.sweep(sweep)["runs"].values()]

    def create_agent(self, sweep: str) -> str:
        """Register an agent and return its global id."""
        document = """mutation CreateAgent($host: String!, $projectName: String, $sweep: String!) {
            createAgent(input: {host: $host, projectName: $projectName, sweep: $sweep}) { agent { id } } }"""
        return str(self.graphql(document, host="box", projectName="p", sweep=sweep)["createAgent"]["agent"]["id"])

    def heartbeat(self, agent: str, running: Iterable[str] = ()) -> list[dict[str, Any]]:
        """Return the commands for an agent that lists these runs as living."""
        document = """mutation Heartbeat($id: ID!, $runState: JSONString) {
            agentHeartbeat(input: {id: $id, runState: $runState}) { agent { id } commands } }"""
        answer = self.graphql(document, id=agent, runState=json.dumps(dict.fromkeys(running, True)))
        return list(json.loads(answer["agentHeartbeat"]["commands"]))

    def draw(self, agent: str) -> dict[str, Any]:
        """Return the one run command that the agent gets: ``{"run_id": ..., "args": ...}``."""
        (command,) = self.heartbeat(agent)
        assert command["type"] in ("run", "resume"), command
        return command

    def begin(self, run: str, config: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Do what ``wandb.init`` does."""
        document = """mutation UpsertBucket($name: String, $config: JSONString, $sweep: String) {
            upsertBucket(input: {name: $name, modelName: "p", host: "box", config: $config, sweep: $sweep}) {
                bucket { id name historyLineCount sweepName project { name entity { name } } } inserted } }"""
        wrapped = {name: {"value": value} for name, value in (config or {}).items()} | {"_wandb": {"value": {"t": {}}}}
        return dict(self.graphql(document, name=run, config=json.dumps(wrapped), **more)["upsertBucket"])

    def post(self, run: str, **body: Any) -> dict[str, Any]:
        """Send one file_stream body and return the reply."""
        reply = self.request("POST", f"/files/local/p/{run}/file_stream", json.dumps(body).encode())
        assert reply.status == 200, reply.body
        return dict(reply.json())

    def log(self, run: str, *values: float, offset: int = 0, metric: str = "acc") -> dict[str, Any]:
        """Post history rows, one a value."""
        rows = [json.dumps({"_step": offset + index, metric: value}) for index, value in enumerate(values)]
        return self.post(run, files={"wandb-history.jsonl": {"offset": offset, "content": rows}})

    def finish(self, run: str, exit_code: int = 0) -> dict[str, Any]:
        """Send the last post, with the exit code."""
        return self.post(run, complete=True, exitcode=exit_code)

    def history(self, run: str) -> list[dict[str, Any]]:
        """Return the run's rows."""
        document = """query H($run: String!) { project(name: "p", entityName: "local") { run(name: $run) {
            history(minStep: 0, maxStep: 1000000, samples: 100000) } } }"""
        return [json.loads(row) for row in self.graphql(document, run=run)["project"]["run"]["history"]]


async def _call(app: Any, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
    target, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": target,
        "raw_path": target.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("server.test", 80),
    }
    sent: list[dict[str, Any]] = []
    received = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        message = next(received, None)
        if message is None:
            await asyncio.Event().wait()  # the client stays connected and sends nothing more
        assert message is not None
        return message

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = next(message for message in sent if message["type"] == "http.response.start")
    content = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return Reply(start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, content)
