"""What every command on a SWEEP or a RUN begins with: which W&B, its client, and what was meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amc_analysis.reading import wandb_api
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, Refusal, connect
from amc_sweeps.backend.references import (
    Kind,
    SweepNotFoundError,
    Target,
    find_sweep,
    find_target,
    parse_sweep,
    parse_target,
)

answering = wandb_api.translate_errors


@dataclass(frozen=True)
class Chosen:
    """A W&B and its client; ``path`` is ENTITY/PROJECT/ID."""

    backend: Backend
    api: Any  # a wandb.Api
    path: str


def open_api(backend: Backend) -> Any:
    """Return the wandb client for a W&B that was chosen, quiet on both streams."""
    with answering(backend):
        return wandb_api.open_api(backend)


def choose_sweep(sweep: str, choice: BackendChoice) -> Chosen:
    """Find the sweep that a person wrote as ID, PROJECT/ID, ENTITY/PROJECT/ID or a URL; the latter says which W&B too.

    Raises:
        Refusal: when it does not name a sweep, or no W&B can be told.
        click.ClickException: when the server does not answer as it should.
    """
    try:
        ref = parse_sweep(sweep)
    except BackendError as error:
        raise Refusal(str(error)) from error
    backend = connect(choice.or_at(ref.base_url))
    api = open_api(backend)
    with answering(backend):
        try:
            path = find_sweep(ref, api, entity=choice.entity, project=choice.project)
        except SweepNotFoundError as error:
            raise Refusal(f"{error}\namc-sweep list shows all") from error
        except BackendError as error:
            raise Refusal(str(error)) from error
    return Chosen(backend, api, path)


def choose_target(
    target: str, choice: BackendChoice, *, kinds: tuple[Kind, ...] = ("run", "sweep")
) -> tuple[Backend, Any, Target]:
    """Find the run, or the sweep, that a person wrote; return the W&B, its client and what was meant.

    Raises:
        Refusal: when it names neither, or no W&B can be told.
        click.ClickException: when the server does not answer as it should.
    """
    try:
        ref = parse_target(target)
        backend = connect(choice.or_at(ref.ref.base_url))
        api = open_api(backend)
        with answering(backend):
            return backend, api, find_target(ref, api, kinds=kinds, entity=choice.entity, project=choice.project)
    except BackendError as error:
        raise Refusal(str(error)) from error
