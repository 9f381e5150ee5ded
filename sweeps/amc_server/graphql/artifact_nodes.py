"""The nodes of artifacts. An artifact is a version of a named collection of files, such as a model's checkpoints.

The client uploads and downloads files and manifests at signed URLs, without the key.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence
from typing import Any

from amc_server.clock import iso_time
from amc_server.graphql.context import Context, page
from amc_server.graphql.filters import select
from amc_server.ids import global_id
from amc_server.store.reader import Reader
from amc_server.store.records import LATEST, Artifact, ArtifactFile, Project
from amc_sweeps.bounded_texts import strict_object
from amc_sweeps.runs.export_file import unix_time
from amc_sweeps.values import is_32_bit

VERSION = re.compile(r"v(\d{1,15})")


def find_artifact(store: Reader, project: int, name: str) -> Artifact | None:
    """Return the artifact that ``collection:v3``, ``collection:alias`` or ``collection`` (the latest) names."""
    collection, _, alias = name.partition(":")
    return _version(store, project, collection, alias or LATEST)


def _version(store: Reader, project: int, collection: str, alias: str) -> Artifact | None:
    if match := VERSION.fullmatch(alias):
        index = int(match[1])
        versions = store.artifacts(project, collection)
        return next((version for version in versions if version.version == index), None)
    pk = store.artifact_with_alias(project, collection, alias)
    return None if pk is None else store.artifact(pk)


class ArtifactNode:
    """One version."""

    ttl_duration_seconds = 0
    ttl_is_inherited = True
    commit_hash = None
    digest_algorithm = "MANIFEST_MD5"

    def __init__(self, context: Context, artifact: Artifact) -> None:
        self._context = context
        self._artifact = artifact
        self.id = global_id("Artifact", artifact.pk)
        self.version_index = artifact.version if is_32_bit(artifact.version) else None
        self.description = artifact.description
        self.metadata = None if artifact.metadata is None else strict_object(artifact.metadata)
        self.history_step = artifact.history_step
        self.state = "COMMITTED" if artifact.is_committed else "PENDING"
        self.size = artifact.size
        self.digest = artifact.digest
        self.created_at = iso_time(artifact.created_at)
        self.updated_at = iso_time(artifact.updated_at)

    def _project(self) -> Project:
        return self._context.store.project_by_key(self._artifact.project)

    def artifact_sequence(self) -> CollectionNode:
        return CollectionNode(self._context, self._project(), self._artifact.type, self._artifact.collection)

    def artifact_type(self) -> ArtifactTypeNode:
        return ArtifactTypeNode(self._context, self._project(), self._artifact.type)

    def tags(self) -> list[dict[str, str]]:
        return [tag_node(tag) for tag in self._context.store.artifact_tags(self._artifact.pk)]

    def artifact_memberships(self) -> dict[str, Any]:
        """Return the version's place in its own collection; there are no others, because nothing can be linked."""
        membership = self.artifact_sequence().artifact_membership(f"v{self._artifact.version}")
        return page([membership] if membership else [], after=None, first=None, wrap=lambda node: node)

    def file_count(self) -> int:
        return len(self._context.store.artifact_files(self._artifact.pk))

    def aliases(self) -> list[dict[str, Any]]:
        collection = self.artifact_sequence()
        return [_alias(self._artifact, alias, collection) for alias in self._context.store.aliases(self._artifact.pk)]

    def current_manifest(self) -> dict[str, Any] | None:
        if self._artifact.manifest is None:
            return None
        return {
            "id": global_id("ArtifactManifest", self._artifact.pk),
            "file": ManifestFileNode(self._context, self._artifact),
        }

    def created_by(self) -> object:
        run = None if self._artifact.run is None else self._context.store.run_by_key(self._artifact.run)
        return self._context.nodes.run(self._context, run) if run else None

    def used_by(self) -> dict[str, Any]:
        runs = self._context.store.runs_using(self._artifact.pk)
        return page(runs, after=None, first=None, wrap=lambda run: self._context.nodes.run(self._context, run))

    def files(
        self, names: list[str] | None = None, after: str | None = None, first: int | None = None
    ) -> dict[str, Any]:
        stored = self._context.store.artifact_files(self._artifact.pk)
        files = [file for file in stored if names is None or file.name in names]
        return page(
            files, after=after, first=first, wrap=lambda file: ArtifactFileNode(self._context, self._artifact, file)
        )


def tag_node(tag: str) -> dict[str, str]:
    return {"id": global_id("Tag", tag), "name": tag}


def _alias(artifact: Artifact, alias: str, collection: CollectionNode) -> dict[str, Any]:
    return {
        "id": global_id("ArtifactAlias", f"{artifact.pk}/{alias}"),
        "alias": alias,
        "artifact_collection": collection,
    }


class ArtifactTypeNode:
    """The type of a collection: model, dataset ..."""

    description = None

    def __init__(self, context: Context, project: Project, name: str) -> None:
        self._context = context
        self._project = project
        self.id = global_id("ArtifactType", f"{project.pk}/{name}")
        self.name = name
        self.created_at = iso_time(project.created_at)

    def artifact(self, name: str) -> ArtifactNode | None:
        artifact = find_artifact(self._context.store, self._project.pk, name)
        return ArtifactNode(self._context, artifact) if artifact and artifact.type == self.name else None

    def artifact_collection(self, name: str) -> CollectionNode | None:
        return next((collection for collection in self._collections() if collection.name == name), None)

    def artifact_collections(
        self,
        after: str | None = None,
        first: int | None = None,
        filters: str | None = None,
        order: str | None = None,
    ) -> dict[str, Any]:
        return page_of_collections(self._collections(), after, first, filters, order)

    def _collections(self) -> list[CollectionNode]:
        collections = self._context.store.collections(self._project.pk)
        names = [name for kind, name in collections if kind == self.name]
        return [CollectionNode(self._context, self._project, self.name, name) for name in names]


def page_of_collections(
    collections: Sequence[CollectionNode], after: str | None, first: int | None, filters: str | None, order: str | None
) -> dict[str, Any]:
    """Return a page of the collections that match."""
    matches = select(collections, CollectionNode.values, filters, order)
    return page(matches, after=after, first=first, wrap=lambda collection: collection)


class CollectionNode:
    """The versions of one name."""

    __typename = "ArtifactSequence"  # for fields of the interface ArtifactCollection
    state = "READY"
    digest_algorithm = "MANIFEST_MD5"

    def __init__(self, context: Context, project: Project, kind: str, name: str) -> None:
        self._context = context
        self._project = project
        self._kind = kind
        self.id = global_id("ArtifactSequence", f"{project.pk}/{name}")
        self.name = name

    def description(self) -> str | None:
        return self._context.store.collection_description(self._project.pk, self.name)

    def tags(self) -> dict[str, Any]:
        tags = self._context.store.collection_tags(self._project.pk, self.name)
        return page(tags, after=None, first=None, wrap=tag_node)

    def values(self) -> dict[str, Any]:
        """Return what collections are filtered and ordered by."""
        return {
            "name": self.name,
            "type": self._kind,
            "description": self.description(),
            "tags": self._context.store.collection_tags(self._project.pk, self.name),
            "created_at": unix_time(self.created_at()),
            "updated_at": unix_time(self.updated_at()),
        }

    def _versions(self) -> list[Artifact]:
        versions = self._context.store.artifacts(self._project.pk, self.name)
        return [version for version in versions if version.is_committed]

    def created_at(self) -> str | None:
        versions = self._versions()
        return iso_time(versions[-1].created_at if versions else self._project.created_at)

    def updated_at(self) -> str | None:
        versions = self._versions()
        return iso_time(versions[0].updated_at if versions else self._project.created_at)

    def project(self) -> object:
        return self._context.nodes.project(self._context, self._project)

    def type(self) -> ArtifactTypeNode:
        return self.default_artifact_type()

    def default_artifact_type(self) -> ArtifactTypeNode:
        return ArtifactTypeNode(self._context, self._project, self._kind)

    def aliases(self, after: str | None = None, first: int | None = None) -> dict[str, Any]:
        store = self._context.store
        aliases = [(version, alias) for version in self._versions() for alias in store.aliases(version.pk)]
        return page(aliases, after=after, first=first, wrap=lambda pair: _alias(pair[0], pair[1], self))

    def artifacts(
        self,
        after: str | None = None,
        first: int | None = None,
        order: str | None = None,
        filters: str | None = None,
    ) -> dict[str, Any]:
        """Return the versions, newest first if no order is given."""
        versions = select(self._versions(), self._version_values, filters, order or "-version_index")
        result = page(versions, after=after, first=first, wrap=lambda item: ArtifactNode(self._context, item))
        for edge in result["edges"]:
            edge["version"] = f"v{edge['node'].version_index}"
        return result

    def _version_values(self, version: Artifact) -> dict[str, Any]:
        return {
            "state": version.state,
            "version_index": version.version,
            "digest": version.digest,
            "size": version.size,
            "description": version.description,
            "aliases": self._context.store.aliases(version.pk),
            "tags": self._context.store.artifact_tags(version.pk),
            "created_at": version.created_at,
            "updated_at": version.updated_at,
        }

    def artifact_membership(self, alias_name: str) -> dict[str, Any] | None:
        version = _version(self._context.store, self._project.pk, self.name, alias_name)
        if version is None:
            return None
        node = ArtifactNode(self._context, version)
        return {
            "id": global_id("ArtifactCollectionMembership", version.pk),
            "version_index": node.version_index,
            "created_at": node.created_at,
            "aliases": node.aliases,
            "artifact_collection": self,
            "artifact": node,
            "files": node.files,
        }

    def latest_artifact(self) -> ArtifactNode | None:
        version = _version(self._context.store, self._project.pk, self.name, LATEST)
        return ArtifactNode(self._context, version) if version else None


class ArtifactFileNode:
    """A file of a version."""

    upload_multipart_urls = None  # one PUT takes any size
    upload_headers: Sequence[str] = ()

    def __init__(self, context: Context, artifact: Artifact, file: ArtifactFile) -> None:
        self._context = context
        self._artifact = artifact
        self._file = file
        self.id = global_id("ArtifactFile", file.pk)
        self.name = self.display_name = self.storage_path = file.name
        self.size_bytes = file.size
        self.md5 = self.digest = file.md5
        self.updated_at = iso_time(file.updated_at)
        self.mimetype = mimetypes.guess_type(file.name)[0] or "application/octet-stream"

    def artifact(self) -> ArtifactNode:
        return ArtifactNode(self._context, self._artifact)

    def url(self, upload: bool | None = None) -> str | None:
        return self.direct_url()

    def direct_url(self) -> str | None:
        """Return the URL of the bytes, here or where a reference points to; None if they have not arrived."""
        if self._file.blob is None:
            return self._context.store.artifact_reference(self._file.pk)
        return self._context.signed_url("blob", self._file.blob, self._file.name)

    def upload_url(self) -> str | None:
        """Return the URL for the bytes; None if they have arrived."""
        return None if self._file.blob else self._context.signed_url("artifact-file", self._file.pk)


class ManifestFileNode:
    """The file that lists a version's files."""

    name = display_name = "wandb_manifest.json"
    url = storage_path = upload_multipart_urls = md5 = digest = size_bytes = None
    mimetype = "application/json"
    upload_headers: Sequence[str] = ()

    def __init__(self, context: Context, artifact: Artifact) -> None:
        self._context = context
        self._artifact = artifact
        self.id = global_id("ManifestFile", artifact.pk)
        self.updated_at = iso_time(artifact.updated_at)

    def artifact(self) -> ArtifactNode:
        return ArtifactNode(self._context, self._artifact)

    def direct_url(self) -> str | None:
        blob = self._artifact.manifest
        return self._context.signed_url("blob", blob, self.name) if blob else None

    def upload_url(self) -> str:
        return self._context.signed_url("manifest", self._artifact.pk)
