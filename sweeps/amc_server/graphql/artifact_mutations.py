"""The mutations that make, name and delete artifacts.

The client creates an artifact, uploads its files and a manifest (the list of files), and commits it. The commit gives
the artifact the next version number. Until then everything may be sent again, also after a restart of either side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from amc_server.clock import Clock
from amc_server.errors import Refused
from amc_server.graphql.artifact_nodes import (
    VERSION,
    ArtifactFileNode,
    ArtifactNode,
    CollectionNode,
    ManifestFileNode,
    tag_node,
)
from amc_server.graphql.context import Context, check_entity, page
from amc_server.ids import global_id, read_collection_id, read_global_id
from amc_server.json_texts import json_or_none, read_json
from amc_server.store.blobs import Blobs, check_name
from amc_server.store.kept_checkpoints import superfluous_versions
from amc_server.store.records import ENTITY, LATEST, Artifact, ArtifactFile, Project, Run
from amc_server.store.writer import Writer
from amc_sweeps.number_formats import counted, listed

_NAME = re.compile(r"[\w.\-]{1,128}")
_TAG = re.compile(r"[-\w]+(?: +[-\w]+)*")


def _entries(manifest: object) -> dict[str, dict[str, Any]]:
    """Return the entries of a manifest, by name.

    Raises:
        Refused: it is not a manifest.
    """
    contents = manifest.get("contents") if isinstance(manifest, dict) else None
    if not isinstance(contents, dict) or not all(isinstance(entry, dict) for entry in contents.values()):
        raise Refused("the manifest must be a JSON object with contents")
    return contents


def missing_files(manifest: object, files: Sequence[ArtifactFile]) -> list[str]:
    """Return the files of a manifest that have not been uploaded; references to other places need no upload.

    Raises:
        Refused: it is not a manifest.
    """
    uploaded = {file.name for file in files if file.blob is not None}
    entries = _entries(manifest).items()
    return sorted(name for name, entry in entries if not entry.get("ref") and name not in uploaded)


def _unlisted(manifest: object, files: Sequence[ArtifactFile]) -> list[ArtifactFile]:
    """Return the uploaded files that the manifest does not name as such."""
    contents = _entries(manifest)
    return [file for file in files if file.name not in contents or contents[file.name].get("ref")]


def _references(manifest: object) -> dict[str, Mapping[str, Any]]:
    """Return the manifest's entries that point to a place elsewhere, by name."""
    return {check_name(name): entry for name, entry in _entries(manifest).items() if entry.get("ref")}


def _check_name(role: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Refused(f"{name[:140]!r} cannot be an artifact's {role}: 1 to 128 letters, digits, _ - and .")


def _check_ttl(input: Mapping[str, Any]) -> None:  # noqa: A002 - the schema's name
    # -1 and -2 are the client's words for "as the collection" and "never": nothing expires here.
    if (input.get("ttlDurationSeconds") or 0) > 0:
        raise Refused(
            "this server does not serve artifact.ttl: versions never expire here. Leave it out, and delete versions "
            "with artifact.delete()",
            status=400,
        )


def _tag(tag: Mapping[str, Any]) -> str:
    name = str(tag["tagName"])
    if len(name) > 128 or not _TAG.fullmatch(name):
        raise Refused(f"{name[:140]!r} cannot be a tag: 1 to 128 letters, digits, _ - and blanks between them")
    return name


class ArtifactMutations:
    """The fields of ``Mutation`` that are about artifacts."""

    def __init__(self, context: Context, store: Writer, clock: Clock, blobs: Blobs, discarded: list[str]) -> None:
        """Prepare for one transaction.

        Args:
            discarded: gets the blobs that no record names once the transaction is committed.
        """
        self._context = context
        self._store = store
        self._clock = clock
        self._blobs = blobs
        self._discarded = discarded

    def create_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002 - the schema's name
        """Begin a version. A repeated request, or equal contents, give the existing version."""
        check_entity(input)
        store, now = self._store, self._clock.wall()
        names = input.get("artifactCollectionNames") or []
        collection = input.get("artifactCollectionName") or (names[0] if names else "")
        for role, name in (("name", collection), ("type", input["artifactTypeName"])):
            _check_name(role, name)
        if input.get("digestAlgorithm") == "MANIFEST_XXH128":
            raise Refused("this server checks artifacts by MD5, not by XXH128")
        if input.get("distributedID"):
            raise Refused("one artifact written by several runs (distributed_id) is not supported on this server")
        project = store.project_or_new(input["projectName"], now)
        versions = store.artifacts(project.pk, collection)
        if versions and versions[0].type != input["artifactTypeName"]:
            raise Refused(f"artifact {collection!r} is of type {versions[0].type!r}, not {input['artifactTypeName']!r}")
        _check_ttl(input)
        tags = [_tag(tag) for tag in input.get("tags") or []]
        artifact = next((item for item in versions if item.is_committed and item.digest == input["digest"]), None)
        client_id = input.get("clientID")
        run = store.run(project.pk, input["runName"]) if input.get("runName") else None
        if artifact is None and client_id is not None:
            artifact = next((item for item in versions if item.client_id == client_id), None)
        if artifact is None:
            pk = store.insert(
                "artifacts",
                project=project.pk,
                run=run.pk if run else None,
                type=input["artifactTypeName"],
                collection=collection,
                state="PENDING",
                digest=input["digest"],
                client_id=client_id,
                description=input.get("description"),
                metadata=json_or_none(input, "metadata"),
                history_step=input.get("historyStep"),
                created_at=now,
                updated_at=now,
            )
            artifact = self._artifact(global_id("Artifact", pk))
        elif run is not None and run.pk != artifact.run:
            store.put_output(run.pk, artifact.pk)
        if client_id is not None:
            store.put_client_id(client_id, artifact.pk)
        for tag in tags:
            store.put_artifact_tag(artifact.pk, tag)
        for alias in input.get("aliases") or []:
            self._put_alias(artifact, alias["alias"])
        return {"artifact": ArtifactNode(self._context, artifact)}

    def create_artifact_manifest(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._pending(input["artifactID"])
        if input.get("type") not in (None, "FULL"):
            raise Refused(
                f"this server takes no incremental artifacts or tables (a manifest of type {input['type']}): log the "
                "whole content as a new version"
            )
        manifest = {
            "id": global_id("ArtifactManifest", artifact.pk),
            "file": ManifestFileNode(self._context, artifact),
        }
        return {"artifact_manifest": manifest}

    def create_artifact_files(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store, nodes = self._store, []
        for spec in input["artifactFiles"]:
            artifact = self._pending(spec["artifactID"])
            name = check_name(spec["name"])
            file = next((file for file in store.artifact_files(artifact.pk) if file.name == name), None)
            if file is not None and file.md5 != spec["md5"]:
                store.delete("artifact_files", file.pk)
                self._discarded.extend([file.blob] if file.blob else [])
                file = None
            if file is None:
                now = self._clock.wall()
                pk = store.insert("artifact_files", artifact=artifact.pk, name=name, md5=spec["md5"], updated_at=now)
                file = store.artifact_file(pk)
                assert file is not None
            nodes.append(ArtifactFileNode(self._context, artifact, file))
        return {"files": page(nodes, after=None, first=None, wrap=lambda node: node)}

    def commit_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        """Make a version of the uploaded files; it never changes from then on."""
        store = self._store
        artifact = self._artifact(input["artifactID"])
        if not artifact.is_committed:
            if artifact.manifest is None:
                raise Refused("the artifact's manifest has not been uploaded")
            files = store.artifact_files(artifact.pk)
            manifest = self._manifest(artifact.manifest)
            missing = missing_files(manifest, files)
            if missing:
                number = counted(len(missing), "file")
                raise Refused(f"the artifact lacks {number} that must be uploaded first: {listed(missing, most=5)}")
            for file in _unlisted(manifest, files):
                store.delete("artifact_files", file.pk)
                self._discarded.extend([file.blob] if file.blob else [])
            for name, entry in _references(manifest).items():  # download() fetches only what is listed
                self._store.put_reference(artifact.pk, name, entry, self._clock.wall())
            files = store.artifact_files(artifact.pk)
            versions = [other.version for other in store.artifacts(artifact.project, artifact.collection)]
            store.update(
                "artifacts",
                artifact.pk,
                state="COMMITTED",
                version=1 + max((version for version in versions if version is not None), default=-1),
                size=sum(file.size for file in files),
                updated_at=self._clock.wall(),
            )
            store.put_alias(artifact, LATEST)
            # In the same transaction: an older checkpoint goes if, and only if, the new one is committed. The bytes go
            # after that is on disk.
            for version in superfluous_versions(store, self._artifact(input["artifactID"])):
                self._discarded.extend(store.delete_artifact(version))
        return {"artifact": ArtifactNode(self._context, self._artifact(input["artifactID"]))}

    def use_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        check_entity(input)
        artifact = self._artifact(input["artifactID"])
        run = self._named_run(input)
        self._store.put_use(run.pk, artifact.pk)
        return {"artifact": ArtifactNode(self._context, artifact)}

    def update_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._artifact(input["artifactID"])
        _check_ttl(input)
        for tag in input.get("tagsToAdd") or []:
            self._store.put_artifact_tag(artifact.pk, _tag(tag))
        for tag in input.get("tagsToDelete") or []:
            self._store.remove_artifact_tag(artifact.pk, tag["tagName"])
        changes = {"description": input.get("description"), "metadata": json_or_none(input, "metadata")}
        changes = {name: value for name, value in changes.items() if value is not None}
        self._store.update("artifacts", artifact.pk, updated_at=self._clock.wall(), **changes)
        return {"artifact": ArtifactNode(self._context, self._artifact(input["artifactID"]))}

    def add_aliases(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._artifact(input["artifactID"])
        for alias in input["aliases"]:
            self._put_alias(artifact, alias["alias"])
        return {"success": True}

    def delete_aliases(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._artifact(input["artifactID"])
        for alias in input["aliases"]:
            self._store.remove_alias(artifact, alias["alias"])
        return {"success": True}

    def delete_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._artifact(input["artifactID"])
        aliases = self._store.aliases(artifact.pk)
        if aliases and not input.get("deleteAliases"):
            raise Refused(f"the artifact has aliases ({', '.join(aliases)}): delete it together with them")
        node = ArtifactNode(self._context, artifact)
        self._discarded.extend(self._store.delete_artifact(artifact))
        return {"artifact": node}

    def link_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        raise Refused(
            f"this server links no artifacts (asked for: {str(input.get('artifactPortfolioName'))[:140]!r}): it has no "
            "registry and no portfolios. Give the version an alias instead.",
            status=400,
        )

    def unlink_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        raise Refused("this server links no artifacts, so there is none to unlink", status=400)

    def update_artifact_sequence(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        project, name = self._collection(input["artifactSequenceID"])
        if input.get("description") is not None:
            self._store.put_collection_description(project.pk, name, input["description"])
        new_name = input.get("name")
        if new_name is not None and new_name != name:
            _check_name("name", new_name)
            if self._store.artifacts(project.pk, new_name):
                raise Refused(f"the project has an artifact {new_name!r} already", status=409)
            self._store.rename_collection(project.pk, name, new_name)
        return self._collection_payload(project, new_name or name)

    def move_artifact_sequence(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        """Give a collection another type."""
        project, name = self._collection(input["artifactSequenceID"])
        kind = input["destinationArtifactTypeName"]
        _check_name("type", kind)
        for version in self._store.artifacts(project.pk, name):
            self._store.update("artifacts", version.pk, type=kind)
        return self._collection_payload(project, name)

    def delete_artifact_sequence(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        project, name = self._collection(input["artifactSequenceID"])
        self._discarded.extend(self._store.delete_collection(project.pk, name))
        return {"artifact_collection": {"__typename": "ArtifactSequence", "state": "DELETED"}}

    def create_artifact_collection_tag_assignments(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        project, name = self._named_collection(input)
        for tag in input["tags"]:
            self._store.put_collection_tag(project.pk, name, _tag(tag))
        return {"tags": [tag_node(tag) for tag in self._store.collection_tags(project.pk, name)]}

    def delete_artifact_collection_tag_assignments(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        project, name = self._named_collection(input)
        for tag in input["tags"]:
            self._store.remove_collection_tag(project.pk, name, tag["tagName"])
        return {"success": True}

    def _named_collection(self, input: Mapping[str, Any]) -> tuple[Project, str]:  # noqa: A002
        check_entity(input)
        project, name = self._store.project(ENTITY, input["projectName"]), input["artifactCollectionName"]
        if project is None or not self._store.artifacts(project.pk, name):
            raise Refused(f"there is no artifact {input['projectName']}/{name}"[:200], status=404)
        return project, name

    def _collection(self, text: str) -> tuple[Project, str]:
        pk, name = read_collection_id(text)
        if not self._store.artifacts(pk, name):
            raise Refused(f"the artifact {name!r} does not exist any more", status=404)
        return self._store.project_by_key(pk), name

    def _collection_payload(self, project: Project, name: str) -> dict[str, Any]:
        kind = self._store.artifacts(project.pk, name)[0].type
        return {"artifact_collection": CollectionNode(self._context, project, kind, name)}

    def _named_run(self, input: Mapping[str, Any]) -> Run:  # noqa: A002
        run = self._store.run_at(ENTITY, input["projectName"], input["runName"])
        if run is None:
            raise Refused(f"there is no run {input['projectName']}/{input['runName']}")
        return run

    def _put_alias(self, artifact: Artifact, alias: str) -> None:
        is_plain = 0 < len(alias) <= 128 and alias.isprintable() and not set("/:") & set(alias)
        if not is_plain or VERSION.fullmatch(alias):
            raise Refused(f"{alias[:140]!r} cannot be an alias: 1 to 128 characters without / and :, not like v3")
        # The latest version is the last committed one. A pending one becomes it by its commit.
        if alias != LATEST or artifact.is_committed:
            self._store.put_alias(artifact, alias)

    def _artifact(self, text: str) -> Artifact:
        artifact = self._store.artifact(read_global_id("Artifact", text))
        if artifact is None:
            raise Refused("the artifact does not exist any more", status=404)
        return artifact

    def _pending(self, text: str) -> Artifact:
        artifact = self._artifact(text)
        if artifact.is_committed:
            name = f"{artifact.collection}:v{artifact.version}"
            raise Refused(f"artifact {name} is committed and cannot be changed")
        return artifact

    def _manifest(self, blob: str) -> object:
        try:
            return read_json(self._blobs.path(blob).read_bytes(), "the artifact's manifest")
        except OSError as error:
            raise Refused(f"the artifact's manifest cannot be read: {error}") from error
