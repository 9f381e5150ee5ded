"""The data folder: acknowledged rows are stored, failed transactions change nothing, one server uses it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from in_process_server import GraphqlRefused, InProcessServer

from amc_agents.commands.serve import serve_command
from amc_server.store.backup import BackupError, back_up
from amc_server.store.schema import VERSION
from amc_server.store.storage import LOG_BYTES, FilesLostError, Storage, StorageError
from amc_server.store.writer import Writer

SWEEP = "method: random\nmetric: {name: acc, goal: maximize}\nparameters: {a: {min: 0.0, max: 1.0}}\n"


def test_a_transaction_that_raises_changes_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "data")

    def fail() -> None:
        with storage.write() as store:
            store.insert("projects", entity="local", name="p", created_at=1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with storage.read() as reader:
        assert reader.projects("local") == []
    storage.close()


def test_a_reader_keeps_its_snapshot_while_another_writes(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "data")
    with storage.read() as reader:
        assert reader.projects("local") == []
        with storage.write() as store:
            store.insert("projects", entity="local", name="p", created_at=1.0)
        assert reader.projects("local") == []
    with storage.read() as reader:
        assert [project.name for project in reader.projects("local")] == ["p"]
    storage.close()


def test_a_checkpoint_empties_a_log_that_a_long_reader_let_grow(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "data")
    log = tmp_path / "data" / "amc.sqlite3-wal"
    with storage.read() as reader:  # a log cannot begin anew while somebody reads what is in it
        assert reader.meta("large 0") is None
        for number in range(40):
            with storage.write() as store:
                store.set_meta(f"large {number}", "x" * 2_000_000)
            storage.checkpoint()
    assert log.stat().st_size > LOG_BYTES
    storage.checkpoint()
    with storage.write() as store:
        store.set_meta("next", "x")
    assert log.stat().st_size <= LOG_BYTES
    storage.close()


def test_a_lock_of_another_program_gives_503_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amc_server.store.storage.BUSY_TIMEOUT_S", 0.1)
    server = InProcessServer(tmp_path / "data")
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "amc.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(GraphqlRefused, match="another program has kept the database locked") as refused:
            server.create_sweep(SWEEP)
        assert refused.value.status == 503
        other.execute("ROLLBACK")
    server.create_sweep(SWEEP)
    server.close()


def test_everything_is_still_stored_when_the_folder_is_opened_again(tmp_path: Path) -> None:
    server = InProcessServer(tmp_path / "data")
    sweep = server.create_sweep(SWEEP)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run)
    server.log(run, 0.1, 0.2)
    before = server.sweep(sweep)
    server.close()
    server.open()
    assert server.sweep(sweep) == before
    assert [row["acc"] for row in server.history(run)] == [0.1, 0.2]
    assert server.heartbeat(agent, [run]) == []
    server.close()


def test_nothing_is_acknowledged_after_a_failed_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = InProcessServer(tmp_path / "data")
    server.begin("r")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(AssertionError, match="the disk is gone"):
        server.log("r", 0.1)
    with pytest.raises(GraphqlRefused, match="the disk is gone") as refused:
        server.create_sweep(SWEEP)
    assert refused.value.status == 500, "the client sends it again"
    monkeypatch.undo()
    with pytest.raises(AssertionError, match="start it again"):  # a flush would succeed, but the kernel has lost pages
        server.log("r", 0.1)
    server.close()
    server.open()
    assert server.log("r", 0.1) == {}, "a restarted server accepts the row when the client sends it again"
    server.close()


def test_a_full_disk_is_named_and_the_server_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = InProcessServer(tmp_path / "data")
    server.begin("r")
    upload = """mutation { createRunFiles(input: {projectName: "p", runName: "r", files: ["a"]}) {
        files { uploadUrl } } }"""
    url = urlsplit(server.graphql(upload)["createRunFiles"]["files"][0]["uploadUrl"]).path
    writer = server.storage._connection
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(AssertionError, match=r"is full, so nothing was stored\. Make room"):
        server.log("r", *[0.1] * 1000)
    writer.execute("PRAGMA max_page_count = 1000000")
    assert server.log("r", *[0.1] * 1000) == {}

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("amc_server.store.blobs._flush", fail)
        reply = server.request("PUT", url, b"x", auth=False)
    assert (reply.status, b"is full, so nothing was stored" in reply.body) == (500, True)
    assert [path for path in (server.folder / "blobs").rglob("*") if path.is_file()] == []
    assert server.request("PUT", url, b"x", auth=False).status == 200
    server.close()


def test_threads_that_flush_at_the_same_time_share_one_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path / "data")
    may_go, flushes = threading.Event(), []

    def flush(descriptor: int) -> None:
        flushes.append(descriptor)
        assert may_go.wait(30)

    monkeypatch.setattr(os, "fdatasync", flush)
    threads = [threading.Thread(target=storage.flush) for _ in range(8)]
    for thread in threads:
        thread.start()
    _wait_until(lambda: storage._log._requested == 8)
    may_go.set()
    for thread in threads:
        thread.join(30)
    assert len(flushes) == 2, "the first flush had begun before the other seven threads came; they share the second"
    storage.close()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["post 1", "post 2", "beat 1"], ["beat 1", "post 1", "post 2"]),
        (
            ["post 1", "post 2", *(f"beat {n}" for n in range(1, 7))],
            ["beat 1", "beat 2", "beat 3", "beat 4", "post 1", "beat 5", "beat 6", "post 2"],
        ),
    ],
)
def test_urgent_writes_go_before_others_but_not_for_ever(tmp_path: Path, asked: list[str], expected: list[str]) -> None:
    storage = Storage(tmp_path / "data")
    order: list[str] = []

    def write(name: str) -> None:
        with storage.write_unflushed(urgent=name.startswith("beat")):
            order.append(name)

    threads = []
    with storage.write():
        for name in asked:
            threads.append(threading.Thread(target=write, args=(name,)))
            threads[-1].start()
            _wait_until(lambda: len(storage._lock._urgent) + len(storage._lock._others) == len(threads))
    for thread in threads:
        thread.join(30)
    assert order == expected
    storage.close()


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_folder_has_one_server_at_a_time(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "data")
    with pytest.raises(StorageError, match="another server"):
        Storage(tmp_path / "data")
    storage.close()
    Storage(tmp_path / "data").close()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        Storage(tmp_path / "file" / "data")


@pytest.mark.parametrize(
    ("version", "advice"),
    [(VERSION + 1, "newer.*pip install -U"), (VERSION - 1, "older.*amc-sweep export"), (1, "older.*amc-sweep import")],
)
def test_the_schema_of_another_version_is_refused_and_left_alone(tmp_path: Path, version: int, advice: str) -> None:
    Storage(tmp_path / "data").close()
    path = tmp_path / "data" / "amc.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    with pytest.raises(StorageError, match=advice):
        Storage(tmp_path / "data")
    with pytest.raises(BackupError, match=advice):
        back_up(tmp_path / "data", tmp_path / "backup.tar")
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == version
    connection.close()


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "amc.sqlite3").write_bytes(b"this is not a database" * 100)
    with pytest.raises(StorageError, match="restore a backup"):
        Storage(tmp_path / "data")


def test_cached_curves_equal_those_of_the_database_after_every_write(tmp_path: Path) -> None:
    server = InProcessServer(tmp_path / "data")
    sweep = server.create_sweep(SWEEP)
    runs = [server.draw(server.create_agent(sweep))["run_id"] for _ in range(3)]
    for run in runs:
        server.begin(run)

    def both() -> tuple[dict[int, list[float]], dict[int, list[float]]]:
        with server.storage.write() as store:
            cached = {run: list(curve) for run, curve in store.curves(1).items()}
            fresh = Writer(store._connection).curves(1)
            return cached, {run: list(curve) for run, curve in fresh.items()}

    assert both() == ({}, {})
    server.log(runs[0], 0.1, 0.2, 0.3)
    server.log(runs[1], 0.5)
    server.log(runs[0], 0.4, offset=3)
    server.log(runs[0], 0.9, 0.8, offset=1)  # rewritten
    server.log(runs[2], float("nan"))
    cached, fresh = both()
    assert cached == fresh == {1: [0.1, 0.9, 0.8, 0.4], 2: [0.5]}
    server.log(runs[2], 0.7, offset=5)  # a gap
    assert both()[0] == both()[1]
    server.close()


def filled(folder: Path) -> Path:
    """Return the database of a server that held a run with 10,000 rows."""
    server = InProcessServer(folder)
    server.begin("r")
    for number in range(50):
        server.log("r", *[1.0] * 200, offset=200 * number)
    server.close()
    return folder / "amc.sqlite3"


def damage(database: Path, begin: int, end: int | None) -> None:
    content = database.read_bytes()
    end = len(content) if end is None else end
    database.write_bytes(content[:begin] + b"\xff" * (end - begin) + content[end:])


RESTORE = "mkdir restored && tar -xf BACKUP.tar -C restored && amc-sweep serve --data restored"


@pytest.mark.parametrize(("begin", "end"), [(0, 100), (4096, 8192), (40_960, 140_960), (8192, None)])
def test_a_damaged_database_is_refused_with_the_command_that_restores_a_backup(
    tmp_path: Path, begin: int, end: int | None
) -> None:
    damage(filled(tmp_path / "data"), begin, end)
    result = CliRunner().invoke(serve_command, ["--data", str(tmp_path / "data"), "--port", "0"])
    assert result.exit_code == 2
    assert RESTORE in result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_database_that_is_damaged_while_it_serves_says_so_and_is_not_acknowledged(tmp_path: Path) -> None:
    database = filled(tmp_path / "data")
    server = InProcessServer(tmp_path / "data")
    damage(database, 8192, None)
    history = {"query": '{ project(name: "p") { run(name: "r") { history } } }'}
    rows = {"files": {"wandb-history.jsonl": {"offset": 0, "content": ["{}"]}}}
    for method, path, body in (
        ("GET", "/local/p/runs/r", b""),
        ("POST", "/graphql", json.dumps(history).encode()),
        ("POST", "/files/local/p/r/file_stream", json.dumps(rows).encode()),
    ):
        reply = server.request(method, path, body)
        assert reply.status == 500, path
        assert RESTORE in reply.json()["errors"][0]["message"]
    server.close()


def _remove_log(data: Path) -> None:
    (data / "amc.sqlite3-wal").unlink()


def _replace_log(data: Path) -> None:
    (data / "copy").write_bytes((data / "amc.sqlite3-wal").read_bytes())
    (data / "copy").rename(data / "amc.sqlite3-wal")


def _replace_database(data: Path) -> None:
    with contextlib.closing(sqlite3.connect(data / "amc.sqlite3")) as database:
        database.execute("VACUUM INTO ?", (str(data / "copy"),))
    (data / "copy").rename(data / "amc.sqlite3")


@pytest.mark.parametrize("lose", [_remove_log, _replace_log, _replace_database, shutil.rmtree])
def test_nothing_is_acknowledged_once_the_open_files_are_removed_or_replaced(
    tmp_path: Path, lose: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    server = InProcessServer(tmp_path / "data")
    server.begin("r")
    lose(tmp_path / "data")
    rows = {"files": {"wandb-history.jsonl": {"offset": 0, "content": ["{}"]}}}
    for _ in range(2):
        reply = server.request("POST", "/files/local/p/r/file_stream", json.dumps(rows).encode())
        assert reply.status == 503
        message = reply.json()["errors"][0]["message"]
        assert "was removed or replaced while the server uses it, so nothing more is stored" in message
        with pytest.raises(GraphqlRefused, match="was removed or replaced") as refused:
            server.create_sweep(SWEEP)
        assert refused.value.status == 503
        with pytest.raises(FilesLostError):
            server.storage.checkpoint()
    assert len([record for record in caplog.records if "was removed or replaced" in record.getMessage()]) == 1
    server.close()


def test_rows_of_a_log_that_was_removed_are_in_the_database_a_second_later(tmp_path: Path) -> None:
    server = InProcessServer(tmp_path / "data")
    server.begin("r")
    server.log("r", 0.1, 0.2)
    (tmp_path / "data" / "amc.sqlite3-wal").unlink()
    with pytest.raises(FilesLostError):
        server.storage.checkpoint()  # what the server does every second
    shutil.copytree(tmp_path / "data", tmp_path / "killed")  # as a kill would leave it
    server.close()
    restarted = InProcessServer(tmp_path / "killed")
    assert [row["acc"] for row in restarted.history("r")] == [0.1, 0.2]
    restarted.close()
