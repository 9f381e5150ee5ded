"""What every command on a SWEEP or a RUN does first: choose the W&B, open its client, find the sweep or run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amc_analysis.reading.wandb_api import open_api, translate_errors
from amc_core.command_line import Refusal
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, connect
from amc_sweeps.backend.references import Kind, TargetNotFoundError, find_target, parse_reference


@dataclass(frozen=True)
class OpenTarget:
    """A sweep or run, the W&B that holds it, and the client for that W&B."""

    backend: Backend
    api: Any  # a wandb.Api
    kind: Kind
    path: str  # ENTITY/PROJECT/ID
    api_object: Any  # the client's run or sweep


def open_client(choice: BackendChoice) -> tuple[Backend, Any]:
    """Return the chosen W&B and its client, a ``wandb.Api``."""
    backend = connect(choice)
    with translate_errors(backend):
        return backend, open_api(backend)


def open_target(text: str, choice: BackendChoice, *kinds: Kind) -> OpenTarget:
    """Find a sweep or run given as ID, PROJECT/ID, ENTITY/PROJECT/ID or a URL; a URL names the W&B, too.

    Raises:
        Refusal: the text names no sweep or run of these kinds, or no W&B can be chosen.
        click.ClickException: the server does not answer as it should.
    """
    try:
        reference = parse_reference(text, kinds)
        backend, api = open_client(choice.or_at(reference.base_url))
        with translate_errors(backend):
            target = find_target(reference, api, entity=choice.entity, project=choice.project)
    except TargetNotFoundError as error:
        hint = "\namc-sweep list shows all sweeps" if "sweep" in kinds else ""
        raise Refusal(f"{error}{hint}") from error
    except BackendError as error:
        raise Refusal(str(error)) from error
    return OpenTarget(backend, api, target.kind, target.path, target.api_object)
