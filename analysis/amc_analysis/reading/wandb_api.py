"""The wandb client's public API for the W&B that a command chose, and what a command does when that W&B fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from amc_analysis.reading.wandb_private import ClientVersionError
from amc_sweeps.backend.choose import Backend


def open_api(backend: Backend) -> Any:
    """Return a ``wandb.Api`` for this W&B, silent on both streams.

    Raises:
        wandb.Error: the server does not answer as it should.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # no "Loaded credentials" between our lines
    import wandb

    return wandb.Api(overrides={"base_url": backend.base_url}, api_key=backend.api_key)


@contextmanager
def translate_errors(backend: Backend) -> Iterator[None]:
    """Turn a wandb.Error inside the block into a failed command: a message with the server's address, exit code 1.

    A wandb client that lacks what is needed fails the command, too.
    """
    import wandb

    try:
        yield
    except ClientVersionError as error:
        raise click.ClickException(str(error)) from error
    except wandb.Error as error:
        raise click.ClickException(f"{backend.base_url} does not answer as it should: {error}") from error
