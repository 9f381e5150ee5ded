"""The requests by which a client makes and reads artifacts."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from in_process_server import InProcessServer

CREATE = """mutation CreateArtifact($input: CreateArtifactInput!) { createArtifact(input: $input) {
    artifact { id state artifactSequence { latestArtifact { id } } } } }"""
FILES = """mutation CreateArtifactFiles($input: CreateArtifactFilesInput!) { createArtifactFiles(input: $input) {
    files { edges { node {
        storagePath uploadUrl uploadHeaders uploadMultipartUrls { uploadID } artifact { id } } } } } }"""
MANIFEST = """mutation CreateArtifactManifest($artifactID: ID!) { createArtifactManifest(input: {
    artifactID: $artifactID, name: "wandb_manifest.json",
    digest: "", entityName: "local", projectName: "p", runName: "r", type: FULL}) {
    artifactManifest { id file { id uploadUrl uploadHeaders } } } }"""
COMMIT = """mutation CommitArtifact($artifactID: ID!) { commitArtifact(input: {artifactID: $artifactID}) {
    artifact { id digest versionIndex size } } }"""
READ = """query A($name: String!) { project(name: "p", entityName: "local") {
    artifactCollectionMembership(name: $name) {
        versionIndex aliases { alias } artifact { id state size currentManifest { file { directUrl } } }
    files { totalCount edges { node { __typename name: displayName directUrl md5 } } } } } }"""


def md5_of(data: bytes) -> str:
    """Return the MD5 in base64, as the client sends it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def path_of(url: str) -> str:
    """Return the path of an absolute URL."""
    return "/" + url.split("/", 3)[3]


def create(server: InProcessServer, contents: bytes, *, client_id: str = "c1", name: str = "model", **more: Any) -> Any:
    """Begin a version."""
    given = {
        "entityName": "local",
        "projectName": "p",
        "runName": "r",
        "artifactTypeName": "model",
        "artifactCollectionName": name,
        "digest": hashlib.md5(contents, usedforsecurity=False).hexdigest(),
        "digestAlgorithm": "MANIFEST_MD5",
        "clientID": client_id,
        "sequenceClientID": "s",
        "enableDigestDeduplication": True,
        **more,
    }
    return server.graphql(CREATE, input=given)["createArtifact"]["artifact"]


def upload(server: InProcessServer, artifact: str, name: str, data: bytes, *, md5: str | None = None) -> int:
    """Announce and upload one file; return the status of the upload."""
    spec = {"artifactID": artifact, "name": name, "md5": md5 or md5_of(data)}
    answer = server.graphql(FILES, input={"artifactFiles": [spec], "storageLayout": "V2"})
    url = answer["createArtifactFiles"]["files"]["edges"][0]["node"]["uploadUrl"]
    return 0 if url is None else server.request("PUT", path_of(url), data, auth=False).status


def log(server: InProcessServer, contents: bytes, **more: Any) -> dict[str, Any]:
    """Log one version with one file, as the client does."""
    artifact = create(server, contents, **more)["id"]
    assert upload(server, artifact, "best.pt", contents) == 200
    send_manifest(server, artifact, {"best.pt": {"digest": md5_of(contents)}})
    return dict(server.graphql(COMMIT, artifactID=artifact)["commitArtifact"]["artifact"])


def send_manifest(server: InProcessServer, artifact: str, contents: dict[str, Any]) -> None:
    """Upload the list of an artifact's files."""
    answer = server.graphql(MANIFEST, artifactID=artifact)["createArtifactManifest"]["artifactManifest"]
    body = json.dumps({"version": 1, "contents": contents}).encode()
    assert server.request("PUT", path_of(answer["file"]["uploadUrl"]), body, auth=False).status == 200


def read(server: InProcessServer, name: str) -> Any:
    """Return the artifact that a name means."""
    return server.graphql(READ, name=name)["project"]["artifactCollectionMembership"]


def blobs(server: InProcessServer) -> int:
    """Return how many files lie in the data folder's blobs."""
    return sum(path.is_file() for path in (server.folder / "blobs").rglob("*"))
