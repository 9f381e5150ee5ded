"""The wandb client's public API for the W&B that a command chose, and its errors as failed commands."""

from __future__ import annotations

import os
import sys
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
    """Turn an error of the wandb client inside the block into a failed command with exit code 1.

    The message names the server, or says what the installed client lacks.
    """
    try:
        yield
    except ClientVersionError as error:
        raise click.ClickException(str(error)) from error
    except Exception as error:
        wandb = sys.modules.get("wandb")  # without the client nothing raises its errors, and the import takes a second
        if wandb is None or not isinstance(error, wandb.Error):
            raise
        raise click.ClickException(f"{backend.base_url} does not answer as it should: {error}") from error
