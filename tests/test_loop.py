"""The whole loop with real parts: two plain agents, real trials, the real server, the analysis of the ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from embedded_server import EmbeddedServer

pytestmark = pytest.mark.client

SWEEP: dict[str, Any] = {
    "program": "amc-train",
    "command": ["${env}", "${program}", "${args}"],
    "method": "grid",
    "metric": {"name": "val/combined_acc", "goal": "maximize"},
    "parameters": {
        "max_lr": {"values": [0.003, 1.0e4]},
        "model_type": {"values": ["test_vit", "test_vit.no_such_weights"]},
        "image_size": {"value": 32},
        "snr_min_db": {"value": 10},
        "snr_max_db": {"value": 16},
        "batch_size": {"value": 64},
        "epochs": {"value": 2},
        "epochs_per_cycle": {"value": 2},
        "patience": {"value": 2},
        "split": {"value": [0.7, 0.2, 0.1]},
    },
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "server") as running:
        yield running


def _run(server: EmbeddedServer, *command: str, **environment: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        env=server.environment(OMP_NUM_THREADS="1", **environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_end_of_a_trial_reaches_the_ranking(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(server, "amc-data", "synth", str(tmp_path / "frames.hdf5"), "--frames-per-cell", "10", "--snr", "10:16:2")
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(SWEEP))
    created = json.loads(_run(server, "amc-sweep", "create", str(file), "--json", "--project", "loop"))
    assert created["configurations"] == 4

    agents = [
        subprocess.Popen(
            [str(Path(sys.executable).parent / "wandb"), "agent", created["path"]],
            env=server.environment(
                OMP_NUM_THREADS="1",
                WANDB_AGENT_DISABLE_FLAPPING="true",
                AMC_DATA=str(tmp_path / "frames.hdf5"),
                AMC_RUNS_DIR=str(tmp_path / "runs"),
            ),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    for agent in agents:
        assert agent.wait(timeout=150) == 0

    document = json.loads(_run(server, "amc-analyze", created["sweep_id"], "--json"))
    causes = {
        (run["config"]["max_lr"], run["config"]["model_type"]): (run["state"], run["cause"]) for run in document["runs"]
    }
    assert causes == {
        (0.003, "test_vit"): ("finished", "completed"),
        (1.0e4, "test_vit"): ("failed", "diverged"),
        (0.003, "test_vit.no_such_weights"): ("failed", "config_refused"),
        (1.0e4, "test_vit.no_such_weights"): ("failed", "config_refused"),
    }
    winner = document["runs"][0]
    assert winner["cause"] == "completed"
    _check_confusion_on_the_page(server, created["sweep_id"], winner, tmp_path)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    _check_what_a_run_logs(created, winner["run_id"], tmp_path)


def _check_confusion_on_the_page(server: EmbeddedServer, sweep_id: str, winner: dict[str, Any], tmp_path: Path) -> None:
    """Check the page where the runs' folder is not on the machine: from W&B, then from the cache."""
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    own = tmp_path / "runs" / winner["run_id"] / "evaluation" / f"epoch_{winner['peak_epoch']:04.0f}.json"
    counts = json.loads(own.read_text())["modulation_confusion"]
    for way in ("--public-api", "--offline"):
        page = laptop / f"{way}.html"
        _run(server, "amc-analyze", sweep_id, "--html", str(page), "--evaluations", str(laptop), way)
        (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
        shown = json.loads(data)["confusions"][0]
        assert shown["title"].endswith(f"epoch {winner['peak_epoch']:.0f}")
        assert shown["modulation"]["shares"] == [[round(count / sum(row), 4) for count in row] for row in counts]


def _check_what_a_run_logs(created: dict[str, Any], run_id: str, tmp_path: Path) -> None:
    import wandb

    run = wandb.Api().run(f"{created['entity']}/{created['project']}/{run_id}")
    for name in ("split_fingerprint", "data_fingerprint", "label_set", "seed", "select_by", "device_name", "n_train"):
        assert run.config[name] is not None, name
    for name in ("git_commit", "parent_run", "parent_split_fingerprint"):
        assert name in run.config
    assert run.config["dropout"] == 0.5  # the configuration is written back with defaults
    assert run.config["split"] == [0.7, 0.2, 0.1]
    rows = list(run.scan_history())
    assert [row["epoch"] for row in rows] == [1, 2]
    assert run.summary["end_reason"] == "completed"
    assert run.summary["best/combined_acc"] == max(row["val/combined_acc"] for row in rows)
    assert run.summary["test_checkpoint_epoch"] == run.summary["checkpoint_epoch"]
    assert {"test/combined_acc", "test/mod_acc", "test/snr_acc", "best_epoch"} <= set(run.summary.keys())
    assert json.loads((tmp_path / "runs" / run_id / "end.json").read_text())["end_reason"] == "completed"
    assert (tmp_path / "runs" / run_id / "best.pt").is_file()
    wandb.teardown()
