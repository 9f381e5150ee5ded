"""A database with damaged cells, and what clients, browsers, agents and trials ask of it."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from in_process_server import FakeClock, GraphqlRefused, InProcessServer

from amc_server.ids import global_id
from amc_server.store.records import Line
from amc_server.store.schema import prepare
from amc_server.store.storage import Storage
from amc_server.store.writer import Writer
from amc_sweeps.runs.export_file import Export, write

SWEEP = "method: random\nmetric: {name: acc, goal: maximize}\nparameters: {a: {min: 0.0, max: 1.0}}\n"
HEALTHY = "healthy"
NOT_UTF8 = b"\xff\xfe{"  # as a text
ODD: list[Any] = [
    *(
        None,
        "",
        "x",
        "null",
        "[1]",
        "[" * 100_000,
        '{"a": NaN, "acc": 1e400, "t": "\\ud800\\u001b"}',
        '{"\\udfff": {}}',
    ),
    *(b"\x00\xff", -(2**63), 2**63 - 1, math.inf, -6.3e10, 1e300, 0.5, NOT_UTF8),
]

RUN = """id name displayName sweepName state config summaryMetrics systemMetrics tags group jobType commit description
    notes host createdAt heartbeatAt exitcode shouldStop stopped failed stopReason stopBand stopValue stopThreshold
    stateWhenExported unknownFacts historyLineCount eventsLineCount logLineCount historyTail eventsTail wandbConfig
    historyKeys history events sampledHistory(specs: ["{\\"keys\\": [\\"_step\\", \\"acc\\"]}"]) fileCount"""
ARTIFACT = """id versionIndex description metadata historyStep state size digest createdAt updatedAt fileCount
    tags { name } aliases { alias } artifactType { name } currentManifest { file { directUrl } }
    artifactSequence { name }"""
QUERIES = {
    "projects": """{ models { edges { node { id name description createdAt entityName runCount totalSweeps } } } }""",
    "runs": f"""{{ project(name: "p") {{ runs {{ edges {{ node {{ {RUN}
        logLines {{ edges {{ node {{ number line timestamp }} }} }}
        files {{ edges {{ node {{ name sizeBytes md5 url updatedAt }} }} }} }} }} }} }} }}""",
    "by run": f"""{{ project(name: "p") {{ runs(order: "-summary_metrics.acc,+tags,-config.a,-notes,heartbeat_at",
        filters: "{{\\"$or\\": [{{\\"config.a\\": {{\\"$gt\\": -5}}}}, {{\\"tags\\": \\"t\\"}}]}}")
        {{ edges {{ node {{ id outputArtifacts {{ edges {{ node {{ {ARTIFACT} }} }} }}
            inputArtifacts {{ edges {{ node {{ id }} }} }} }} }} }} }} }}""",
    "sweeps": """{ project(name: "p") { sweeps { edges { node { id name displayName method state description config
        createdAt updatedAt heartbeatAt bestLoss controller scheduler runCount runCountExpected unknownFacts
        seed shuffle updates { at author config }
        agents { edges { node { id name host state totalRuns createdAt heartbeatAt } } }
        runs { edges { node { name } } } priorRuns { edges { node { name config } } } } } } } }""",
    "collections": """{ project(name: "p") { artifactTypes { edges { node { name } } }
        artifactCollections(filters: "{\\"type\\": \\"model\\"}", order: "-created_at") { edges { node {
            name description createdAt updatedAt tags { edges { node { name } } } aliases { edges { node { alias } } }
        } } } } }""",
    "versions": f"""{{ project(name: "p") {{ artifactType(name: "model") {{ artifactCollections {{ edges {{ node {{ name
        ... on ArtifactSequence {{ artifacts {{ edges {{ version node {{ {ARTIFACT}
            createdBy {{ ... on Run {{ id }} }} }} }} }} }}
        }} }} }} }} }} }}""",
    "files": """{ project(name: "p") { artifactType(name: "model") { artifactCollections { edges { node { name
        ... on ArtifactSequence { latestArtifact { id usedBy { edges { node { id } } }
            files { edges { node { name sizeBytes md5 directUrl updatedAt } } } } } } } } } } }""",
}


def add_chain(store: Writer, name: str, now: float) -> None:
    """Store a project, and in project ``p`` a sweep with everything that can belong to it."""
    project, other = (store.project_or_new(project, now).pk for project in ("p", f"of-{name}"))
    facts = {"project": project, "created_at": now}
    sweep = store.insert("sweeps", id=f"s-{name}", state="RUNNING", config=SWEEP, seed=1, updated_at=now, **facts)
    store.insert("sweep_updates", sweep=sweep, at=now, author="a", config=SWEEP)
    agent = store.insert("agents", sweep=sweep, name=f"a-{name}", host="box", created_at=now, heartbeat_at=now)
    run = store.insert(
        "runs",
        **{"id": f"r-{name}", "sweep": sweep, "origin": "search", "number": 0, "parameters": '{"a": 0.5}'},
        **{"state": "running", "agent": agent, "started": 1, "hand_outs": 1, "config": '{"a": {"value": 0.5}}'},
        **{"summary": '{"acc": 0.5}', "tags": '["t"]', "history_lines": 2, "event_lines": 1, "console_lines": 1},
        heartbeat_at=now,
        **facts,
    )
    waiting = {"state": "pending", "parameters": '{"a": 0.75}', "origin": "queue", "sweep": sweep, "number": 1}
    store.insert("runs", id=f"q-{name}", **waiting, **facts)
    prior = store.insert("runs", id=f"p-{name}", origin="trial", state="finished", created_at=now, project=other)
    store.put_history(run, [Line(line, json.dumps({"_step": line, "acc": 0.5}), line) for line in range(2)])
    store.put_lines("events", run, [Line(0, '{"system.cpu": 1.0}')])
    store.put_lines("console", run, [Line(0, "2026-01-01T00:00:00 line")])
    store.put_shared_lines(run, "history", name, [(0, 0)])
    store.put_points(sweep, run, 0, 2, [(0, 0.25), (1, 0.5)])
    store.put_prior_run(sweep, prior, '{"a": 0.25}', [0.1, 0.2])
    file = {"blob": "0" * 32, "size": 5, "md5": "x==", "updated_at": now}
    store.put_file(run, name="f.txt", **file)
    artifact = store.insert(
        "artifacts",
        **{"run": run, "type": "model", "collection": f"c-{name}", "version": 0, "state": "COMMITTED", "digest": "d"},
        **{"client_id": f"cid-{name}", "metadata": "{}", "manifest": "0" * 32, "updated_at": now},
        **facts,
    )
    reference = store.insert("artifact_files", artifact=artifact, name="ref", md5="x", updated_at=now)
    store.insert("artifact_files", artifact=artifact, name="f.txt", **file)
    store._connection.execute("INSERT INTO artifact_references VALUES (?, ?)", (reference, "s3://x"))
    stored = store.artifact(artifact)
    assert stored is not None
    store.put_alias(stored, "latest")
    store.put_use(run, artifact)
    store.put_output(prior, artifact)
    store.put_client_id(f"id-{name}", artifact)
    store.put_artifact_tag(artifact, "t")
    store.put_collection_tag(project, f"c-{name}", "t")
    store.put_collection_description(project, f"c-{name}", "described")


def make_template(folder: Path) -> Path:
    """Return a database of one healthy chain and one chain for each odd value, with nothing that refuses odd values."""
    storage, now = Storage(folder), FakeClock().wall()
    with storage.write() as store:
        for name in (HEALTHY, *(f"v{number}" for number in range(len(ODD)))):
            add_chain(store, name, now)
        for table in ("projects", "sweeps", "agents", "runs", "files", "artifacts", "artifact_files"):
            store.set_meta(f"deleted {table}", "1000")
        store.set_meta("signing_secret", "0" * 64)
    storage.close()
    path = folder / "amc.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema = ON")
        for old, new in ((" NOT NULL", ""), (") STRICT, WITHOUT ROWID", ") WITHOUT ROWID"), (") STRICT", ")")):
            database.execute("UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE type = 'table'", (old, new))
        database.commit()
    return path


def columns() -> list[tuple[str, str]]:
    """Return every column of every table that can hold another value than a key."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        prepare(database)
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [
            (table, column)
            for table in tables
            for _, column, kind, _, _, key in database.execute(f"PRAGMA table_info({table})")
            if not (column == "pk" or (kind == "INTEGER" and key == 1 and column == "file"))
        ]


def damage(path: Path, table: str, odd: Mapping[int, Mapping[str, Any]]) -> None:
    """Put odd values into a table, given by column for the number of a chain; the healthy chain stays as it is."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        keys = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[5]] or ["rowid"]
        rows = database.execute(f"SELECT {', '.join(keys)} FROM {table} ORDER BY {', '.join(keys)}").fetchall()
        of_a_chain = max(1, len(rows) // (len(ODD) + 1))
        victims = rows[{"meta": 0, "projects": 2}.get(table, of_a_chain) :]
        where = " AND ".join(f"{key} IS ?" for key in keys)
        for number, values in odd.items():
            changes = ", ".join(
                f"{name} = {'CAST(? AS TEXT)' if value is NOT_UTF8 else '?'}" for name, value in values.items()
            )
            for row in victims[number * of_a_chain : (number + 1) * of_a_chain]:
                with contextlib.suppress(sqlite3.IntegrityError):  # of two equal keys
                    database.execute(f"UPDATE {table} SET {changes} WHERE {where}", (*values.values(), *row))
        database.commit()


def answers(server: InProcessServer) -> dict[str, Any]:
    """Ask what clients and browsers ask, and return what they are told about the healthy chain."""
    told: dict[str, Any] = {}
    names: set[str] = set()
    for name, document in QUERIES.items():
        text = re.sub(r"/storage/[^\"]*", "/storage/...", json.dumps(server.graphql(document)))
        json.loads(text, parse_constant=_fail)
        nodes = _nodes(json.loads(text))
        for node in nodes:
            for key in ("config", "summaryMetrics", "systemMetrics", "historyTail", "metadata", "wandbConfig"):
                if isinstance(node.get(key), str) and "method" not in node:
                    json.loads(node[key], parse_constant=_fail)
        told[name] = [node for node in nodes if HEALTHY in str(node.get("name"))]
        if name == "runs":
            ids = {str(node["name"]) for node in nodes if "historyKeys" in node}
            names = {name for name in ids if not name.startswith(("q-", "p-"))}
    for path in ("/", "/local/p", f"/local/p/sweeps/s-{HEALTHY}", *(f"/local/p/runs/{run}" for run in sorted(names))):
        reply = server.request("GET", path.replace("?", "%3F"))
        assert reply.status in (200, 404), (path, reply.body[:300])
        if HEALTHY in path:
            told[path] = re.sub(rb'data-token="[^"]*"', b"", reply.body)  # of the browser's session
    for path in (f"/local/p/sweeps/s-{HEALTHY}/data", *(f"/local/p/runs/{run}/data" for run in sorted(names))):
        reply = server.request("GET", path.replace("?", "%3F"))
        assert reply.status in (200, 404), (path, reply.body[:300])
        if HEALTHY in path and reply.status == 200:
            data = json.loads(reply.body, parse_constant=_fail)
            told[path] = {name: value for name, value in data.items() if name not in ("version", "now")}
    sweeps = [f"s-v{number}" for number in range(len(ODD))]
    for number, sweep in enumerate([None, *sweeps, f"s-{HEALTHY}"]):
        request = {"project": "p", "runs": sorted(names)} if sweep is None else {"sweep": sweep}
        reply = server.request("POST", "/bulk", json.dumps(request).encode())
        assert reply.status in (200, 404), reply.body[:300]
        if sweep == f"s-{HEALTHY}":
            told["bulk"] = reply.body
        assert number or reply.status == 200
        if sweep and sweep != f"s-{HEALTHY}":
            for path in (f"/local/p/sweeps/{sweep}", f"/local/p/sweeps/{sweep}/data"):
                reply = server.request("GET", path)
                assert reply.status in (200, 404), (path, reply.body[:300])
                if path.endswith("data") and reply.status == 200:
                    json.loads(reply.body, parse_constant=_fail)
    return told


def _fail(word: str) -> None:
    pytest.fail(f"bare {word}")


def _nodes(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        inner = [node for item in value.values() for node in _nodes(item)]
        return [value, *inner] if "id" in value or "name" in value else inner
    return [node for item in value for node in _nodes(item)] if isinstance(value, list) else []


def changes(server: InProcessServer) -> list[Any]:
    """Do what agents, trials and users do to every chain; the healthy one's replies are returned."""
    told: list[Any] = []
    server.advance(1)
    with server.storage.read() as store:
        sweeps = store.sweeps(1)
        agents = [agent for sweep in sweeps for agent in store.agents(sweep.pk)]
    assert agents
    document = """mutation H($id: ID!) { agentHeartbeat(input: {id: $id, runState: "{}"}) { commands } }"""
    for agent in agents:
        with contextlib.suppress(GraphqlRefused):
            reply = server.graphql(document, id=global_id("Agent", agent.pk))
            if HEALTHY in agent.name:
                told.append(json.loads(reply["agentHeartbeat"]["commands"]))
    for name in (HEALTHY, *(f"v{number}" for number in range(len(ODD)))):
        body = {"files": {"wandb-history.jsonl": {"offset": 2, "content": ['{"_step": 2, "acc": 0.75}']}}}
        reply = server.request("POST", f"/files/local/p/r-{name}/file_stream", json.dumps(body).encode())
        assert reply.status in ((200,) if name == HEALTHY else (200, 400, 404)), reply.body[:200]
        with contextlib.suppress(GraphqlRefused):
            server.begin(f"r-{name}", {"a": 0.5}, sweep=f"s-{name}")
        with contextlib.suppress(GraphqlRefused):
            server.graphql(
                """mutation C($sweep: String!) { createAgent(input: {host: "h", projectName: "p", sweep: $sweep}) {
                agent { id } } }""",
                sweep=f"s-{name}",
            )
    export = Export("p", (), tuple({"id": f"r-v{number}", "state": "finished"} for number in range(len(ODD))))
    assert server.request("POST", "/import", write(export).encode()).status in (200, 409)
    pause = """mutation U($id: ID) { upsertSweep(input: {id: $id, state: "PAUSED"}) { sweep { state } } }"""
    for sweep in sweeps:
        state = server.graphql(pause, id=global_id("Sweep", sweep.pk))
        told += [state] if HEALTHY in sweep.id else []
    told.append(server.create_sweep(SWEEP) != "")
    return told
