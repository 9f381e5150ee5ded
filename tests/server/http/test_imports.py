"""Imports of export files, and backups of a running server."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from in_process_server import KEY, GraphqlRefused, InProcessServer

from amc_agents.commands.backup import backup_command
from amc_server.app import signing_secret
from amc_server.clock import iso_time
from amc_server.http.imports import run_record, sweep_record
from amc_server.store.backup import BackupError, back_up
from amc_sweeps.runs.export_file import Export, write

CONFIG = {
    "method": "random",
    "metric": {"name": "acc", "goal": "maximize"},
    "parameters": {"a": {"min": 0.0, "max": 1.0}},
    "run_cap": 3,
}
CREATE_FILE = """mutation C { createRunFiles(input: {projectName: "p", runName: "r", files: ["a.txt"]}) {
    files { uploadUrl } } }"""
SWEEP = {"id": "sweep001", "state": "RUNNING", "config": CONFIG, "created_at": "2024-05-06T07:08:09Z"}


def run(number: int, **more: Any) -> dict[str, Any]:
    """Return an exported run."""
    rows = [{"_step": step, "acc": number / 10 + step / 100} for step in range(3)]
    own = {"id": f"run{number}", "sweep": "sweep001", "state": "finished", "config": {"a": number / 10}}
    return {**own, "summary": {"acc": rows[-1]["acc"]}, "history": rows, **more}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


def send(server: InProcessServer, *runs: dict[str, Any], sweep: dict[str, Any] = SWEEP) -> tuple[int, Any]:
    """Import and return the status and the reply."""
    reply = server.request("POST", "/import", write(Export("p", (sweep,), runs)).encode())
    return reply.status, reply.json()


def test_an_imported_sweep_has_every_run_and_row_and_can_continue(server: InProcessServer) -> None:
    killed = run(2, state="killed", exit_code=255, stop_recorded=True, stop_reason="hyperband", stop_band=1)
    assert send(server, run(1), killed) == (200, {"sweeps": 1, "runs": 2, "unchanged": 0})
    sweep = server.sweep("sweep001")
    assert (sweep["state"], sweep["bestLoss"]) == ("PENDING", 0.22)
    assert sweep["runs"]["run2"]["state"] == "killed"
    assert (sweep["runs"]["run2"]["stopReason"], sweep["runs"]["run2"]["stopBand"]) == ("hyperband", 1)
    assert [row["acc"] for row in server.history("run1")] == [row["acc"] for row in run(1)["history"]]
    agent = server.create_agent("sweep001")
    third = server.draw(agent)
    assert third["args"]["a"]["value"] not in (0.1, 0.2)
    server.begin(third["run_id"])
    server.finish(third["run_id"])
    assert server.heartbeat(agent) == [{"type": "exit"}], "run_cap counts the imported runs"


def test_an_imported_sweep_that_has_reached_its_target_is_finished(server: InProcessServer) -> None:
    config = {**CONFIG, "metric": {"name": "acc", "goal": "maximize", "target": 0.12}}
    send(server, run(1), sweep={**SWEEP, "config": config})
    assert server.sweep("sweep001")["state"] == "FINISHED"


def test_importing_the_same_twice_changes_nothing(server: InProcessServer) -> None:
    send(server, run(1), run(2, state="running"))
    before = server.sweep("sweep001")
    assert send(server, run(1), run(2, state="running")) == (200, {"sweeps": 0, "runs": 0, "unchanged": 3})
    assert server.sweep("sweep001") == before


def test_what_an_export_cannot_keep_as_it_was_is_unchanged_on_its_own_server(server: InProcessServer) -> None:
    sweep_id = server.create_sweep(json.dumps({**CONFIG, "name": "a\u202eb"}))
    server.begin("r", {"text": "NaN"})
    server.post("r", files={"wandb-history.jsonl": {"offset": 0, "content": ['{"acc": NaN, "text": "Infinity"}']}})
    server.post("r", files={"wandb-summary.json": {"offset": 0, "content": ['{"text": "-Infinity"}']}}, complete=True)
    exported = {
        **{"id": "r", "state": "finished", "config": {"text": math.nan}, "summary": {"text": -math.inf}},
        "history": [{"acc": math.nan, "text": math.inf}],
    }
    sweep = {"id": sweep_id, "config": {**CONFIG, "name": "a\u202eb"}}
    assert send(server, exported, sweep=sweep) == (200, {"sweeps": 0, "runs": 0, "unchanged": 2})


def test_other_contents_under_an_existing_id_are_refused_and_nothing_is_imported(server: InProcessServer) -> None:
    send(server, run(1))
    changed = run(1)
    changed["history"][1]["acc"] = 0.5
    status, answer = send(server, run(3), changed)
    assert status == 409
    assert "run1 (history)" in answer["errors"][0]["message"]
    assert list(server.sweep("sweep001")["runs"]) == ["run1"]
    status, answer = send(server, sweep={**SWEEP, "config": {**CONFIG, "run_cap": 4}})
    assert status == 409
    assert "sweep sweep001 (config)" in answer["errors"][0]["message"]


FACTS = """query F($run: String!) { project(name: "p") { run(name: $run) { state stopped shouldStop stateWhenExported
    unknownFacts sampledHistory(specs: ["{\\"keys\\": [\\"_step\\", \\"acc\\"]}"]) } } }"""


def facts(server: InProcessServer, run: str) -> dict[str, Any]:
    """Return a run as GraphQL gives it."""
    return dict(server.graphql(FACTS, run=run)["project"]["run"])


def stored(server: InProcessServer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the sweep and run1 as export records."""
    with server.storage.read() as store:
        sweep = store.sweep_by_id("sweep001")
        assert sweep is not None
        record = store.run(sweep.project, "run1")
        assert record is not None
        return dict(sweep_record(store, sweep)), dict(run_record(store, record))


def test_an_imported_living_run_has_crashed_and_keeps_its_exported_state_until_it_continues(
    server: InProcessServer,
) -> None:
    send(server, run(1, state="running"))
    assert (facts(server, "run1")["state"], facts(server, "run1")["stateWhenExported"]) == ("crashed", "running")
    assert stored(server)[1]["state"] == "running", "a second export gives the exported state"
    server.begin("run1", sweep="sweep001")
    assert (facts(server, "run1")["state"], facts(server, "run1")["stateWhenExported"]) == ("running", None)
    server.finish("run1")
    assert facts(server, "run1")["stateWhenExported"] is None


def test_what_the_file_lacks_is_absent_when_it_is_exported_again(server: InProcessServer) -> None:
    bare = {"id": "run1", "sweep": "sweep001", "state": "finished", "summary": {"acc": 0.5}}
    sweep = {"id": "sweep001", "state": "FINISHED", "config": CONFIG}
    send(server, bare, sweep=sweep)
    assert stored(server) == ({"id": "sweep001", "config": CONFIG}, bare)
    null = {**bare, "exit_code": None, "stop_recorded": False, "history": [], "created_at": "2025-07-01T12:00:00Z"}
    reply = server.request("POST", "/import", write(Export("p", (sweep,), ({**null, "id": "run2"},))).encode())
    assert reply.status == 200
    assert not {"exit_code", "stop_recorded", "history", "created_at"} & set(facts(server, "run2")["unknownFacts"])


def test_changes_of_the_config_come_with_the_file_and_others_are_a_conflict(server: InProcessServer) -> None:
    before = {**CONFIG, "method": "bayes"}
    updates = [{"at": "2025-07-01T12:00:00Z", "author": "ann", "config": before}]
    sweep = {**SWEEP, "updates": updates}
    assert send(server, run(1), sweep=sweep)[0] == 200
    assert stored(server)[0]["updates"] == [{**updates[0], "at": "2025-07-01T12:00:00.000000Z"}]
    assert send(server, run(1), sweep=sweep)[1]["unchanged"] == 2
    reply = server.request("POST", "/bulk", b'{"sweep": "sweep001"}')
    (bulk,) = json.loads(reply.body.partition(b"\n")[0])["sweep"]["updates"]
    assert (bulk["author"], yaml.safe_load(bulk["config"])) == ("ann", before)
    assert send(server, run(1), sweep={**SWEEP, "updates": [{**updates[0], "author": "bob"}]})[0] == 409
    bad = {**SWEEP, "id": "sweep002", "updates": [{**updates[0], "config": {"method": "gird"}}]}
    assert send(server, run(2, sweep="sweep002"), sweep=bad)[0] == 400


def test_a_stop_is_reported_only_if_one_was_recorded(server: InProcessServer) -> None:
    send(server, run(1, state="killed"), run(2, state="killed", stop_recorded=True), run(3, state="killed"))
    stops = [(facts(server, name)["stopped"], facts(server, name)["shouldStop"]) for name in ("run1", "run2")]
    assert stops == [(False, False), (True, True)]
    reply = server.request("POST", "/bulk", b'{"sweep": "sweep001"}')
    runs = json.loads(reply.body.partition(b"\n")[0])["runs"]
    assert [(exported["stop_recorded"], exported["created_at"]) for exported in runs] == [
        (None, None),
        (True, None),
        (None, None),
    ]


def test_rows_without_a_step_are_found_by_their_keys(server: InProcessServer) -> None:
    bare = run(1, history=[{"acc": 0.25}, {"acc": 0.5}])
    assert send(server, bare)[0] == 200
    (rows,) = facts(server, "run1")["sampledHistory"]
    assert rows == [{"_step": 0, "acc": 0.25}, {"_step": 1, "acc": 0.5}]
    assert send(server, bare)[1] == {"sweeps": 0, "runs": 0, "unchanged": 2}


def test_a_sweep_of_another_project_is_refused_with_what_to_do(server: InProcessServer) -> None:
    send(server, run(1))
    reply = server.request("POST", "/import", write(Export("other", (SWEEP,), (run(1),))).encode())
    message = reply.json()["errors"][0]["message"]
    assert reply.status == 409
    assert "sweep001 (in p)" in message
    assert "another server" in message
    assert "Change the file's project" not in message


def test_the_page_of_a_finished_import_ranks_by_the_summary_and_shows_no_agent_command(server: InProcessServer) -> None:
    worse, better = (
        {"id": f"run{number}", "sweep": "sweep001", "state": "finished", "summary": {"acc": number / 8}}
        for number in (1, 2)
    )
    sweep = {"id": "sweep001", "state": "FINISHED", "config": CONFIG, "description": "Twelve runs on <two> machines."}
    send(server, worse, better, sweep=sweep)
    page = server.request("GET", "/local/p/sweeps/sweep001").body.decode()
    data = server.request("GET", "/local/p/sweeps/sweep001/data").json()
    assert [(run["peak"], rank) for (_, run), rank in zip(data["rows"], data["ranks"], strict=True)] == [
        (0.125, 2),
        (0.25, 1),
    ]
    assert {run["began"] for _, run in data["rows"]} == {None}
    assert "Twelve runs on &lt;two&gt; machines." in page
    assert '<p id="one-more-agent" hidden>' in page
    imported_in = iso_time(server.clock.wall())
    assert imported_in is not None
    for address in ("/local/p/sweeps/sweep001", "/local/p/runs/run1", "/local/p"):
        assert imported_in[:10] not in server.request("GET", address).body.decode(), (
            "the time of the import is not when it began"
        )


def test_the_page_of_an_open_sweep_shows_the_agent_command(server: InProcessServer) -> None:
    send(server, run(1))
    page = server.request("GET", "/local/p/sweeps/sweep001").body.decode()
    assert "wandb agent local/p/sweep001" in page
    reply = server.request("POST", "/import", write(Export("a b;c", ({**SWEEP, "id": "s2"},), ())).encode())
    assert reply.status == 200
    page = server.request("GET", "/local/a b;c/sweeps/s2").body.decode()
    assert "wandb agent &#39;local/a b;c/s2&#39;" in page, "a shell takes it as one word"


def test_a_field_that_an_export_lacks_is_not_a_conflict(server: InProcessServer) -> None:
    send(server, run(1, host="box", exit_code=0))
    bare = {"id": "run1", "sweep": "sweep001", "state": "finished"}
    assert send(server, bare) == (200, {"sweeps": 0, "runs": 0, "unchanged": 2})


def test_a_file_that_is_not_an_export_is_refused(server: InProcessServer) -> None:
    for body in (b"", b"\xff", b"method: grid", b"format: amc-sweep-export\nversion: 9\n"):
        reply = server.request("POST", "/import", body)
        assert reply.status == 400
        assert "not an export file" in reply.json()["errors"][0]["message"]
    assert server.request("POST", "/import", b"", auth=False).status == 401
    status, answer = send(server, sweep={**SWEEP, "config": {"method": "gird"}})
    assert status == 400
    assert "gird" in answer["errors"][0]["message"]


HEAD = "format: amc-sweep-export\nversion: 2\nproject: p\n"
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)
BIG, BEYOND_64_BITS = "9" * 5000, str(2**70)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 30_000, "nested more than 64 deep"),
        ("[" * 200_000, "nested more than 64 deep"),
        (LAUGHS, "values"),
        (HEAD + "x: 1\n" * 100_000, "not an export file"),
        *(
            (HEAD + f"runs: [{{id: r, state: finished, {field}: {number}}}]", reason)
            for field in ("exit_code", "stop_band", "stop_value", "stop_threshold")
            for number, reason in (
                (BEYOND_64_BITS, f"{field} is"),
                (f"-{BEYOND_64_BITS}", f"{field} is"),
                (BIG, "digits"),
            )
        ),
        (HEAD + f"runs: [{{id: r, state: finished, summary: {{a: {BIG}}}}}]", "digits"),
        (HEAD + f"runs: [{{id: r, state: finished, config: {{a: 0x{'f' * 100_000}}}}}]", "digits"),
        (HEAD + f"runs: [{{id: r, state: finished, history: '{{\"a\": {BIG}}}'}}]", "digits"),
        (HEAD + "runs: [{id: r, state: finished, history: '" + "[" * 100_000 + "'}]", "nested"),
        (HEAD + "runs: [{id: r, state: [finished]}]", "state is"),
        (HEAD + "runs: [{id: r, state: {a: b}}]", "state is"),
        (HEAD + "runs: [{id: r, state: finished, sweep: [s]}]", "sweep is"),
        (HEAD + "runs: [{id: r, state: finished, sweep: {s: t}}]", "sweep is"),
        (HEAD + "runs: [{id: [r], state: finished}]", "id is"),
        (HEAD + "sweeps: [{id: [s], config: {}}]", "id is"),
        (HEAD + "sweeps: [{id: s, state: [RUNNING], config: {}}]", "state is"),
        (HEAD + "sweeps: {id: s}", "not a list"),
        (HEAD + "runs: [{id: r, state: finished, exit_code: true}]", "exit_code is"),
        (HEAD + f"runs: [{{id: {'i' * 100_000}, {', '.join(f'f{n}: 1' for n in range(500))}}}]", "unknown"),
        (HEAD + "? " + "k" * 100_000 + "\n: 1", "unknown"),
        ("format: amc-sweep-export\nversion: 2\nproject: " + "p" * 100_000, "project is"),
        (HEAD + "runs: [{id: r, state: finished, created_at: !!timestamp soon}]", "not usable YAML"),
    ],
    ids=lambda value: value[-40:].encode("ascii", "replace").decode(),
)
def test_an_import_beyond_a_bound_gets_400_in_words(server: InProcessServer, text: str, reason: str) -> None:
    begin = time.process_time()
    reply = server.request("POST", "/import", text.encode())
    assert time.process_time() - begin < 4
    assert reply.status == 400
    message = reply.json()["errors"][0]["message"]
    assert reason in message
    assert len(message) < 20_000
    assert server.request("GET", "/local/p").status == 404, "nothing was stored"


@pytest.mark.parametrize(
    "parameters",
    [
        {"lr": {"distribution": "q_uniform", "min": 0.0001, "max": 0.1, "q": 1.0e-10}},
        {f"p{n}": {"min": 0, "max": 2**60} for n in range(50)},
    ],
)
def test_a_sweep_whose_grid_is_too_large_is_refused_and_a_stored_one_costs_nothing(
    server: InProcessServer, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    config = {"method": "grid", "parameters": parameters}
    status, answer = send(server, sweep={"id": "huge", "config": config})
    assert status == 400
    assert "configurations" in answer["errors"][0]["message"]
    with pytest.raises(GraphqlRefused, match="configurations"):
        server.create_sweep(yaml.safe_dump(config))
    sweep = server.create_sweep(yaml.safe_dump({**config, "run_cap": 3}))
    with server.storage.write() as store:  # as an older version stored it
        store.update("sweeps", 1, config=yaml.safe_dump(config))
    server.close()
    begin = time.process_time()
    server.open()
    first, second = (server.draw(server.create_agent(sweep)) for _ in range(2))
    assert first["args"] != second["args"]
    assert server.sweep(sweep)["runCountExpected"] is None or server.sweep(sweep)["runCountExpected"] < 2**31
    assert server.request("GET", f"/local/p/sweeps/{sweep}").status == 200
    assert time.process_time() - begin < 2


def test_a_large_file_is_imported_and_a_sweep_can_be_read_back(server: InProcessServer) -> None:
    values = list(range(5000))
    config = {"method": "grid", "parameters": {"a": {"values": values}, "b": {"values": values[:2]}}}
    runs = [run(number, summary={f"m{index}": index / 7 for index in range(100)}) for number in range(200)]
    assert send(server, *runs, sweep={**SWEEP, "config": config})[0] == 200
    assert server.sweep("sweep001")["runCountExpected"] == 10_000
    large = {**config, "parameters": {"a": {"values": [f"value {n}" for n in range(100_000)]}}}
    status, answer = send(server, sweep={**SWEEP, "id": "large", "config": large})
    assert status == 400
    assert "characters" in answer["errors"][0]["message"]


def test_a_backup_under_load_holds_complete_posts_in_order(server: InProcessServer, tmp_path: Path) -> None:
    server.begin("r")
    done = threading.Event()

    def write_on() -> None:
        offset = 0
        while not done.is_set():
            server.log("r", *[float(offset + index) for index in range(10)], offset=offset)
            offset += 10

    server.log("r", *map(float, range(10)))
    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        saved = back_up(server.folder, tmp_path / "backup.tar")
    finally:
        done.set()
        writer.join()
    assert saved.runs == 1
    assert saved.history_rows % 10 == 0, "the backup holds whole posts"
    with tarfile.open(tmp_path / "backup.tar") as tar:
        assert "api.key" not in tar.getnames()
    restored = InProcessServer(_unpacked(tmp_path))
    assert [row["acc"] for row in restored.history("r")] == list(map(float, range(saved.history_rows)))
    restored.close()


def test_a_backup_holds_the_files_of_runs(server: InProcessServer, tmp_path: Path) -> None:
    server.begin("r")
    url = server.graphql(CREATE_FILE)["createRunFiles"]["files"][0]["uploadUrl"]
    assert server.request("PUT", "/" + url.split("/", 3)[3], b"hello", auth=False).status == 200
    assert back_up(server.folder, tmp_path / "backup.tar").files == 1
    restored = InProcessServer(_unpacked(tmp_path))
    assert restored.request("GET", "/files/local/p/r/a.txt").body == b"hello"
    restored.close()


def test_no_secret_leaves_in_a_backup_and_a_restored_folder_makes_new_ones(
    server: InProcessServer, tmp_path: Path
) -> None:
    server.begin("r")
    secret = signing_secret(server.storage)
    url = server.graphql(CREATE_FILE)["createRunFiles"]["files"][0]["uploadUrl"]
    token = "/" + url.split("/", 3)[3]
    assert server.request("PUT", token, b"hello", auth=False).status == 200
    before = os.umask(0o022)
    try:
        back_up(server.folder, tmp_path / "backup.tar")
        restored_folder = _unpacked(tmp_path)
    finally:
        os.umask(before)
    content = (tmp_path / "backup.tar").read_bytes()
    assert secret.hex().encode() not in content
    assert secret not in content
    assert KEY.encode() not in content
    files = [tmp_path / "backup.tar", *(path for path in restored_folder.rglob("*") if path.is_file())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    restored = InProcessServer(restored_folder)
    assert signing_secret(restored.storage) != secret
    assert restored.request("PUT", token, b"forged", auth=False).status == 403
    restored.close()


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../etc/passwd", "../amc.sqlite3"])
def test_a_backup_follows_no_path_in_place_of_a_blob(server: InProcessServer, tmp_path: Path, name: str) -> None:
    server.begin("r")
    with server.storage.write() as store:
        run = store.run_at("local", "p", "r")
        assert run is not None
        store.put_file(run.pk, name="x", blob=name, size=1, md5="", updated_at=0.0)
    assert back_up(server.folder, tmp_path / "backup.tar").files == 0
    assert server.request("GET", "/files/local/p/r/x").status == 404


def test_a_backup_of_a_folder_without_data_is_refused_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("AMC_STATE_DIR", str(tmp_path / "state"))
    result = CliRunner().invoke(backup_command, [str(tmp_path / "new.tar")])
    assert result.exit_code == 2
    assert "not the data folder" in result.output
    InProcessServer(tmp_path / "empty").close()
    result = CliRunner().invoke(backup_command, [str(tmp_path / "new.tar"), "--data", str(tmp_path / "empty")])
    assert result.exit_code == 2
    assert "has no sweep and no run" in result.output
    assert not (tmp_path / "user").exists()
    assert not (tmp_path / "new.tar").exists()


def test_a_backup_overwrites_nothing_and_needs_a_data_folder(server: InProcessServer, tmp_path: Path) -> None:
    server.begin("r")
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(BackupError, match="not overwritten"):
        back_up(server.folder, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "keep"
    with pytest.raises(BackupError, match="not the data folder"):
        back_up(tmp_path, tmp_path / "new")
    result = CliRunner().invoke(backup_command, [str(tmp_path / "mine"), "--data", str(server.folder)])
    assert result.exit_code == 2
    assert "not overwritten" in result.output
    result = CliRunner().invoke(backup_command, [str(tmp_path / "new"), "--data", str(server.folder)])
    assert result.exit_code == 0, result.output
    assert list(tmp_path.glob(".amc*")) == []


def test_rows_with_nan_and_infinity_are_imported(server: InProcessServer) -> None:
    odd = run(1, history=[{"_step": 0, "acc": float("nan")}, {"_step": 1, "acc": float("inf"), "gone": None}])
    assert send(server, odd)[0] == 200
    assert send(server, odd)[1]["unchanged"] == 2
    assert server.history("run1") == [{"_step": 0, "acc": "NaN"}, {"_step": 1, "acc": "Infinity", "gone": None}]


def _unpacked(folder: Path) -> Path:
    """Unpack the backup with tar; the arguments of tarfile differ between versions of Python."""
    restored = folder / "restored"
    restored.mkdir()
    subprocess.run(["tar", "--extract", "--file", folder / "backup.tar", "--directory", restored], check=True)
    return restored


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("created_at", "0001-01-01T00:00:00+14:00"),
        ("created_at", "9999-12-31T23:59:59-12:00"),
        ("heartbeat_at", "1969-12-31T00:00:00Z"),
        ("exit_code", 2**31),
        ("exit_code", 99999999999),
        ("stop_threshold", math.inf),
    ],
)
def test_a_value_that_no_query_could_show_is_refused(server: InProcessServer, field: str, value: Any) -> None:
    status, answer = send(server, run(0, **{field: value}))
    assert status == 400
    assert f"{field} is" in answer["errors"][0]["message"]


def test_the_first_and_the_last_time_that_queries_show_are_taken(server: InProcessServer) -> None:
    first, last = "1970-01-01T00:00:00Z", "9999-12-30T00:00:00Z"
    assert send(server, run(0, created_at=first, heartbeat_at=last))[0] == 200
