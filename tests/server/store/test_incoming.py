"""What clients send is stored without control characters and lone surrogates, whichever way it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_server import GraphqlRefused, InProcessServer

from amc_server.store.incoming import storable_json
from amc_sweeps.runs.export_file import Export, write
from amc_sweeps.values import printable

NASTY = "a\x1b[2J\r\u202e\x9b\x7fb"
SHOWN = "a\\x1b[2J\\r\\u202e\\x9b\\x7fb"
RUN = """query R { project(name: "p") { run(name: "r") { displayName notes group jobType tags config summaryMetrics
    history } } }"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


def stored(server: InProcessServer) -> dict[str, Any]:
    """Return the run as the server has it, with its JSON read."""
    node = dict(server.graphql(RUN)["project"]["run"])
    node |= {name: json.loads(node[name]) for name in ("config", "summaryMetrics")}
    return {**node, "history": [json.loads(row) for row in node["history"]]}


def check(node: dict[str, Any]) -> None:
    assert printable(node) == node
    assert SHOWN in node["displayName"]
    assert node["notes"] == f"line 1\nline 2\t{SHOWN}"
    assert (node["group"], node["jobType"], node["tags"]) == (SHOWN, SHOWN, [SHOWN])
    assert node["config"][SHOWN]["value"] == {SHOWN: [SHOWN, "\\ud800"]}
    assert node["summaryMetrics"][SHOWN] == "\\udfff"
    assert node["history"][0][SHOWN] == SHOWN


def test_texts_that_a_trial_sends_are_made_printable(server: InProcessServer) -> None:
    document = """mutation B($input: UpsertBucketInput!) { upsertBucket(input: $input) { bucket { id } } }"""
    texts = {"displayName": NASTY, "notes": f"line 1\r\nline 2\t{NASTY}", "groupName": NASTY, "jobType": NASTY}
    config = json.dumps({NASTY: {"value": {NASTY: [NASTY, "\ud800"]}}})
    summary = json.dumps({NASTY: "\udfff"})
    run = {"name": "r", "modelName": "p", **texts, "tags": [NASTY], "config": config, "summaryMetrics": summary}
    server.graphql(document, input=run)
    server.post("r", files={"wandb-history.jsonl": {"offset": 0, "content": [json.dumps({NASTY: NASTY})]}})
    check(stored(server))


def test_texts_of_an_import_are_made_printable_and_the_same_file_is_unchanged_a_second_time(
    server: InProcessServer,
) -> None:
    run = {
        **{"id": "r", "state": "finished", "name": NASTY, "notes": f"line 1\nline 2\t{NASTY}", "group": NASTY},
        **{"job_type": NASTY, "tags": [NASTY], "config": {NASTY: {NASTY: [NASTY, "\\ud800"]}}},
        **{"summary": {NASTY: "\\udfff"}, "history": [{NASTY: NASTY, "half": "\ud800"}]},
    }
    body = write(Export("p", (), (run,))).encode()  # the history is JSON, in which half a pair can be written
    assert server.request("POST", "/import", body).json() == {"sweeps": 0, "runs": 1, "unchanged": 0}
    check(stored(server))
    assert stored(server)["history"][0]["half"] == "\\ud800"
    assert server.request("POST", "/import", body).json() == {"sweeps": 0, "runs": 0, "unchanged": 1}


@pytest.mark.parametrize(
    "config",
    [
        'method: grid\nparameters: {"a\\x1b[2J": {values: [1, 2]}}\n',
        'method: grid\nparameters: {a: {values: ["\\x1b[2J", x]}}\n',
        'method: random\nmetric: {name: "acc\\r"}\nparameters: {a: {values: [1]}}\n',
    ],
)
def test_a_sweep_whose_names_or_values_hold_control_characters_is_refused(server: InProcessServer, config: str) -> None:
    with pytest.raises(GraphqlRefused, match=r"may hold no control characters|is not allowed") as refused:
        server.create_sweep(config)
    assert printable(str(refused.value)) == str(refused.value)


def test_json_without_control_characters_is_stored_as_it_was_sent() -> None:
    for text in ('{"a": 1.50, "b": NaN}', '{"a": "\\u00e9 \\n \\\\u001b"}', '{"é": "\\t"}'):
        assert storable_json(text) == text


def test_no_client_sees_a_bare_nan(server: InProcessServer) -> None:
    server.begin("r", {"lr": 0.1, "limit": float("inf")})
    rows = ['{"_step": 0, "acc": NaN, "deep": {"x": [-Infinity]}, "big": 1e400}', '{"_step": 1, "acc": 0.50}']
    server.post("r", files={name: {"offset": 0, "content": rows} for name in ("wandb-history.jsonl",)})
    server.post("r", files={"wandb-events.jsonl": {"offset": 0, "content": ['{"cpu": NaN}']}})
    server.post(
        "r", files={"wandb-summary.json": {"offset": 0, "content": ['{"acc": NaN, "best": {"max": Infinity}}']}}
    )
    document = """query R { project(name: "p") { run(name: "r") { config summaryMetrics history events historyTail
        eventsTail systemMetrics } } }"""
    node = server.graphql(document)["project"]["run"]
    node |= {name: json.loads(node[name]) for name in ("historyTail", "eventsTail")}
    texts = [node["config"], node["summaryMetrics"], node["systemMetrics"], *node["history"], *node["events"]]
    for text in [*texts, *node["historyTail"], *node["eventsTail"]]:
        json.loads(text, parse_constant=lambda word: pytest.fail(f"bare {word}"))
    assert json.loads(node["summaryMetrics"]) == {"acc": "NaN", "best": {"max": "Infinity"}}
    assert json.loads(node["config"])["limit"]["value"] == "Infinity"
    assert node["history"][1] == rows[1]
    assert json.loads(node["history"][0]) == {
        **{"_step": 0, "acc": "NaN", "big": "Infinity"},
        "deep": {"x": ["-Infinity"]},
    }
