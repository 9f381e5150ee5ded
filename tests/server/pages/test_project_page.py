"""A project's page when its sweeps have large configs."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process_server import InProcessServer

from amc_server.store import records


def test_a_project_of_large_sweeps_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = ", ".join(map(str, range(3000)))
    server = InProcessServer(tmp_path / "data")
    for name in "abcdefgh":
        server.create_sweep(
            f"name: {name}\nmethod: random\nmetric: {{name: acc_{name}}}\nparameters: {{a: {{values: [{values}]}}}}\n"
        )
    first = server.request("GET", "/local/p").body
    assert all(f"acc_{name}".encode() in first for name in "abcdefgh")
    monkeypatch.setattr(records, "_large", lambda text: pytest.fail(f"parsed again: {text[:20]}"))
    assert server.request("GET", "/local/p").body == first
    server.close()
