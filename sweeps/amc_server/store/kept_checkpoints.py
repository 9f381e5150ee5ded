"""Which versions of a run's checkpoint are kept: the newest, and every one that something names."""

from __future__ import annotations

from amc_server.store.reader import Reader
from amc_server.store.records import Artifact
from amc_sweeps.bounded_texts import json_object
from amc_sweeps.runs.checkpoint_artifacts import ARTIFACT_TYPE, artifact_name, replaces


def superfluous_versions(store: Reader, newest: Artifact) -> list[Artifact]:
    """Return the versions that a committed version makes superfluous; nothing else is ever deleted by itself.

    They are of the same run, ``replaces`` says that nothing is lost with them, and no alias, no tag and no run names
    them. Uploads that never ended count as versions, too.
    """
    run = None if newest.run is None else store.run_by_key(newest.run)
    is_checkpoint = run is not None and newest.type == ARTIFACT_TYPE and newest.collection == artifact_name(run.id)
    if not is_checkpoint or not newest.is_committed:
        return []
    facts, _ = json_object(newest.metadata or "{}")
    return [
        version
        for version in store.artifacts(newest.project, newest.collection)
        if version.pk != newest.pk
        and version.run == newest.run
        and replaces(facts, json_object(version.metadata or "{}")[0])
        and not store.is_named(version.pk)
    ]
