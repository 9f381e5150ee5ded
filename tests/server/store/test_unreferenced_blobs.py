"""Bytes that no record names are found while the server runs, and never those that a record needs or soon will."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifact_requests import create, log, md5_of, read, send_manifest, upload
from in_process_server import InProcessServer

from amc_server.store import unreferenced_blobs as module
from amc_server.store.unreferenced_blobs import LEAST_AGE_S, UnreadableDataError, unreferenced_blobs

NAME = "0123456789abcdef" * 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    running.begin("r")
    yield running
    running.close()


def orphan(server: InProcessServer, name: str = NAME) -> Path:
    """Leave bytes as a server does that is killed before it deletes them."""
    path = server.folder / "blobs" / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(100))
    return path


def found(server: InProcessServer, *, after_s: float = LEAST_AGE_S + 60, older_than_s: float = 0) -> list[Path]:
    blobs = unreferenced_blobs(server.folder, now=time.time() + after_s, older_than_s=older_than_s)
    return [blob.path for blob in blobs]


def put_run_file(server: InProcessServer, name: str, content: bytes) -> None:
    document = """mutation C($name: String!) { createRunFiles(input: {
        entityName: "local", projectName: "p", runName: "r", files: [$name]}) { files { uploadUrl } } }"""
    url = server.graphql(document, name=name)["createRunFiles"]["files"][0]["uploadUrl"]
    assert server.request("PUT", "/" + url.split("/", 3)[3], content, auth=False).status == 200


def test_bytes_of_runs_files_artifacts_and_uploads_in_progress_are_needed(server: InProcessServer) -> None:
    put_run_file(server, "config.yaml", b"a: 1")
    log(server, b"one")
    pending = create(server, b"two", client_id="c2")["id"]
    upload(server, pending, "best.pt", b"two")
    send_manifest(server, pending, {"best.pt": {"digest": md5_of(b"two")}})
    assert len([path for path in (server.folder / "blobs").rglob("*") if path.is_file()]) == 5
    assert found(server) == []
    lost = orphan(server)
    assert found(server) == [lost]
    lost.unlink()
    assert read(server, "model")["versionIndex"] == 0


def test_young_bytes_may_be_an_upload_whose_record_comes_later(server: InProcessServer) -> None:
    lost = orphan(server)
    os.utime(lost, (0, 0))  # a copied file may carry an old time
    assert found(server, after_s=LEAST_AGE_S - 60) == []
    assert found(server, older_than_s=LEAST_AGE_S * 3) == []
    assert found(server, after_s=LEAST_AGE_S * 4, older_than_s=LEAST_AGE_S * 3) == [lost]


def test_a_record_that_comes_while_the_records_are_read_saves_its_bytes(
    server: InProcessServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are listed first, so whatever gets a record after that is not among them or is named."""
    lost = orphan(server)
    read_names = module.named_blobs

    def record_first(connection: sqlite3.Connection) -> set[str]:
        log(server, b"meanwhile")
        with server.storage.write() as store:
            run = store.run_at("local", "p", "r")
            assert run is not None
            store.put_file(run.pk, name="late", blob=NAME, size=100, md5="", updated_at=0.0)
        return read_names(connection)

    monkeypatch.setattr(module, "named_blobs", record_first)
    # The reader's snapshot may be older than the record; a file that is so old never gets one.
    assert set(found(server)) <= {lost}
    monkeypatch.undo()
    assert found(server) == []


def test_only_names_and_places_of_blobs_are_looked_at(server: InProcessServer) -> None:
    folder = server.folder / "blobs"
    orphan(server, "g" * 32)
    for name in ("notes.txt", NAME[:31], NAME + "0"):
        (folder / "01").mkdir(exist_ok=True)
        (folder / "01" / name).write_text("x")
    (folder / "ff").mkdir(exist_ok=True)
    (folder / "ff" / NAME).write_text("another folder")
    (folder / "01" / ("01" + "a" * 30)).symlink_to(server.folder / "amc.sqlite3")
    (folder / "02").symlink_to(folder / "01")
    assert found(server) == []


def test_without_readable_records_nothing_is_known(server: InProcessServer, tmp_path: Path) -> None:
    orphan(server)
    copy = tmp_path / "copy"
    shutil.copytree(server.folder / "blobs", copy / "blobs")
    later = time.time() + 10 * LEAST_AGE_S

    def refusal() -> str:
        with pytest.raises(UnreadableDataError) as caught:
            unreferenced_blobs(copy, now=later, older_than_s=0)
        return str(caught.value)

    assert "has no amc.sqlite3" in refusal()
    (copy / "amc.sqlite3").write_bytes(b"this is not a database" * 100)
    assert "damaged" in refusal()
    (copy / "amc.sqlite3").unlink()
    InProcessServer(copy).close()
    assert "is empty" in refusal()
    with sqlite3.connect(copy / "amc.sqlite3") as database:
        database.execute("PRAGMA user_version = 999")
    assert "newer" in refusal()
    assert (copy / "blobs" / NAME[:2] / NAME).is_file()
