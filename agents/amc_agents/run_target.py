"""The run, or the sweep, that a person meant: by id, PROJECT/id, ENTITY/PROJECT/id or the URL of its page."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from amc_sweeps.backend.address import BackendError, SweepRef, parse_sweep

Kind = Literal["run", "sweep"]

_PAGE = re.compile(r"(?P<project>https?://[^/]+/[^/]+/[^/]+)/(?P<kind>run|sweep)s/(?P<id>[^/?#]+).*")


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
