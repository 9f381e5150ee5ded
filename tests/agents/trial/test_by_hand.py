"""amc-train started by hand with W&B: what is refused leaves no run, and an ended run stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from embedded_server import EmbeddedServer
from preempted_trials import SMALL, Machine, frames, run_of

pytestmark = pytest.mark.client

CONSOLE = """{ project(name: "demo", entityName: "local") { run(name: "done") { logLines(last: 99) {
    edges { node { line level } } } } } }"""


def test_a_typo_leaves_no_run_and_a_left_over_run_id_changes_no_ended_run(tmp_path: Path) -> None:
    data = frames(tmp_path)
    with EmbeddedServer(tmp_path / "server") as server:
        machine = Machine("gpu-1", tmp_path, server, data)
        typo = machine.start("amc-train", "--modeltype=resnet18")
        assert typo.wait(timeout=60) == 78
        assert "did you mean model_type" in machine.output()
        for flags, code, words in (
            (("--label_set=BPSK,QPKS",), 78, "QPKS (did you mean QPSK?)"),
            (("--data=nowhere.hdf5",), 65, "nowhere.hdf5: no such file"),
            (("--init_from=runs/nowhere",), 78, "runs/nowhere: no such checkpoint"),
        ):
            assert machine.start("amc-train", *flags, AMC_DATA=str(data)).wait(timeout=60) == code
            assert words in machine.output()
        assert server.graphql('{ project(name: "uncategorized", entityName: "local") { runCount } }')["project"] is None

        assert machine.train("done", {**SMALL, "epochs": 2}).wait(timeout=60) == 0, machine.output()
        before = run_of(server, "done")
        assert "\nepoch 2/2  lr " in machine.output(), "what one tails for"
        lines = server.graphql(CONSOLE)["project"]["run"]["logLines"]["edges"]
        levels = [edge["node"]["level"] for edge in lines if edge["node"]["line"].startswith("epoch ")]
        assert levels == ["info", "info"]
        (machine.folder / "config-defaults.yaml").write_text("label_set: {value: 'QPSK, BPSK'}\n")
        assert machine.train("blanks", {**SMALL, "epochs": 1}).wait(timeout=60) == 0, machine.output()
        (machine.folder / "config-defaults.yaml").unlink()
        assert run_of(server, "blanks")["config"]["label_set"] == "QPSK, BPSK", "as it was written"
        assert run_of(server, "blanks")["config"]["classes"] == ["BPSK", "QPSK"]
        assert machine.train("done", {**SMALL, "epochs": 4, "max_lr": 0.01}).wait(timeout=60) == 78
        assert "unset WANDB_RUN_ID" in machine.output()
        assert run_of(server, "done") == before
        assert (before["state"], before["config"]["epochs"]) == ("finished", 2)
