"""Artifacts: versions of a named collection of files, such as a model's checkpoints.

The client creates a version, uploads its files and a manifest (the list of them), and commits it. Only a commit makes
a version, with the next number: until then everything may be sent again, after a restart of either side too.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amc_server.context import Context, check_entity, global_id, iso_time, page, read_global_id
from amc_server.coordinator import ENTITY
from amc_server.errors import Refused
from amc_server.files import check_name
from amc_server.filters import read_filters
from amc_server.records import Artifact, ArtifactFile, Project
from amc_server.storage import Reader

if TYPE_CHECKING:
    from amc_server.resolvers import ProjectNode, RunNode

LATEST = "latest"  # the alias that every commit takes over
_VERSION = re.compile(r"v(\d{1,15})")
_NAME = re.compile(r"[\w.\-]{1,128}")


def by_name(store: Reader, project: int, name: str) -> Artifact | None:
    """Return what ``collection:v3``, ``collection:alias`` or ``collection`` (the latest) means."""
    collection, _, alias = name.partition(":")
    return _version(store, project, collection, alias or LATEST)


def _version(store: Reader, project: int, collection: str, alias: str) -> Artifact | None:
    if match := _VERSION.fullmatch(alias):
        index = int(match[1])
        return next((each for each in store.artifacts(project, collection) if each.version == index), None)
    pk = store.aliased(project, collection, alias)
    return None if pk is None else store.artifact(pk)


class ArtifactNode:
    """One version."""

    ttl_duration_seconds = 0
    ttl_is_inherited = True
    commit_hash = None
    tags: Sequence[Any] = ()
    digest_algorithm = "MANIFEST_MD5"

    def __init__(self, context: Context, artifact: Artifact) -> None:
        self._context = context
        self._artifact = artifact
        self.id = global_id("Artifact", artifact.pk)
        self.version_index = artifact.version
        self.description = artifact.description
        self.metadata = artifact.metadata
        self.history_step = artifact.history_step
        self.state = artifact.state
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

    def created_by(self) -> RunNode | None:
        from amc_server.resolvers import RunNode

        run = None if self._artifact.run is None else self._context.store.run_by_key(self._artifact.run)
        return RunNode(self._context, run) if run else None

    def used_by(self) -> dict[str, Any]:
        from amc_server.resolvers import RunNode

        found = self._context.store.runs_using(self._artifact.pk)
        return page(found, after=None, first=None, wrap=lambda run: RunNode(self._context, run))

    def files(
        self, names: list[str] | None = None, after: str | None = None, first: int | None = None
    ) -> dict[str, Any]:
        every = self._context.store.artifact_files(self._artifact.pk)
        found = [file for file in every if names is None or file.name in names]
        return page(
            found, after=after, first=first, wrap=lambda file: ArtifactFileNode(self._context, self._artifact, file)
        )


def _alias(artifact: Artifact, alias: str, collection: CollectionNode) -> dict[str, Any]:
    return {
        "id": global_id("ArtifactAlias", f"{artifact.pk}/{alias}"),
        "alias": alias,
        "artifact_collection": collection,
    }


class ArtifactTypeNode:
    """What kind of thing a collection holds: model, dataset ..."""

    description = None

    def __init__(self, context: Context, project: Project, name: str) -> None:
        self._context = context
        self._project = project
        self.id = global_id("ArtifactType", f"{project.pk}/{name}")
        self.name = name
        self.created_at = iso_time(project.created_at)

    def artifact_collection(self, name: str) -> CollectionNode | None:
        return next((each for each in self._collections() if each.name == name), None)

    def artifact_collections(self, after: str | None = None, first: int | None = None) -> dict[str, Any]:
        return page(self._collections(), after=after, first=first, wrap=lambda each: each)

    def _collections(self) -> list[CollectionNode]:
        known = self._context.store.collections(self._project.pk)
        return [
            CollectionNode(self._context, self._project, self.name, name) for kind, name in known if kind == self.name
        ]


class CollectionNode:
    """The versions of one name."""

    __typename = "ArtifactSequence"  # where the schema allows several
    description = None
    digest_algorithm = "MANIFEST_MD5"

    def __init__(self, context: Context, project: Project, kind: str, name: str) -> None:
        self._context = context
        self._project = project
        self._kind = kind
        self.id = global_id("ArtifactSequence", f"{project.pk}/{name}")
        self.name = name
        self.tags: dict[str, Any] = {"edges": []}

    def _versions(self) -> list[Artifact]:
        every = self._context.store.artifacts(self._project.pk, self.name)
        return [each for each in every if each.is_committed]

    def created_at(self) -> str | None:
        versions = self._versions()
        return iso_time(versions[-1].created_at if versions else self._project.created_at)

    def updated_at(self) -> str | None:
        versions = self._versions()
        return iso_time(versions[0].updated_at if versions else self._project.created_at)

    def project(self) -> ProjectNode:
        from amc_server.resolvers import ProjectNode

        return ProjectNode(self._context, self._project)

    def type(self) -> ArtifactTypeNode:
        return ArtifactTypeNode(self._context, self._project, self._kind)

    def aliases(self, after: str | None = None, first: int | None = None) -> dict[str, Any]:
        found = [
            _alias(each, alias, self) for each in self._versions() for alias in self._context.store.aliases(each.pk)
        ]
        return page(found, after=after, first=first, wrap=lambda each: each)

    def artifacts(
        self,
        after: str | None = None,
        first: int | None = None,
        order: str | None = None,
        filters: str | None = None,
    ) -> dict[str, Any]:
        """Return the versions, newest first."""
        if read_filters(filters) not in ({}, {"state": "COMMITTED"}):
            raise Refused("versions of an artifact cannot be filtered here: read them all")
        versions = sorted(self._versions(), key=lambda each: each.version or 0, reverse=order != "+created_at")
        found = page(versions, after=after, first=first, wrap=lambda each: ArtifactNode(self._context, each))
        for edge in found["edges"]:
            edge["version"] = f"v{edge['node'].version_index}"
        return found

    def artifact_membership(self, alias_name: str) -> dict[str, Any] | None:
        found = _version(self._context.store, self._project.pk, self.name, alias_name)
        if found is None:
            return None
        node = ArtifactNode(self._context, found)
        return {
            "id": global_id("ArtifactCollectionMembership", found.pk),
            "version_index": found.version,
            "created_at": node.created_at,
            "aliases": node.aliases,
            "artifact_collection": self,
            "artifact": node,
            "files": node.files,
        }

    def latest_artifact(self) -> ArtifactNode | None:
        found = _version(self._context.store, self._project.pk, self.name, LATEST)
        return ArtifactNode(self._context, found) if found else None


class ArtifactFileNode:
    """A file of a version."""

    url: str | None = None  # the client takes directUrl
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

    def direct_url(self) -> str | None:
        return _signed(self._context, "blob", self._file.blob, self._file.name) if self._file.blob else None

    def upload_url(self) -> str | None:
        """Return where the bytes go; None when they are here already."""
        return None if self._file.blob else _signed(self._context, "artifact-file", self._file.pk)


class ManifestFileNode:
    """The list of a version's files, itself a file."""

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
        return _signed(self._context, "blob", blob, self.name) if blob else None

    def upload_url(self) -> str:
        return _signed(self._context, "manifest", self._artifact.pk)


def _signed(context: Context, what: str, *claim: int | str) -> str:
    return f"{context.base_url}/storage/{context.gate.sign(what, *claim)}"


def missing_files(manifest: object, files: Sequence[ArtifactFile]) -> list[str]:
    """Return which files a manifest lists that are not here; references to elsewhere need no bytes.

    Raises:
        Refused: when it is no manifest.
    """
    contents = manifest.get("contents") if isinstance(manifest, dict) else None
    if not isinstance(contents, dict) or not all(isinstance(entry, dict) for entry in contents.values()):
        raise Refused("the manifest is a JSON object with contents")
    here = {file.name for file in files if file.blob is not None}
    return sorted(name for name, entry in contents.items() if not entry.get("ref") and name not in here)


class ArtifactMutations:
    """The fields of ``Mutation`` that are about artifacts."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def create_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002 - the schema's name
        """Begin a version, or find the one that the same request began before; equal contents make no new one."""
        check_entity(input)
        store, coordinator = self._context.writer, self._context.coordinator
        names = input.get("artifactCollectionNames") or []
        collection = input.get("artifactCollectionName") or (names[0] if names else "")
        for what, name in (("name", collection), ("type", input["artifactTypeName"])):
            if not _NAME.fullmatch(name):
                raise Refused(f"{name[:140]!r} cannot be an artifact's {what}: 1 to 128 letters, digits, _ - and .")
        if input.get("digestAlgorithm") == "MANIFEST_XXH128":
            raise Refused("artifacts are checked by MD5 here, not by XXH128")
        if input.get("distributedID"):
            raise Refused("one artifact written by several runs (distributed_id) is not supported here")
        project = coordinator.project(store, input["projectName"])
        known = store.artifacts(project.pk, collection)
        if known and known[0].type != input["artifactTypeName"]:
            raise Refused(f"artifact {collection!r} is of type {known[0].type!r}, not {input['artifactTypeName']!r}")
        found = next((each for each in known if each.is_committed and each.digest == input["digest"]), None)
        client_id = input.get("clientID")
        if found is None and client_id is not None:
            found = next((each for each in known if each.client_id == client_id), None)
        if found is None:
            run = store.run(project.pk, input["runName"]) if input.get("runName") else None
            now = coordinator.clock.wall()
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
                metadata=input.get("metadata"),
                history_step=input.get("historyStep"),
                created_at=now,
                updated_at=now,
            )
            found = self._artifact(global_id("Artifact", pk))
        for alias in input.get("aliases") or []:
            self._point(found, alias["alias"])
        return {"artifact": ArtifactNode(self._context, found)}

    def create_artifact_manifest(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._pending(input["artifactID"])
        if input.get("type") not in (None, "FULL"):
            raise Refused(f"manifests of type {input['type']} are not supported here, full ones are")
        manifest = {
            "id": global_id("ArtifactManifest", artifact.pk),
            "file": ManifestFileNode(self._context, artifact),
        }
        return {"artifact_manifest": manifest}

    def create_artifact_files(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store, nodes = self._context.writer, []
        for spec in input["artifactFiles"]:
            artifact = self._pending(spec["artifactID"])
            name = check_name(spec["name"])
            known = next((file for file in store.artifact_files(artifact.pk) if file.name == name), None)
            if known is not None and known.md5 != spec["md5"]:
                store.delete("artifact_files", known.pk)
                self._context.discarded.extend([known.blob] if known.blob else [])
                known = None
            if known is None:
                now = self._context.coordinator.clock.wall()
                pk = store.insert("artifact_files", artifact=artifact.pk, name=name, md5=spec["md5"], updated_at=now)
                known = store.artifact_file(pk)
                assert known is not None
            nodes.append(ArtifactFileNode(self._context, artifact, known))
        return {"files": page(nodes, after=None, first=None, wrap=lambda node: node)}

    def commit_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        """Make a version of what was uploaded; once it has a number it stays as it is."""
        store = self._context.writer
        artifact = self._artifact(input["artifactID"])
        if not artifact.is_committed:
            if artifact.manifest is None:
                raise Refused("the artifact's manifest has not been uploaded")
            files = store.artifact_files(artifact.pk)
            missing = missing_files(self._manifest(artifact.manifest), files)
            if missing:
                shown = ", ".join(missing[:5])
                raise Refused(f"{len(missing)} files of the artifact have not been uploaded: {shown}")
            versions = [each.version for each in store.artifacts(artifact.project, artifact.collection)]
            store.update(
                "artifacts",
                artifact.pk,
                state="COMMITTED",
                version=1 + max((version for version in versions if version is not None), default=-1),
                size=sum(file.size for file in files),
                updated_at=self._context.coordinator.clock.wall(),
            )
            store.put_alias(artifact, LATEST)
        return {"artifact": ArtifactNode(self._context, self._artifact(input["artifactID"]))}

    def use_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        check_entity(input)
        store = self._context.writer
        artifact = self._artifact(input["artifactID"])
        project = store.project(ENTITY, input["projectName"])
        run = store.run(project.pk, input["runName"]) if project else None
        if run is None:
            raise Refused(f"there is no run {input['projectName']}/{input['runName']}")
        store.put_use(run.pk, artifact.pk)
        return {"artifact": ArtifactNode(self._context, artifact)}

    def update_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._artifact(input["artifactID"])
        if input.get("tagsToAdd") or input.get("tagsToDelete"):
            raise Refused("artifacts have no tags here: use aliases")
        changes = {name: input[name] for name in ("description", "metadata") if input.get(name) is not None}
        now = self._context.coordinator.clock.wall()
        self._context.writer.update("artifacts", artifact.pk, updated_at=now, **changes)
        return {"artifact": ArtifactNode(self._context, self._artifact(input["artifactID"]))}

    def add_aliases(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._artifact(input["artifactID"])
        for alias in input["aliases"]:
            self._point(artifact, alias["alias"])
        return {"success": True}

    def delete_aliases(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._artifact(input["artifactID"])
        for alias in input["aliases"]:
            self._context.writer.remove_alias(artifact, alias["alias"])
        return {"success": True}

    def delete_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._artifact(input["artifactID"])
        aliases = self._context.store.aliases(artifact.pk)
        if aliases and not input.get("deleteAliases"):
            raise Refused(f"the artifact has aliases ({', '.join(aliases)}): delete it together with them")
        node = ArtifactNode(self._context, artifact)
        self._delete_artifact(artifact)
        return {"artifact": node}

    def _delete_artifact(self, artifact: Artifact) -> None:
        store = self._context.writer
        blobs = [artifact.manifest, *(file.blob for file in store.artifact_files(artifact.pk))]
        self._context.discarded.extend(blob for blob in blobs if blob is not None)
        was_latest = store.aliased(artifact.project, artifact.collection, LATEST) == artifact.pk
        store.delete("artifacts", artifact.pk)
        left = [each for each in store.artifacts(artifact.project, artifact.collection) if each.is_committed]
        if was_latest and left:
            store.put_alias(max(left, key=lambda each: each.version or 0), LATEST)

    def _point(self, artifact: Artifact, alias: str) -> None:
        if (
            not alias
            or len(alias) > 128
            or _VERSION.fullmatch(alias)
            or not alias.isprintable()
            or set("/:") & set(alias)
        ):
            raise Refused(f"{alias[:140]!r} cannot be an alias: 1 to 128 characters without / and :, not like v3")
        # The latest version is the last one that was committed: a pending one waits for that.
        if alias != LATEST or artifact.is_committed:
            self._context.writer.put_alias(artifact, alias)

    def _artifact(self, text: str) -> Artifact:
        found = self._context.store.artifact(read_global_id("Artifact", text))
        if found is None:
            raise Refused("the artifact is not there any more", status=404)
        return found

    def _pending(self, text: str) -> Artifact:
        artifact = self._artifact(text)
        if artifact.is_committed:
            raise Refused(
                f"artifact {artifact.collection}:v{artifact.version} is committed and does not change any more"
            )
        return artifact

    def _manifest(self, blob: str) -> object:
        try:
            return json.loads(self._context.blobs.path(blob).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise Refused(f"the artifact's manifest cannot be read: {error}") from error
