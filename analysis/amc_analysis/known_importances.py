"""The importances of earlier analyses, kept on this machine: a forest takes longer than all the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from amc_analysis.results.effects import Importance, ParameterImportance
from amc_core.files import write_whole
from amc_sweeps.bounded_texts import read_file, read_json

MOST_KEPT = 100  # analyses, the latest ones
MOST_BYTES = 4 * 1024**2


@contextlib.contextmanager
def known_importances(folder: Path | None) -> Iterator[dict[str, Importance]]:
    """Give the importances that the folder's file has, by key; at the end, write those that were added.

    A file that cannot be read or written is no failure: then the forests are grown again. None keeps nothing.
    """
    if folder is None:
        yield {}
        return
    path = folder / "importances.json"
    known: dict[str, Importance] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        for key, content in read_json(read_file(path, MOST_BYTES)).items():
            shares = tuple(ParameterImportance(**share) for share in content["shares"])
            known[str(key)] = Importance(content["n"], content["r2"], shares, content["refused"])
    before = len(known)
    yield known
    if len(known) > before:
        latest = list(known.items())[-MOST_KEPT:]
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(path, json.dumps({key: dataclasses.asdict(value) for key, value in latest}))
