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
from amc_server.graphql.artifact_nodes import VERSION, ArtifactFileNode, ArtifactNode, ManifestFileNode
from amc_server.graphql.context import Context, check_entity, page
from amc_server.ids import global_id, read_global_id
from amc_server.json_texts import read_json
from amc_server.store.blobs import Blobs, check_name
from amc_server.store.records import ENTITY, LATEST, Artifact, ArtifactFile, Run
from amc_server.store.writer import Writer

_NAME = re.compile(r"[\w.\-]{1,128}")


def missing_files(manifest: object, files: Sequence[ArtifactFile]) -> list[str]:
    """Return the files of a manifest that have not been uploaded; references to other places need no upload.

    Raises:
        Refused: it is not a manifest.
    """
    contents = manifest.get("contents") if isinstance(manifest, dict) else None
    if not isinstance(contents, dict) or not all(isinstance(entry, dict) for entry in contents.values()):
        raise Refused("the manifest must be a JSON object with contents")
    uploaded = {file.name for file in files if file.blob is not None}
    return sorted(name for name, entry in contents.items() if not entry.get("ref") and name not in uploaded)


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
            if not _NAME.fullmatch(name):
                raise Refused(f"{name[:140]!r} cannot be an artifact's {role}: 1 to 128 letters, digits, _ - and .")
        if input.get("digestAlgorithm") == "MANIFEST_XXH128":
            raise Refused("this server checks artifacts by MD5, not by XXH128")
        if input.get("distributedID"):
            raise Refused("one artifact written by several runs (distributed_id) is not supported on this server")
        project = store.project_or_new(input["projectName"], now)
        versions = store.artifacts(project.pk, collection)
        if versions and versions[0].type != input["artifactTypeName"]:
            raise Refused(f"artifact {collection!r} is of type {versions[0].type!r}, not {input['artifactTypeName']!r}")
        artifact = next((item for item in versions if item.is_committed and item.digest == input["digest"]), None)
        client_id = input.get("clientID")
        if artifact is None and client_id is not None:
            artifact = next((item for item in versions if item.client_id == client_id), None)
        if artifact is None:
            run = store.run(project.pk, input["runName"]) if input.get("runName") else None
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
            artifact = self._artifact(global_id("Artifact", pk))
        for alias in input.get("aliases") or []:
            self._put_alias(artifact, alias["alias"])
        return {"artifact": ArtifactNode(self._context, artifact)}

    def create_artifact_manifest(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._pending(input["artifactID"])
        if input.get("type") not in (None, "FULL"):
            raise Refused(f"manifests of type {input['type']} are not supported on this server, full ones are")
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
            missing = missing_files(self._manifest(artifact.manifest), files)
            if missing:
                shown = ", ".join(missing[:5])
                raise Refused(f"{len(missing)} files of the artifact have not been uploaded: {shown}")
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
        return {"artifact": ArtifactNode(self._context, self._artifact(input["artifactID"]))}

    def use_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        check_entity(input)
        artifact = self._artifact(input["artifactID"])
        run = self._named_run(input)
        self._store.put_use(run.pk, artifact.pk)
        return {"artifact": ArtifactNode(self._context, artifact)}

    def update_artifact(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        artifact = self._artifact(input["artifactID"])
        if input.get("tagsToAdd") or input.get("tagsToDelete"):
            raise Refused("artifacts have no tags on this server: use aliases")
        changes = {name: input[name] for name in ("description", "metadata") if input.get(name) is not None}
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
