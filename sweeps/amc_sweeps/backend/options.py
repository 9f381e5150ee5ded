"""The options by which every command chooses its W&B."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import click

from amc_core.command_line import Refusal
from amc_sweeps.backend.choose import Backend, choose_backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.stderr import say


@dataclass(frozen=True)
class BackendChoice:
    """The values of the options that ``backend_options`` adds."""

    base_url: str | None = None
    local: bool = False
    cloud: bool = False
    entity: str | None = None
    project: str | None = None

    @property
    def names_server(self) -> bool:
        """Whether an option says which W&B."""
        return bool(self.base_url or self.local or self.cloud)

    def or_at(self, base_url: str | None) -> BackendChoice:
        """Return the choice with the address of a pasted URL, unless an option already says which W&B."""
        return self if self.names_server else replace(self, base_url=base_url)


def collect_options(command: Callable[..., Any], name: str, kind: type[Any]) -> Callable[..., Any]:
    """Return a command whose options that are fields of a dataclass reach the function as one object, ``name``."""

    @functools.wraps(command)
    def collecting(**values: Any) -> Any:
        collected = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        return command(**{name: collected}, **values)

    return collecting


def backend_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --base-url, --local, --cloud, --entity and --project to a click command, which gets them as ``choice``."""
    command = collect_options(command, "choice", BackendChoice)
    for option in (
        click.option("--project", metavar="NAME", help="The project (default: WANDB_PROJECT, or found by the id)."),
        click.option("--entity", metavar="NAME", help="The user or team (default: WANDB_ENTITY, or your own)."),
        click.option("--cloud", is_flag=True, help="Use W&B's cloud, with your login."),
        click.option("--local", is_flag=True, help="Use the embedded server that runs on this machine."),
        click.option("--base-url", metavar="URL", help="Use the W&B server at this address."),
    ):
        command = option(command)
    return command


def connect(choice: BackendChoice) -> Backend:
    """Choose the W&B, say which on stderr, and point this process's wandb client at it.

    Raises:
        Refusal: the options and the environment name no W&B.
    """
    try:
        backend = choose_backend(base_url=choice.base_url, local=choice.local, cloud=choice.cloud)
    except BackendError as error:
        raise Refusal(str(error)) from error
    say(backend.announce())
    os.environ.update(backend.environment())
    return backend
