"""The sweep or the run that a person meant: ID, PROJECT/ID, ENTITY/PROJECT/ID or the URL of its page."""

from __future__ import annotations

import difflib
import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from amc_sweeps.backend.addresses import split_address
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.keys import CLOUD_PAGES, CLOUD_URL
from amc_sweeps.number_formats import counted, quoted

Kind = Literal["run", "sweep"]

# What a shell reads as something else is left out, because commands are printed to be pasted.
_NAME = re.compile(r"""[^"'`$\\|&;<>*?#%/!~(){}\[\]]+""")

_PAGES: dict[str, Kind] = {"runs": "run", "sweeps": "sweep"}  # word in a page's URL -> what the page shows


class TargetNotFoundError(BackendError):
    """No sweep or run has the id, or several have; ``candidates`` lists paths that may have been meant."""

    def __init__(self, message: str, candidates: list[str]) -> None:
        super().__init__(message)
        self.candidates = candidates


@dataclass(frozen=True)
class Reference:
    """A sweep or a run as a person wrote it; only the id is certain."""

    id: str
    project: str | None = None
    entity: str | None = None
    base_url: str | None = None  # of the server of a pasted URL
    kinds: tuple[Kind, ...] = ("sweep",)  # what the id may belong to


@dataclass(frozen=True)
class Target:
    """A sweep or a run that exists."""

    kind: Kind
    path: str  # ENTITY/PROJECT/ID
    api_object: Any  # the wandb client's run or sweep


def parse_reference(text: str, kinds: tuple[Kind, ...] = ("sweep",)) -> Reference:
    """Read ID, PROJECT/ID, ENTITY/PROJECT/ID or a pasted URL, which may go on after the id.

    >>> parse_reference("https://wandb.ai/me/amc/runs/7h3jifit/overview", ("run", "sweep")).kinds
    ('run',)

    Raises:
        BackendError: the text has none of these forms, or is the page of another kind.
    """
    base_url, path, kind = None, text.strip(), None
    if "://" in path:
        base_url, path, kind = _read_url(path)
    pieces = path.split("/")
    if len(pieces) > 3 or not all(_NAME.fullmatch(piece) and piece.isprintable() for piece in pieces):
        forms = "write ID, PROJECT/ID, ENTITY/PROJECT/ID or the URL of its page"
        raise BackendError(f"{quoted(text)} does not name a {' or a '.join(kinds)}: {forms}")
    if kind is not None and kind not in kinds:
        raise BackendError(f"{quoted(text)} is the page of a {kind}; a {' or a '.join(kinds)} is needed")
    *owner, target_id = pieces
    entity, project = [None] * (2 - len(owner)) + owner
    return Reference(target_id, project, entity, base_url, kinds if kind is None else (kind,))


def _read_url(url: str) -> tuple[str, str, Kind | None]:
    """Return the server, ENTITY/PROJECT/ID and the kind of a page; "" and None for a page of anything else."""
    parts = split_address(url)
    if parts is None:
        return "", "", None
    pieces = [urllib.parse.unquote(piece) for piece in parts.path.split("/") if piece]
    if pieces[:1] == ["wandb"] and (
        parts.hostname == "forge.coreweave.com" or pieces[2:3] not in [["runs"], ["sweeps"]]
    ):
        del pieces[0]  # .../wandb/ENTITY/PROJECT/sweeps/ID, unless the entity itself is called wandb
    base_url = CLOUD_URL if parts.hostname in CLOUD_PAGES else f"{parts.scheme}://{parts.netloc}"
    if len(pieces) < 4 or pieces[2] not in _PAGES:
        return base_url, "", None
    return base_url, "/".join([pieces[0], pieces[1], pieces[3]]), _PAGES[pieces[2]]


def named_server(references: Iterable[Reference]) -> str | None:
    """Return the server of pasted URLs; None if no reference is one.

    Raises:
        BackendError: they are of several servers.
    """
    urls = sorted({reference.base_url for reference in references if reference.base_url is not None})
    if len(urls) > 1:
        raise BackendError(f"the arguments are on several servers ({', '.join(urls)}): give those of one server")
    return urls[0] if urls else None


def find_sweep(
    reference: Reference,
    api: Any,
    *,
    entity: str | None = None,
    project: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> str:
    """Return ENTITY/PROJECT/ID of a sweep. A whole path is returned without asking the server; else see find_target."""
    if reference.entity and reference.project:
        return f"{reference.entity}/{reference.project}/{reference.id}"
    return find_target(reference, api, entity=entity, project=project, environ=environ).path


def find_target(
    reference: Reference,
    api: Any,
    *,
    entity: str | None = None,
    project: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Target:
    """Return the sweep or run of a reference.

    Parts that the reference lacks are taken from the flags, then from WANDB_ENTITY and WANDB_PROJECT. If no project is
    named, every project of the entity is searched.

    Args:
        reference: what the person wrote.
        api: a ``wandb.Api``.
        entity: the value of --entity.
        project: the value of --project.
        environ: where the two variables are looked up.

    Raises:
        TargetNotFoundError: nothing has the id, or several have it.
        BackendError: the entity is unknown.
        wandb.Error: the server does not answer as it should.
    """
    owner = reference.entity or entity or environ.get("WANDB_ENTITY") or api.default_entity
    if not owner:
        raise BackendError("no entity is known here: give --entity, or write ENTITY/PROJECT/ID")
    project_name = reference.project or project or environ.get("WANDB_PROJECT")
    # One request a project and kind; to list all sweeps costs one request a sweep, so that comes last.
    projects = [project_name] if project_name else [candidate.name for candidate in api.projects(owner)]
    paths = [f"{owner}/{name}/{reference.id}" for name in projects]
    targets = [target for path in paths for kind in reference.kinds if (target := _get(api, kind, path)) is not None]
    if len(targets) == 1:
        return targets[0]
    if targets:
        lines = [f"the {target.kind} {target.path}    {getattr(target.api_object, 'url', '')}" for target in targets]
        message = f"{len(targets)} sweeps or runs have the id {reference.id}; write the path or the URL of one"
        raise TargetNotFoundError(f"{message}:\n{_indented(lines)}", [target.path for target in targets])
    where = f"{owner}/{project_name}" if project_name else f"the {counted(len(projects), 'project')} of {owner}"
    message = f"no {' or '.join(reference.kinds)} {reference.id} in {where}"
    similar = _similar_sweeps(reference.id, api, owner, project_name) if "sweep" in reference.kinds else []
    raise TargetNotFoundError(f"{message}; nearest:\n{_indented(similar)}" if similar else message, similar)


def is_missing(error: Exception) -> bool:
    """Return whether an error of the client means "not found": a ValueError, or a wandb.Error made of one."""
    return isinstance(error, ValueError) or isinstance(getattr(error, "exc", None), ValueError)


def _get(api: Any, kind: Kind, path: str) -> Target | None:
    try:
        return Target(kind, path, api.run(path) if kind == "run" else api.sweep(path))
    except Exception as error:
        if is_missing(error):
            return None
        raise


def _similar_sweeps(sweep_id: str, api: Any, owner: str, project_name: str | None) -> list[str]:
    projects = [project for project in api.projects(owner) if not project_name or project.name == project_name]
    paths = [f"{owner}/{project.name}/{sweep.id}" for project in projects for sweep in project.sweeps()]
    return difflib.get_close_matches(f"{owner}/{project_name or '*'}/{sweep_id}", paths, n=5, cutoff=0.0)


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
