"""The wandb client's public API, opened for the W&B that a command chose."""

from __future__ import annotations

import os
from typing import Any

from amc_sweeps.backend.address import Backend


def open_api(backend: Backend) -> Any:
    """Return a ``wandb.Api`` for this W&B, silent on both streams.

    Raises:
        wandb.Error: the server does not answer as it should.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # no "Loaded credentials" between our lines
    import wandb

    return wandb.Api(overrides={"base_url": backend.base_url}, api_key=backend.api_key)
