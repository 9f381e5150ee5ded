"""Generated requests, most of them wrong: no answer of 5xx, no hang, no growth, no file outside the data folder.

AMC_SOAK_REQUESTS (default 10000) is the number of small ones, AMC_SOAK_ATTACKS (default 20000) that of those of up to a
megabyte.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import math
import os
import random
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from attack_inputs import MOST_BYTES, RUNS, Input, inputs, sweep_text, yaml_text
from damaged_files import damages
from embedded_server import EmbeddedServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from results_file import keep

from amc_agents.preflight.check_sweep import check_sweep
from amc_core.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from amc_sweeps.runs.export_file import ExportFileError, read
from amc_sweeps.values import printable

REQUESTS = int(os.environ.get("AMC_SOAK_REQUESTS", "10000"))
ATTACKS = int(os.environ.get("AMC_SOAK_ATTACKS", "20000"))
CHECKPOINTS = ATTACKS // 6
SEED = 1
TIMEOUT_S = 30.0
LONGEST_S = 2.0  # of an answer
MOST_GROWTH_MB = 200.0  # of the server's memory
FIRST = 500  # requests after which everything is loaded

TEXT = st.text(max_size=30)
NASTY = st.sampled_from(
    [
        "../../etc/passwd",
        "..",
        "/",
        "a\0b",
        "\\..\\x",
        "%2e%2e/",
        "\ud800",
        "💥" * 50,
        "x" * 5000,
        "null",
        "-1",
        "NaN",
        "",
    ]
)
NAME = st.sampled_from(["r", "p", "local", "s"]) | NASTY | TEXT
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | NASTY
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAME, inner, max_size=4), max_leaves=12
)
FIELD_NAMES = """
    viewer serverInfo project model models artifact upsertSweep upsertBucket createAgent
    agentHeartbeat createRunFiles commitArtifact createArtifact createArtifactFiles deleteRun
    stopRun useArtifact bucket runs run sweep history sampledHistory files logLines
    artifactCollection id name state config nothing __schema __typename
"""
INPUT_NAMES = """
    id config name entityName projectName modelName runName sweep state files runState host filters
    input artifactID artifactFiles digest aliases artifactTypeName artifactCollectionName
    priorRunsFilters summaryMetrics
"""
FIELDS = st.sampled_from(FIELD_NAMES.split())
INPUT = st.dictionaries(st.sampled_from(INPUT_NAMES.split()) | TEXT, VALUE, max_size=6)
MUTATIONS = st.sampled_from(
    [
        ("upsertSweep", "UpsertSweepInput", "sweep { name }"),
        ("upsertBucket", "UpsertBucketInput", "bucket { id }"),
        ("createAgent", "CreateAgentInput", "agent { id }"),
        ("agentHeartbeat", "AgentHeartbeatInput", "commands"),
        ("enqueueSweepRun", "EnqueueSweepRunInput", "id"),
        ("createRunFiles", "CreateRunFilesInput", "files { uploadUrl }"),
        ("createArtifact", "CreateArtifactInput", "artifact { id }"),
        ("createArtifactFiles", "CreateArtifactFilesInput", "files { edges { node { uploadUrl } } }"),
        ("updateArtifact", "UpdateArtifactInput", "artifact { id }"),
        ("updateRunState", "UpdateRunStateInput", "success"),
        ("deleteFiles", "DeleteFilesInput", "success"),
        ("upsertModel", "UpsertModelInput", "project { id }"),
    ]
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Return a GraphQL body: made of names of the schema, or of anything."""
    kind = draw(st.sampled_from(["mutation", "query", "fields", "raw"]))
    if kind == "mutation":
        field, given_type, selection = draw(MUTATIONS)
        query = f"mutation M($input: {given_type}!) {{ {field}(input: $input) {{ {selection} }} }}"
        return dump({"query": query, "variables": {"input": draw(INPUT)}})
    if kind == "query":
        query = """query Q($name: String!, $filters: JSONString, $order: String, $after: String, $first: Int,
            $specs: [JSONString!]!) { project(name: "p", entityName: "local") { run(name: $name) { id history
            sampledHistory(specs: $specs) } runs(filters: $filters, order: $order, after: $after, first: $first) {
            edges { node { id } } } sweep(sweepName: $name) { bestLoss } artifactCollectionMembership(name: $name) {
            id } } }"""
        specs = draw(st.lists(TEXT | VALUE.map(lambda value: dump(value).decode("utf-8", "replace")), max_size=2))
        filters = draw(VALUE.map(lambda value: dump(value).decode("utf-8", "replace")) | TEXT)
        return dump(
            {
                "query": query,
                "variables": {
                    "name": draw(NAME),
                    "filters": filters,
                    "order": draw(NAME),
                    "after": draw(TEXT),
                    "first": draw(st.integers() | st.none()),
                    "specs": specs,
                },
            }
        )
    if kind == "fields":
        words = " ".join(draw(st.lists(FIELDS | st.sampled_from(["{", "}", "(", ")", "...", "$"]), max_size=12)))
        return dump({"query": "{ " + words + " }", "variables": draw(INPUT), "operationName": draw(TEXT | st.none())})
    return draw(st.binary(max_size=60) | VALUE.map(dump))


def dump(value: Any) -> bytes:
    """Return JSON as Python writes it, with bare NaN and half surrogate pairs."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


CHUNK = st.fixed_dictionaries({}, optional={"offset": SCALAR, "content": st.lists(TEXT | NASTY, max_size=4) | SCALAR})
POSTS = st.fixed_dictionaries(
    {},
    optional={
        "files": st.dictionaries(
            st.sampled_from(["wandb-history.jsonl", "wandb-summary.json", "wandb-events.jsonl", "output.log"]) | NAME,
            CHUNK | SCALAR,
            max_size=3,
        ),
        "complete": SCALAR,
        "exitcode": SCALAR,
        "preempting": SCALAR,
        "uploaded": VALUE,
    },
).map(dump) | st.binary(max_size=60)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Return method, path and body."""
    endpoint = draw(st.sampled_from(["graphql", "graphql", "file_stream", "upload", "page", "import", "files"]))
    if endpoint == "graphql":
        return "POST", "/graphql", draw(documents())
    if endpoint == "file_stream":
        run = draw(st.sampled_from(["r", "r", "r", "none"]) | NAME)
        return "POST", f"/files/local/p/{quoted(run)}/file_stream", draw(POSTS)
    if endpoint == "upload":
        return draw(st.sampled_from(["PUT", "GET"])), f"/storage/{quoted(draw(NAME))}", draw(st.binary(max_size=60))
    if endpoint == "import":
        head = st.sampled_from(["format: amc-sweep-export\nversion: 2\nproject: p\n"])
        tail = st.sampled_from(["runs: [{id: r, state: finished}]", "sweeps: [{id: s, config: {}}]", "runs: 1", ""])
        body = draw(st.tuples(head, tail).map("".join) | TEXT)
        return "POST", "/import", body.encode("utf-8", "surrogatepass")
    parts = draw(st.lists(st.sampled_from(["local", "p", "sweeps", "runs", "r", "s", "files"]) | NASTY, max_size=5))
    prefix = "/files/local/p/r/" if endpoint == "files" else "/"
    return "GET", prefix + "/".join(map(quoted, parts)), b""


def quoted(text: str) -> str:
    """Return a path segment: sometimes with its slashes, as an attacker would send it."""
    return urllib.parse.quote(text.encode("utf-8", "surrogatepass"), safe="/." if len(text) % 2 else "")


class Prober:
    """Sends requests and counts the replies."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._port = int(server.base_url.rsplit(":", 1)[1])
        self._authorization = "Basic " + base64.b64encode(f"api:{server.key}".encode()).decode()
        self.statuses: Counter[int] = Counter()
        self.slowest_s = 0.0
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def send(self, method: str, path: str, body: bytes) -> None:
        """Send one request and check the reply."""
        begin = time.perf_counter()
        try:
            self._connection.request(method, path, body, {"Authorization": self._authorization})
            response = self._connection.getresponse()
            answer = response.read()
        except http.client.HTTPException:  # after a 4xx in the middle of a body the server may close
            self._connection.close()
            raise
        self.slowest_s = max(self.slowest_s, time.perf_counter() - begin)
        self.statuses[response.status] += 1
        assert response.status < 500, f"{response.status} for {method} {path} {body[:300]!r}: {answer[:300]!r}"
        if response.status >= 400:
            assert len(answer) > 10, f"{response.status} without a reason: {method} {path}"


def files_below(folder: Path) -> Iterator[Path]:
    """Return every file."""
    return (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.timeout(3000)
def test_no_request_is_answered_with_5xx_or_leaves_a_file_outside_the_data_folder(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data") as server:
        server.graphql(
            """mutation { upsertBucket(input: {name: "r", modelName: "p", config: "{}"}) { bucket { id } } }"""
        )
        prober = Prober(server)
        before = set(files_below(tmp_path)) - set(files_below(server.data))
        begin = time.monotonic()

        @settings(
            max_examples=REQUESTS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(requests())
        def probe(request: tuple[str, str, bytes]) -> None:
            prober.send(*request)

        try:
            probe()
        finally:
            prober.close()
        assert server.health() is not None
        assert set(files_below(tmp_path)) - set(files_below(server.data)) == before
        log = (server.data / "server.log").read_text()
        assert '"level": "error"' not in log, next(line for line in log.splitlines() if '"level": "error"' in line)
        total = sum(prober.statuses.values())
        keep(
            "bad_input_small",
            full=total >= 10_000,
            figures={
                "generated requests": total,
                **{f"answered {status}": count for status, count in sorted(prober.statuses.items())},
                "answered 5xx": sum(count for status, count in prober.statuses.items() if status >= 500),
                "slowest answer, ms": prober.slowest_s * 1000,
                "files outside the data folder": 0,
                "minutes": (time.monotonic() - begin) / 60,
            },
        )


class Attacker:
    """Sends generated requests, checks every reply, and watches the server's process."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._port = int(server.base_url.rsplit(":", 1)[1])
        self._authorization = "Basic " + base64.b64encode(f"api:{server.key}".encode()).decode()
        self._process = psutil.Process(server.pid)
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        self.taken: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.slowest_s: Counter[str] = Counter()
        self.bytes = 0

    def close(self) -> None:
        self._connection.close()

    def memory_mb(self) -> float:
        """Return the server's resident memory."""
        return float(self._process.memory_info().rss / 1e6)

    def send(self, one: Input) -> None:
        """Send a request. Where other programs share the CPUs, an answer's time is at most the server's CPU time."""
        self.bytes += len(one.body)
        cpu_s, begin = self._cpu_s(), time.perf_counter()
        headers = {"Authorization": self._authorization, **one.headers}
        self._connection.request(one.method, one.path, one.body, headers)
        response = self._connection.getresponse()
        answer = response.read()
        took_s = time.perf_counter() - begin
        if took_s > LONGEST_S / 2:
            took_s = min(took_s, self._cpu_s() - cpu_s)
        shown = (
            f"{response.status} after {took_s:.2f} s: {one.reader} {one.path[:80]} {one.body[:200]!r} {answer[:300]!r}"
        )
        assert response.status < 500, shown
        assert took_s < LONGEST_S, shown
        self.slowest_s[one.reader] = max(self.slowest_s[one.reader], took_s)  # type: ignore[assignment]
        if one.reader == "reads":
            _check_strict(json.loads(answer))
        errors = b'"errors"' in answer[:200]
        (self.refused if response.status >= 400 or errors else self.taken)[one.reader] += 1
        if response.status >= 400 or errors:
            assert 10 < len(answer) < 100_000, shown
            assert b"Traceback" not in answer, shown

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def _check_strict(value: Any) -> None:
    """Check that a value holds no control character, and that texts of JSON in it hold nothing that JSON lacks."""
    if isinstance(value, str):
        assert printable(value) == value, repr(value)[:200]
        if value[:1] in ("{", "["):
            with contextlib.suppress(json.JSONDecodeError):  # a text that only begins like JSON
                _check_strict(json.loads(value, parse_constant=pytest.fail))
    elif isinstance(value, dict | list):
        for item in [*value.keys(), *value.values()] if isinstance(value, dict) else value:
            _check_strict(item)
    else:
        assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.timeout(3000)
def test_inputs_of_up_to_a_megabyte_are_answered_soon_and_refused_in_words(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data") as server:
        for number in range(RUNS):
            document = 'mutation B($n: String) { upsertBucket(input: {name: $n, modelName: "p"}) { bucket { id } } }'
            server.graphql(document, n=f"r{number}")
        attacker = Attacker(server)
        begin, before_mb, peak_mb = time.monotonic(), 0.0, 0.0
        try:
            for number, one in enumerate(inputs(SEED, ATTACKS)):
                attacker.send(one)
                if number == min(FIRST, ATTACKS // 2):
                    before_mb = attacker.memory_mb()
                if number > FIRST and number % 10 == 0:
                    peak_mb = max(peak_mb, attacker.memory_mb())
                    assert peak_mb - before_mb < MOST_GROWTH_MB, (
                        f"{peak_mb:.0f} MB after {number}, {before_mb:.0f} before"
                    )
            for path in ("/graphql", "/bulk", "/import", "/files/local/p/r0/file_stream"):
                assert _refuses_by_size(server, path), path
        finally:
            attacker.close()
        assert server.health() is not None
        log = (server.data / "server.log").read_text()
        assert '"level": "error"' not in log, next(line for line in log.splitlines() if '"level": "error"' in line)
    readers = sorted(attacker.slowest_s)
    keep(
        "bad_input",
        full=ATTACKS >= 20_000,
        figures={
            "generated inputs": ATTACKS,
            "largest input, bytes": MOST_BYTES,
            "sent, MB": attacker.bytes / 1e6,
            **{
                f"{name}: taken, refused in words": f"{attacker.taken[name]:,}, {attacker.refused[name]:,}"
                for name in readers
            },
            **{f"{name}: slowest answer, ms": attacker.slowest_s[name] * 1000.0 for name in readers},
            "answered 5xx, crashes": 0,
            "memory before, peak, MB": f"{before_mb:.0f}, {peak_mb:.0f}",
            "minutes": (time.monotonic() - begin) / 60,
        },
    )


def _refuses_by_size(server: EmbeddedServer, path: str) -> bool:
    """Return whether a body that announces a gigabyte is refused before it is sent."""
    connection = http.client.HTTPConnection("127.0.0.1", int(server.base_url.rsplit(":", 1)[1]), timeout=10)
    connection.putrequest("POST", path)
    connection.putheader("Authorization", "Basic " + base64.b64encode(f"api:{server.key}".encode()).decode())
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    response = connection.getresponse()
    is_refused = response.status == 413 and b"larger than" in response.read()
    connection.close()
    return is_refused


@pytest.mark.timeout(3000)
def test_commands_read_or_refuse_every_generated_file() -> None:
    rng = random.Random(SEED)
    slowest_s = 0.0
    for _ in range(ATTACKS // 20):
        size = int(MOST_BYTES ** rng.random())
        text = rng.choice([yaml_text, sweep_text])(rng, size)
        begin = time.process_time()
        preflight = check_sweep(text, source="x")
        with contextlib.suppress(ExportFileError):
            read(text)
        slowest_s = max(slowest_s, time.process_time() - begin)
        assert slowest_s < 2 * LONGEST_S, text[:300]
        assert preflight.sweep is None or preflight.problems or preflight.configurations != 0


@pytest.mark.timeout(3000)
def test_every_damaged_checkpoint_is_refused_as_such_or_unchanged(tmp_path: Path) -> None:
    whole = Checkpoint(
        run="r",
        config={"max_lr": 0.001},
        epoch=1,
        steps_done=2,
        split_fingerprint="x",
        trained_on=[],
        metrics={"val/loss": 0.5},
        model={f"layer{number}.weight": torch.randn(40, 50) for number in range(20)},
        criterion={"log_variance": torch.zeros(2)},
        training={"random": torch.get_rng_state()},
    )
    path, damaged = tmp_path / "last.pt", tmp_path / "damaged.pt"
    save_checkpoint(path, whole)
    refused, unchanged, slowest_s = 0, 0, 0.0
    for content in damages(path.read_bytes(), CHECKPOINTS, SEED):
        damaged.write_bytes(content)
        begin = time.process_time()
        try:
            loaded = load_checkpoint(damaged)
        except CheckpointError:
            refused += 1
        else:
            unchanged += 1
            assert all(torch.equal(loaded.model[name], value) for name, value in whole.model.items())
            assert str((loaded.config, loaded.training)) == str((whole.config, whole.training))
        slowest_s = max(slowest_s, time.process_time() - begin)
    assert slowest_s < LONGEST_S
    keep(
        "bad_input_checkpoints",
        full=CHECKPOINTS >= 3000,
        figures={
            "damaged checkpoints": CHECKPOINTS,
            "size of each, bytes": path.stat().st_size,
            "CheckpointError": refused,
            "another error": 0,
            "read, with every value as saved": unchanged,
            "slowest, ms": slowest_s * 1000.0,
        },
    )
