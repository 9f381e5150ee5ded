"""amc-train started by hand with W&B: what is refused leaves no run, and an ended run stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from embedded_server import EmbeddedServer
from preempted_trials import SMALL, Machine, frames, run_of

pytestmark = pytest.mark.client


def test_a_typo_leaves_no_run_and_a_left_over_run_id_changes_no_ended_run(tmp_path: Path) -> None:
    data = frames(tmp_path)
    with EmbeddedServer(tmp_path / "server") as server:
        machine = Machine("gpu-1", tmp_path, server, data)
        typo = machine.start("amc-train", "--modeltype=resnet18")
        assert typo.wait(timeout=60) == 78
        assert "did you mean model_type" in machine.output()
        assert server.graphql('{ project(name: "uncategorized", entityName: "local") { runCount } }')["project"] is None

        assert machine.train("done", {**SMALL, "epochs": 2}).wait(timeout=60) == 0, machine.output()
        before = run_of(server, "done")
        assert machine.train("done", {**SMALL, "epochs": 4, "max_lr": 0.01}).wait(timeout=60) == 78
        assert "unset WANDB_RUN_ID" in machine.output()
        assert run_of(server, "done") == before
        assert (before["state"], before["config"]["epochs"]) == ("finished", 2)
