"""Old versions of a run's checkpoint go when a newer one is committed, and never the only copy of anything."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from artifact_requests import COMMIT, blobs, create, md5_of, path_of, read, send_manifest, upload
from in_process_server import GraphqlRefused, InProcessServer
from whole_versions import furthest_whole_version

from amc_server.store import backup
from amc_server.store.blobs import Blobs
from amc_server.store.storage import Storage
from amc_sweeps.runs.checkpoint_artifacts import checkpoint_facts, replaces

NAME = "checkpoint-r"
FILES = ("last.pt", "best_loss.pt", "history.jsonl")
BLOBS_A_VERSION = 2  # one file and the manifest


def facts(epoch: int = 1, steps_done: int = 0, split: str = "s", files: tuple[str, ...] = FILES) -> dict[str, Any]:
    """Return the metadata that a trial sends with a version."""
    return checkpoint_facts(epoch=epoch, steps_done=steps_done, split_fingerprint=split, files=files)


def content_of(metadata: dict[str, Any]) -> bytes:
    """Return the bytes of the checkpoint that has these facts."""
    return json.dumps(metadata, sort_keys=True).encode()


def begin(server: InProcessServer, metadata: dict[str, Any], **more: Any) -> str:
    """Upload a version up to its commit; return its id."""
    content = content_of(metadata)
    given = {"artifactTypeName": "checkpoint", "metadata": json.dumps(metadata), "name": NAME, **more}
    created = create(server, content, client_id=given.pop("client_id", md5_of(content)), **given)
    if created["state"] != "COMMITTED":
        upload(server, created["id"], "last.pt", content)
        send_manifest(server, created["id"], {"last.pt": {"digest": md5_of(content)}})
    return str(created["id"])


def log(server: InProcessServer, metadata: dict[str, Any], **more: Any) -> str:
    """Upload and commit a version; return its id."""
    artifact = begin(server, metadata, **more)
    server.graphql(COMMIT, artifactID=artifact)
    return artifact


def versions(server: InProcessServer, name: str = NAME) -> list[int]:
    """Return the numbers of the committed versions."""
    with server.storage.read() as store:
        project = store.project("local", "p")
        assert project is not None
        numbers = [version.version for version in store.artifacts(project.pk, name)]
    return sorted(number for number in numbers if number is not None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    running.begin("r")
    yield running
    running.close()


def test_six_preemptions_leave_the_bytes_of_one_version(server: InProcessServer) -> None:
    for epoch in range(1, 7):
        log(server, facts(epoch))
        assert versions(server) == [epoch - 1]
        assert blobs(server) == BLOBS_A_VERSION
        assert furthest_whole_version(server, NAME) == (epoch, 0)
    (edge,) = read(server, f"{NAME}:latest")["files"]["edges"]
    reply = server.request("GET", path_of(edge["node"]["directUrl"]), auth=False)
    assert reply.body == content_of(facts(6))


def test_what_an_alias_a_tag_or_another_run_names_is_kept(server: InProcessServer) -> None:
    server.begin("user")
    log(server, facts(1), aliases=[{"artifactCollectionName": NAME, "alias": "paper"}])
    log(server, facts(2), tags=[{"tagName": "good"}])
    used = log(server, facts(3))
    server.graphql(
        "mutation U($input: UseArtifactInput!) { useArtifact(input: $input) { artifact { id } } }",
        input={"artifactID": used, "entityName": "local", "projectName": "p", "runName": "user"},
    )
    log(server, facts(4))
    create(server, content_of(facts(4)), client_id="x", name=NAME, artifactTypeName="checkpoint", runName="user")
    log(server, facts(5))
    log(server, facts(6))
    assert versions(server) == [0, 1, 2, 3, 5]
    assert furthest_whole_version(server, NAME) == (6, 0)


@pytest.mark.parametrize(
    "late",
    [
        facts(2, 9),  # an attempt that was taken for dead uploads what it had
        facts(9, split="other"),
        facts(9, files=("last.pt",)),  # its best checkpoint is missing
        {**facts(9), "amc_keep": None},
        {"epoch": 9, "steps_done": 0},
        {**facts(9), "holds": "last.pt"},
        {**facts(), "epoch": True},
        {},
    ],
)
def test_a_version_that_lacks_something_replaces_none(server: InProcessServer, late: dict[str, Any]) -> None:
    log(server, facts(3))
    log(server, late)
    assert versions(server) == [0, 1]
    log(server, facts(10))
    assert 0 not in versions(server), "the next whole one replaces what it covers"
    assert furthest_whole_version(server, NAME) == (10, 0)


def test_no_other_artifact_is_touched(server: InProcessServer) -> None:
    server.begin("other")
    for epoch in (1, 2):
        log(server, facts(epoch), name="model", artifactTypeName="model", client_id=f"m{epoch}")
        log(server, facts(epoch), name="checkpoint-other", client_id=f"o{epoch}")  # logged by r
        log(server, facts(epoch), name="checkpoint", client_id=f"c{epoch}")
        log(server, {"epoch": epoch}, client_id=f"f{epoch}")  # a foreign script's, with the same name
        log(server, facts(epoch), name="no-run", runName=None, client_id=f"n{epoch}")
    names = ("model", "checkpoint-other", "checkpoint", NAME, "no-run")
    assert [versions(server, name) for name in names] == [[0, 1]] * len(names)


def test_a_version_that_another_run_logged_under_the_name_is_kept(server: InProcessServer) -> None:
    server.begin("other")
    log(server, facts(1), runName="other")
    log(server, facts(2))
    log(server, facts(3))
    assert versions(server) == [0, 2]


def test_a_version_of_another_type_and_a_run_that_was_deleted_are_left_alone(server: InProcessServer) -> None:
    log(server, facts(1), artifactTypeName="model", client_id="m1")
    log(server, facts(2), artifactTypeName="model", client_id="m2")
    assert versions(server) == [0, 1]


def test_a_refused_commit_keeps_the_older_version(server: InProcessServer) -> None:
    log(server, facts(1))
    content = content_of(facts(2))
    artifact = create(
        server, content, client_id="c2", name=NAME, artifactTypeName="checkpoint", metadata=json.dumps(facts(2))
    )["id"]
    for prepare in (lambda: None, lambda: send_manifest(server, artifact, {"last.pt": {"digest": md5_of(content)}})):
        prepare()
        with pytest.raises(GraphqlRefused):
            server.graphql(COMMIT, artifactID=artifact)
        assert versions(server) == [0]
        assert furthest_whole_version(server, NAME) == (1, 0)
    upload(server, artifact, "last.pt", content)
    server.graphql(COMMIT, artifactID=artifact)
    assert versions(server) == [1]


def test_an_upload_that_never_ended_goes_with_the_next_version_unless_it_is_further(server: InProcessServer) -> None:
    begin(server, facts(2))
    further = begin(server, facts(7))
    log(server, facts(3))
    assert blobs(server) == 2 * BLOBS_A_VERSION, "of the committed one and the further one"
    server.graphql(COMMIT, artifactID=further)
    assert versions(server) == [1]
    assert furthest_whole_version(server, NAME) == (7, 0)


@pytest.mark.parametrize("restarts", [False, True])
def test_requests_that_are_repeated_after_lost_replies_delete_nothing_more(
    server: InProcessServer, *, restarts: bool
) -> None:
    log(server, facts(1))
    for _ in range(2):  # the client asks for everything again
        for _ in range(2):
            artifact = begin(server, facts(2))
            if restarts:
                server.close()
                server.open()
        for _ in range(3):
            answer = server.graphql(COMMIT, artifactID=artifact)["commitArtifact"]["artifact"]
            assert answer["versionIndex"] == 1
            assert versions(server) == [1]
            assert furthest_whole_version(server, NAME) == (2, 0)
    assert blobs(server) == BLOBS_A_VERSION


def test_a_commit_of_a_version_that_was_replaced_meanwhile_is_refused_and_harms_nothing(
    server: InProcessServer,
) -> None:
    slow = begin(server, facts(2))
    log(server, facts(3))
    with pytest.raises(GraphqlRefused, match="does not exist any more"):
        server.graphql(COMMIT, artifactID=slow)
    assert furthest_whole_version(server, NAME) == (3, 0)


def test_a_disk_that_fails_at_the_commit_keeps_the_bytes_of_the_older_version(
    server: InProcessServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(server, facts(1))
    artifact = begin(server, facts(2))
    before = set((server.folder / "blobs").rglob("*"))

    def fail(_file: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        assert server.request("POST", "/graphql", _commit(artifact)).status >= 500
    assert set((server.folder / "blobs").rglob("*")) == before, "the commit may not survive a power cut"


def _commit(artifact: str) -> bytes:
    return json.dumps({"query": COMMIT, "variables": {"artifactID": artifact}}).encode()


def test_a_kill_at_any_statement_or_deletion_leaves_a_whole_version(
    server: InProcessServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the folder at each of these moments is what a kill leaves there."""
    log(server, facts(1))
    begin(server, facts(1, 5))
    artifact = begin(server, facts(2))
    numbers = itertools.count()

    def copy_folder(*_: object) -> None:
        shutil.copytree(server.folder, tmp_path / f"killed-{next(numbers)}", ignore=shutil.ignore_patterns("lock"))

    def copying(act: Callable[..., None]) -> Callable[..., None]:
        def copy_around(*arguments: Any) -> None:
            copy_folder()
            act(*arguments)
            copy_folder()

        return copy_around

    connection = server.storage._connection
    connection.set_trace_callback(copy_folder)
    monkeypatch.setattr(Blobs, "remove", copying(Blobs.remove))
    monkeypatch.setattr(Storage, "flush", copying(Storage.flush))
    server.graphql(COMMIT, artifactID=artifact)
    connection.set_trace_callback(None)
    monkeypatch.undo()
    copy_folder()

    found = []
    for number in range(next(numbers)):
        left = InProcessServer(tmp_path / f"killed-{number}")
        found.append(furthest_whole_version(left, NAME))
        left.graphql(COMMIT, artifactID=artifact)  # the client, which got no reply, sends it again
        assert furthest_whole_version(left, NAME) == (2, 0)
        assert versions(left) == [1]
        left.close()
    assert len(found) > 20
    assert set(found) == {(1, 0), (2, 0)}
    assert found == sorted(found), "never back"


def test_a_backup_that_is_made_while_a_version_is_replaced_has_the_newer_one(
    server: InProcessServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(server, facts(1))
    artifact = begin(server, facts(2))
    take = backup._snapshot
    commits = iter([lambda: server.graphql(COMMIT, artifactID=artifact)])

    def replaced_after_the_snapshot(database: Path, copy: Path) -> Any:
        taken = take(database, copy)
        next(commits, lambda: None)()
        return taken

    monkeypatch.setattr(backup, "_snapshot", replaced_after_the_snapshot)
    saved = backup.back_up(server.folder, tmp_path / "saved.tar")
    assert saved.files == BLOBS_A_VERSION
    with tarfile.open(tmp_path / "saved.tar") as tar:
        tar.extractall(tmp_path / "restored", filter="data")
    restored = InProcessServer(tmp_path / "restored")
    assert furthest_whole_version(restored, NAME) == (2, 0)
    restored.close()


def test_replaces_asks_for_the_rule_the_split_the_progress_and_the_files() -> None:
    assert replaces(facts(2), facts(1))
    assert replaces(facts(2, 3), facts(2, 3)), "equal progress: the newer one"
    assert not replaces(facts(1, 99), facts(2))
    assert not replaces(facts(2, split="t"), facts(1))
    assert not replaces(facts(2, files=("last.pt",)), facts(1))
    assert not replaces({**facts(2), "amc_keep": "all"}, facts(1)), "a user may write another word"
    assert not replaces(facts(2), {**facts(1), "amc_keep": "all"})
