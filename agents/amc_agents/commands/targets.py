"""What every command on a SWEEP or a RUN does first: choose the W&B, open its client, find the sweep or run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amc_analysis.reading.wandb_api import open_api, translate_errors
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, Refusal, connect
from amc_sweeps.backend.references import (
    Kind,
    Target,
    TargetNotFoundError,
    find_sweep,
    find_target,
    parse_reference,
)


@dataclass(frozen=True)
class SweepTarget:
    """A sweep, the W&B that holds it, and the client for it."""

    backend: Backend
    api: Any  # a wandb.Api
    path: str  # ENTITY/PROJECT/ID


def open_client(choice: BackendChoice) -> tuple[Backend, Any]:
    """Return the chosen W&B and its client, a ``wandb.Api``.

    Raises:
        Refusal: the options name no W&B.
        click.ClickException: the server does not answer as it should.
    """
    backend = connect(choice)
    with translate_errors(backend):
        return backend, open_api(backend)


def open_sweep(sweep: str, choice: BackendChoice) -> SweepTarget:
    """Find a sweep given as ID, PROJECT/ID, ENTITY/PROJECT/ID or a URL; a URL names the W&B, too.

    Raises:
        Refusal: the text names no sweep, or no W&B is known.
        click.ClickException: the server does not answer as it should.
    """
    try:
        reference = parse_reference(sweep)
        backend, api = open_client(choice.or_at(reference.base_url))
        with translate_errors(backend):
            path = find_sweep(reference, api, entity=choice.entity, project=choice.project)
    except TargetNotFoundError as error:
        raise Refusal(f"{error}\namc-sweep list shows all") from error
    except BackendError as error:
        raise Refusal(str(error)) from error
    return SweepTarget(backend, api, path)


def open_target(
    target: str, choice: BackendChoice, *, kinds: tuple[Kind, ...] = ("run", "sweep")
) -> tuple[Backend, Any, Target]:
    """Find a run or a sweep; return its W&B, the client and the target.

    Raises:
        Refusal: the text names neither, or no W&B is known.
        click.ClickException: the server does not answer as it should.
    """
    try:
        reference = parse_reference(target, kinds)
        backend, api = open_client(choice.or_at(reference.base_url))
        with translate_errors(backend):
            return backend, api, find_target(reference, api, entity=choice.entity, project=choice.project)
    except BackendError as error:
        raise Refusal(str(error)) from error
