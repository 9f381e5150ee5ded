"""The sweep or the run that a person meant: an id, PROJECT/ID, ENTITY/PROJECT/ID or the URL of its page."""

from __future__ import annotations

import difflib
import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.keys import CLOUD_PAGES, CLOUD_URL

Kind = Literal["run", "sweep"]

_PAGE = re.compile(r"(?P<project>https?://[^/]+/[^/]+/[^/]+)/(?P<kind>run|sweep)s/(?P<id>[^/?#]+).*")


class SweepNotFoundError(BackendError):
    """No sweep, or more than one, answers to the name; ``candidates`` lists paths that may have been meant."""

    def __init__(self, message: str, candidates: list[str]) -> None:
        super().__init__(message)
        self.candidates = candidates


@dataclass(frozen=True)
class SweepRef:
    """A sweep as a person wrote it: only the id is certain."""

    sweep_id: str
    project: str | None = None
    entity: str | None = None
    base_url: str | None = None  # where a pasted URL points


def parse_sweep(text: str) -> SweepRef:
    """Read ID, PROJECT/ID, ENTITY/PROJECT/ID or a pasted URL of a sweep's page.

    Raises:
        BackendError: for anything else.
    """
    forms = "write ID, PROJECT/ID, ENTITY/PROJECT/ID or the URL of the sweep's page"
    base_url = None
    path = text.strip()
    if "://" in path:
        parts = urllib.parse.urlsplit(path)
        pieces = [urllib.parse.unquote(piece) for piece in parts.path.split("/") if piece]
        if parts.hostname == "forge.coreweave.com" and pieces[:1] == ["wandb"]:
            pieces = pieces[1:]
        if len(pieces) != 4 or pieces[2] != "sweeps" or not parts.netloc:
            raise BackendError(f"{text!r} is not the URL of a sweep: {forms}")
        host = f"{parts.scheme}://{parts.netloc}"
        base_url = CLOUD_URL if parts.hostname in CLOUD_PAGES else host
        path = "/".join([pieces[0], pieces[1], pieces[3]])
    pieces = path.split("/")
    if len(pieces) > 3 or not all(re.fullmatch(r"[\w.:\- ]+", piece) for piece in pieces):
        raise BackendError(f"{text!r} does not name a sweep: {forms}")
    entity, project, sweep_id = [None] * (3 - len(pieces)) + pieces
    if sweep_id is None:  # cannot be: split returns one piece at least
        raise BackendError(forms)
    return SweepRef(sweep_id=sweep_id, project=project, entity=entity, base_url=base_url)


class _Sweep(Protocol):
    id: str


class _Project(Protocol):
    name: str

    def sweeps(self) -> Iterable[_Sweep]: ...


class SweepApi(Protocol):
    """What of ``wandb.Api`` a look-up needs."""

    @property
    def default_entity(self) -> str | None: ...
    def projects(self, entity: str | None = None) -> Iterable[_Project]: ...
    def sweep(self, path: str) -> object: ...


def find_sweep(
    ref: SweepRef,
    api: SweepApi,
    *,
    entity: str | None = None,
    project: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> str:
    """Return ENTITY/PROJECT/ID: from the reference, the flags, WANDB_ENTITY and WANDB_PROJECT, else by looking.

    Raises:
        SweepNotFoundError: when no project of the entity holds the id, or several do.
        BackendError: when nobody says whose projects to look into.
    """
    owner = ref.entity or entity or environ.get("WANDB_ENTITY") or api.default_entity
    if not owner:
        raise BackendError("no entity is known here: give --entity, or write ENTITY/PROJECT/ID")
    named = ref.project or project or environ.get("WANDB_PROJECT")
    if named and ref.entity:
        return f"{owner}/{named}/{ref.sweep_id}"
    # One request a project says whether it holds the id; the client's lists cost one for every sweep, so they are read
    # only for what may have been meant instead.
    projects = [candidate for candidate in api.projects(owner) if named in (None, "", candidate.name)]
    paths = [f"{owner}/{candidate.name}/{ref.sweep_id}" for candidate in projects]
    matches = [path for path in paths if _is_there(api, path)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise SweepNotFoundError(
            f"several sweeps are called {ref.sweep_id}; write which:\n" + _indented(matches), matches
        )
    seen = [f"{owner}/{candidate.name}/{sweep.id}" for candidate in projects for sweep in candidate.sweeps()]
    where = f"{owner}/{named}" if named else f"the projects of {owner}"
    if not seen:
        raise SweepNotFoundError(f"no sweep {ref.sweep_id}: there is no sweep at all in {where}", [])
    near = difflib.get_close_matches(f"{owner}/{named or '*'}/{ref.sweep_id}", seen, n=5, cutoff=0.0)
    raise SweepNotFoundError(
        f"no sweep {ref.sweep_id} in {where}, which hold {len(seen)}; nearest:\n" + _indented(near), near
    )


def _is_there(api: SweepApi, path: str) -> bool:
    try:
        api.sweep(path)
    except Exception:  # noqa: BLE001 - the client says "not found" by several; a server in trouble fails the lists, too
        return False
    return True


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)


@dataclass(frozen=True)
class TargetRef:
    """What a person wrote; the kind is known of a URL only."""

    ref: SweepRef  # its id may be a run's
    kind: Kind | None = None


@dataclass(frozen=True)
class Target:
    """What was meant."""

    kind: Kind
    path: str  # ENTITY/PROJECT/ID
    found: Any  # the client's run or sweep


def parse_target(text: str) -> TargetRef:
    """Read a reference.

    Raises:
        BackendError: it has none of the forms.
    """
    forms = "write ID, PROJECT/ID, ENTITY/PROJECT/ID or the URL of the page of a run or a sweep"
    page = _PAGE.fullmatch(text.strip())
    try:
        if page is not None:
            kind: Kind = "run" if page["kind"] == "run" else "sweep"
            return TargetRef(parse_sweep(f"{page['project']}/sweeps/{page['id']}"), kind)
        return TargetRef(parse_sweep(text))
    except BackendError as error:
        raise BackendError(f"{text!r} names neither a run nor a sweep: {forms}") from error


def find_target(
    target: TargetRef,
    api: Any,
    *,
    kinds: tuple[Kind, ...] = ("run", "sweep"),
    entity: str | None = None,
    project: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Target:
    """Find it: from the reference, the flags, WANDB_ENTITY and WANDB_PROJECT, else by looking into every project.

    Raises:
        BackendError: nothing, or more than one thing, answers to the name; the message names all that do.
        wandb.Error: the server does not answer as it should.
    """
    ref = target.ref
    owner = ref.entity or entity or environ.get("WANDB_ENTITY") or api.default_entity
    if not owner:
        raise BackendError("no entity is known here: give --entity, or write ENTITY/PROJECT/ID")
    named = ref.project or project or environ.get("WANDB_PROJECT")
    projects = [named] if named else [found.name for found in api.projects(owner)]
    wanted = [kind for kind in kinds if target.kind in (None, kind)]
    if not wanted:
        raise BackendError(f"{ref.sweep_id} is a {target.kind}, and a {' or '.join(kinds)} is wanted")
    paths = [f"{owner}/{name}/{ref.sweep_id}" for name in projects]
    found = [each for path in paths for kind in wanted if (each := _look(api, kind, path)) is not None]
    if len(found) == 1:
        return found[0]
    if not found:
        where = f"{owner}/{named}" if named else f"the {len(projects)} projects of {owner}"
        raise BackendError(f"no {' or '.join(wanted)} {ref.sweep_id} in {where}")
    listed = "\n".join(f"  the {each.kind} {each.path}    {each.found.url}" for each in found)
    raise BackendError(f"{ref.sweep_id} is the name of {len(found)}; write which, as a path or a URL:\n{listed}")


def _look(api: Any, kind: Kind, path: str) -> Target | None:
    try:
        return Target(kind, path, api.run(path) if kind == "run" else api.sweep(path))
    except Exception as error:
        if is_missing(error):
            return None
        raise


def is_missing(error: Exception) -> bool:
    """Tell whether the client found nothing: a ValueError, or a wandb.Error made of one, and no failure to ask."""
    return isinstance(error, ValueError) or isinstance(getattr(error, "exc", None), ValueError)
