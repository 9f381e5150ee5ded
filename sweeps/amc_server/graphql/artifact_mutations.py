"""The mutations that make, name and delete artifacts.

The client creates a version, uploads its files and a manifest (the list of them), and commits it. Only a commit makes
a version, with the next number: until then everything may be sent again, after a restart of either side too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from amc_server.errors import Refused
from amc_server.graphql.artifact_nodes import LATEST, VERSION, ArtifactFileNode, ArtifactNode, ManifestFileNode
from amc_server.graphql.context import Context, check_entity, page
from amc_server.ids import global_id, read_global_id
from amc_server.scheduling.coordinator import ENTITY
from amc_server.store.blobs import check_name
from amc_server.store.records import Artifact, ArtifactFile

_NAME = re.compile(r"[\w.\-]{1,128}")


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
            or VERSION.fullmatch(alias)
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
