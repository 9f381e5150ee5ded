"""The options that say which W&B a command talks to, the same for every command."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn

import click

from amc_sweeps.backend.choose import Backend, choose_backend
from amc_sweeps.backend.errors import BackendError

# Every command ends with one of these; docs/commands.md says what they mean for each.
DONE = 0
FAILED = 1  # it was tried and went wrong: a server that does not answer, a check that fails (click's own code, too)
USAGE_ERROR = 2  # what was given cannot be used; nothing was changed
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Refusal(click.ClickException):
    """An error of what was given: one clear message, exit code 2."""

    exit_code = USAGE_ERROR


class EndsLikeAShell(click.Command):
    """A command, or a group of them, that ends with 130 at Ctrl-C; click's own code for it is that of a failure."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise SystemExit(INTERRUPTED) from None


def refuse(message: str) -> NoReturn:
    """End the command with a message and exit code 2."""
    raise Refusal(message)


@dataclass(frozen=True)
class BackendChoice:
    """Which W&B is meant, and what of it; see ``backend_options``."""

    base_url: str | None = None
    local: bool = False
    cloud: bool = False
    entity: str | None = None
    project: str | None = None

    @property
    def is_made(self) -> bool:
        """Whether an option names a W&B."""
        return bool(self.base_url or self.local or self.cloud)

    def or_at(self, base_url: str | None) -> BackendChoice:
        """Return the W&B at the address of a URL that was given as an argument, unless an option names one."""
        return self if self.is_made else replace(self, base_url=base_url)


def gathered(command: Callable[..., Any], name: str, kind: type[Any]) -> Callable[..., Any]:
    """Let a function take the parameters that are fields of a dataclass as one argument of that class."""

    @functools.wraps(command)
    def gathering(**values: Any) -> Any:
        own = {field.name: values.pop(field.name) for field in fields(kind)}
        return command(**{name: kind(**own)}, **values)

    return gathering


def backend_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --base-url, --local, --cloud, --entity and --project to a click command, which gets them as ``choice``."""
    command = gathered(command, "choice", BackendChoice)
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
        Refusal: when no W&B can be told from what was given.
    """
    try:
        backend = choose_backend(base_url=choice.base_url, local=choice.local, cloud=choice.cloud)
    except BackendError as error:
        raise Refusal(str(error)) from error
    click.echo(backend.announce(), err=True)
    os.environ.update(backend.environment())
    return backend
