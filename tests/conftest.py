"""Nothing in these tests may read or write the developer's own W&B settings, netrc or running servers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Variables that would point a test at the developer's own account, server or machine settings.
_FOREIGN = ("WANDB_", "AMC_", "SLURM_")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that drive clients first: they take longest, and none may run alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("client")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="module")
def _nothing_of_another_file() -> None:
    """Forget what wandb put into this process's environment: a service that a file before this one had ended, say."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            del os.environ[name]


@pytest.fixture(autouse=True)
def _own_wandb_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "DIR"):
        folder = tmp_path / "wandb" / name.lower()
        folder.mkdir(parents=True)
        monkeypatch.setenv(f"WANDB_{name}", str(folder))
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    monkeypatch.setenv("AMC_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("WANDB_SILENT", "true")
