"""Artifacts by requests: how a version is made, what is refused, and that an incomplete one leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from artifact_requests import COMMIT, FILES, blobs, create, log, md5_of, path_of, read, send_manifest, upload
from in_process_server import GraphqlRefused, InProcessServer

from amc_server.graphql.artifact_mutations import missing_files
from amc_server.store.records import ArtifactFile


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    running.begin("r")
    yield running
    running.close()


def test_versions_count_up_and_latest_names_the_last_commit(server: InProcessServer) -> None:
    first = log(server, b"one", client_id="c1", aliases=[{"artifactCollectionName": "model", "alias": "good"}])
    second = log(server, b"second", client_id="c2")
    assert (first["versionIndex"], second["versionIndex"], second["size"]) == (0, 1, 6)
    assert read(server, "model:latest")["versionIndex"] == read(server, "model")["versionIndex"] == 1
    assert read(server, "model:good")["versionIndex"] == 0
    artifact_node = read(server, "model:v0")
    (edge,) = artifact_node["files"]["edges"]
    reply = server.request("GET", path_of(edge["node"]["directUrl"]), auth=False)
    assert (reply.status, reply.body) == (200, b"one")
    assert reply.headers["content-disposition"].startswith("attachment")
    manifest = server.request(
        "GET", path_of(artifact_node["artifact"]["currentManifest"]["file"]["directUrl"]), auth=False
    )
    assert list(manifest.json()["contents"]) == ["best.pt"]
    assert read(server, "model:v7") is None


def test_equal_contents_make_no_second_version(server: InProcessServer) -> None:
    log(server, b"one")
    repeated = create(server, b"one", client_id="c2")
    assert repeated["state"] == "COMMITTED"
    assert read(server, "model")["versionIndex"] == 0


def test_a_request_repeated_after_a_restart_gives_the_same_version(server: InProcessServer) -> None:
    artifact = create(server, b"one")["id"]
    assert upload(server, artifact, "best.pt", b"one") == 200
    server.close()
    server.open()
    assert create(server, b"one")["id"] == artifact
    assert upload(server, artifact, "best.pt", b"one") == 0, "the bytes have arrived and need not be sent again"
    send_manifest(server, artifact, {"best.pt": {"digest": md5_of(b"one")}})
    for _ in range(2):
        assert server.graphql(COMMIT, artifactID=artifact)["commitArtifact"]["artifact"]["versionIndex"] == 0


def test_a_commit_without_all_files_is_refused(server: InProcessServer) -> None:
    artifact = create(server, b"one")["id"]
    with pytest.raises(GraphqlRefused, match="manifest has not been uploaded"):
        server.graphql(COMMIT, artifactID=artifact)
    send_manifest(server, artifact, {"best.pt": {"digest": "x"}, "far": {"ref": "s3://b/k"}})
    with pytest.raises(GraphqlRefused, match=r"lacks 1 file that must be uploaded first: best\.pt"):
        server.graphql(COMMIT, artifactID=artifact)
    assert read(server, "model") is None


def test_bytes_with_a_wrong_md5_are_refused_and_not_kept(server: InProcessServer) -> None:
    artifact = create(server, b"one")["id"]
    assert upload(server, artifact, "best.pt", b"damaged", md5=md5_of(b"one")) == 400
    assert blobs(server) == 0
    assert upload(server, artifact, "best.pt", b"one") == 200


def test_a_committed_version_does_not_change(server: InProcessServer) -> None:
    artifact = log(server, b"one")["id"]
    with pytest.raises(GraphqlRefused, match="committed"):
        upload(server, artifact, "best.pt", b"other")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"artifactCollectionName": "a/b"}, "name"),
        ({"artifactCollectionName": "../up"}, "name"),
        ({"artifactTypeName": ""}, "type"),
        ({"digestAlgorithm": "MANIFEST_XXH128"}, "MD5"),
        ({"distributedID": "d"}, "distributed"),
        ({"aliases": [{"artifactCollectionName": "model", "alias": "v3"}]}, "alias"),
        ({"entityName": "somebody"}, "entity"),
    ],
)
def test_an_invalid_artifact_is_refused_with_the_reason(
    server: InProcessServer, given: dict[str, Any], what: str
) -> None:
    with pytest.raises(GraphqlRefused, match=what):
        create(server, b"one", **given)


def test_a_collection_keeps_its_type(server: InProcessServer) -> None:
    log(server, b"one")
    with pytest.raises(GraphqlRefused, match="of type 'model'"):
        create(server, b"two", artifactTypeName="dataset")


def test_file_names_that_lead_out_of_a_folder_are_refused(server: InProcessServer) -> None:
    artifact = create(server, b"one")["id"]
    with pytest.raises(GraphqlRefused, match="file's name"):
        upload(server, artifact, "../../etc/passwd", b"one")


def test_a_token_allows_one_action_only(server: InProcessServer) -> None:
    artifact = create(server, b"one")["id"]
    spec = {"artifactID": artifact, "name": "best.pt", "md5": md5_of(b"one")}
    answer = server.graphql(FILES, input={"artifactFiles": [spec]})
    url = path_of(answer["createArtifactFiles"]["files"]["edges"][0]["node"]["uploadUrl"])
    assert server.request("GET", url, auth=False).status == 403
    assert server.request("PUT", url, b"one", auth=False).status == 200
    send_manifest(server, artifact, {"best.pt": {"digest": md5_of(b"one")}})
    server.graphql(COMMIT, artifactID=artifact)
    (edge,) = read(server, "model")["files"]["edges"]
    assert server.request("PUT", path_of(edge["node"]["directUrl"]), b"two", auth=False).status == 403


def test_a_deleted_version_leaves_no_bytes_and_latest_names_the_one_before(server: InProcessServer) -> None:
    log(server, b"one", client_id="c1")
    second = log(server, b"two", client_id="c2")["id"]
    document = """mutation D($input: DeleteArtifactInput!) { deleteArtifact(input: $input) { artifact { id } } }"""
    with pytest.raises(GraphqlRefused, match="latest"):
        server.graphql(document, input={"artifactID": second})
    before = blobs(server)
    server.graphql(document, input={"artifactID": second, "deleteAliases": True})
    assert blobs(server) == before - 2  # its file and its manifest
    assert read(server, "model")["versionIndex"] == 0


def test_a_run_lists_the_artifacts_that_it_logged_and_used(server: InProcessServer) -> None:
    artifact = log(server, b"one")["id"]
    server.begin("user")
    document = """mutation U($input: UseArtifactInput!) { useArtifact(input: $input) { artifact { id } } }"""
    for _ in range(2):
        server.graphql(
            document, input={"artifactID": artifact, "entityName": "local", "projectName": "p", "runName": "user"}
        )
    document = """query Q { project(name: "p", entityName: "local") {
        r: run(name: "r") { outputArtifacts { totalCount edges { node { id usedBy { edges { node { name } } }
            createdBy { __typename ... on Run { name } } artifactSequence { __typename name } } } } }
        user: run(name: "user") { inputArtifacts { edges { node { id versionIndex } } } } } }"""
    project = server.graphql(document)["project"]
    (edge,) = project["r"]["outputArtifacts"]["edges"]
    assert edge["node"]["id"] == project["user"]["inputArtifacts"]["edges"][0]["node"]["id"] == artifact
    assert [use["node"]["name"] for use in edge["node"]["usedBy"]["edges"]] == ["user"]
    assert edge["node"]["createdBy"] == {"__typename": "Run", "name": "r"}
    assert edge["node"]["artifactSequence"]["__typename"] == "ArtifactSequence"


def test_references_to_other_places_need_no_upload() -> None:
    uploaded = ArtifactFile(1, 1, "a", "m", "blob", 3, 0.0)
    announced = ArtifactFile(2, 1, "b", "m", None, 0, 0.0)
    manifest = {"contents": {"a": {}, "b": {}, "far": {"ref": "s3://x"}}}
    assert missing_files(manifest, [uploaded, announced]) == ["b"]


@pytest.mark.parametrize("more", [{"size": 10**30, "digest": ["x"]}, {"size": "a", "digest": "\ud800"}])
def test_odd_facts_about_a_reference_are_stored_as_far_as_they_can_be(
    server: InProcessServer, more: dict[str, Any]
) -> None:
    artifact = create(server, b"one")["id"]
    send_manifest(server, artifact, {"far": {"ref": "s3://x\ud800", **more}})
    committed = server.graphql(COMMIT, artifactID=artifact)["commitArtifact"]["artifact"]
    assert (committed["versionIndex"], committed["size"]) == (0, 0)


@pytest.mark.parametrize("name", ["../up", "/etc/x", "a\ud800"])
def test_a_reference_with_a_name_that_cannot_be_stored_is_refused(server: InProcessServer, name: str) -> None:
    artifact = create(server, b"one")["id"]
    send_manifest(server, artifact, {name: {"ref": "s3://x"}})
    with pytest.raises(GraphqlRefused, match="file's name"):
        server.graphql(COMMIT, artifactID=artifact)
