"""The wandb client's public API for the W&B that a command chose, and its errors as failed commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from amc_analysis.reading.wandb_private import ClientVersionError, has_no_answer, watch_requests
from amc_sweeps.backend import patience
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.stderr import say
from amc_sweeps.number_formats import duration


def open_api(backend: Backend, *, timeout_s: float | None = None, tell: Callable[[str], None] = say) -> Any:
    """Return a ``wandb.Api`` for this W&B, silent on both streams.

    Its requests wait for a server that is busy or limits them: the client repeats them and obeys ``Retry-After``.

    Args:
        backend: the W&B.
        timeout_s: how long each request waits in all; None: PATIENCE_S.
        tell: gets a line now and then meanwhile.

    Raises:
        wandb.Error: the server does not answer as it should.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # no "Loaded credentials" between our lines
    import wandb

    silence = patience.Silence(backend.base_url, tell)
    with silence.request():
        timeout = int(timeout_s or patience.PATIENCE_S)
        api = wandb.Api(overrides={"base_url": backend.base_url}, api_key=backend.api_key, timeout=timeout)
    watch_requests(api, silence.request)
    return api


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
        raise click.ClickException(failure(backend, error)) from error


def failure(backend: Backend, error: Exception) -> str:
    """Return what a user is told of an error of the wandb client."""
    if has_no_answer(error):
        return (
            f"{backend.base_url} has not answered for {duration(patience.PATIENCE_S)}, although the request was "
            "repeated. It is busy, limits requests (HTTP 429) or cannot be reached. Repeat the command later"
        )
    return f"{backend.base_url} does not answer as it should: {error}"
