"""Whether a server holds every byte of the artifacts that it names."""

from __future__ import annotations

import base64
import hashlib
import json

from in_process_server import InProcessServer

from amc_sweeps.runs.checkpoint_artifacts import progress


def furthest_whole_version(server: InProcessServer, name: str, project: str = "p") -> tuple[int, int]:
    """Return the progress of the furthest version, after checking every byte of every committed version."""
    found = []
    with server.storage.read() as store:
        found_project = store.project("local", project)
        assert found_project is not None
        for version in store.artifacts(found_project.pk, name):
            if not version.is_committed:
                continue
            assert version.manifest is not None
            assert (server.folder / "blobs" / version.manifest[:2] / version.manifest).is_file()
            files = store.artifact_files(version.pk)
            assert files
            for file in files:
                assert file.blob is not None
                content = (server.folder / "blobs" / file.blob[:2] / file.blob).read_bytes()
                digest = hashlib.md5(content, usedforsecurity=False).digest()
                assert base64.b64encode(digest).decode() == file.md5
            found.append(progress(json.loads(version.metadata or "{}")))
        latest = store.artifact_with_alias(found_project.pk, name, "latest")
        assert latest is not None
        assert store.artifact(latest) is not None
    return max(found)
