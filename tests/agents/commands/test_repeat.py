"""amc-sweep repeat: the same configuration again, as a new run that names the original."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from embedded_server import EmbeddedServer
from preempted_trials import SMALL, Machine, columns, frames, run_of

from amc_agents.commands.repeat import Repeat, seeds, spread
from amc_core.config import TrialConfig


@pytest.mark.client
def test_a_repeated_run_has_the_same_numbers_and_names_the_original(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "server") as server:
        machine = Machine("desk", tmp_path, server, frames(tmp_path))
        short = {**SMALL, "epochs": 1, "warmup_epochs": 0, "seed": 4}
        assert machine.train("first", short).wait(timeout=60) == 0, machine.output()

        shown = machine.amc_sweep("repeat", "first", "--count", "2", "--print")
        assert shown.returncode == 0, shown.stderr
        lines = shown.stdout.splitlines()
        assert ["--seed=5" in lines[0], "--seed=6" in lines[1], len(lines)] == [True, True, 2]
        assert server.key not in shown.stdout

        repeated = machine.amc_sweep("repeat", "first", "--json")
        assert repeated.returncode == 0, repeated.stderr
        document = json.loads(repeated.stdout)
        (repeat,) = document["repeats"]
        assert (document["of"]["peak"], repeat["seed"], repeat["exit_code"]) == (repeat["peak"], 4, 0)
        first, second = run_of(server, "first"), run_of(server, repeat["run"])
        assert columns(first["history"]) == columns(second["history"])
        assert (second["config"]["repeat_of"], second["tags"]) == ("first", ["repeat-of-first"])
        assert second["config"]["parent_run"] is None, "its weights are new"

        alone = machine.amc_sweep("repeat", "first", "--in-sweep")
        assert (alone.returncode, "is in no sweep" in alone.stderr) == (2, True)
        missing = machine.amc_sweep("repeat", "first", "--data", "nowhere.hdf5")
        assert (missing.returncode, "no such data file" in missing.stderr) == (2, True)


@pytest.mark.client
def test_a_repeat_can_be_queued_in_the_runs_sweep(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "server") as server:
        machine = Machine("desk", tmp_path, server, tmp_path / "nowhere.hdf5")
        sweep = machine.create_sweep(
            "program: amc-train\nmethod: random\nmetric: {name: val/combined_acc, goal: maximize}\n"
            "parameters: {max_lr: {values: [0.001]}}\n"
        )
        sweep_id = sweep.rsplit("/", 1)[1]
        settings = TrialConfig.from_mapping({"max_lr": 0.001}).to_mapping()
        machine.python(
            f"import wandb; wandb.init(project='demo', id='member', config={settings!r},"
            f" settings=wandb.Settings(sweep_id='{sweep_id}')).finish()"
        )
        queued = machine.amc_sweep("repeat", "member", "--in-sweep", "--seed", "7")
        assert queued.returncode == 0, queued.stderr
        run = queued.stderr.split("run ")[-1].split()[0]
        waiting = run_of(server, run)
        assert (waiting["state"], waiting["config"]["seed"]) == ("pending", 7)
        assert "data" not in waiting["config"], "the next machine has its own data file"


def test_a_repeat_uses_the_runs_seed_and_a_count_uses_new_ones() -> None:
    assert seeds(4, None, None) == [4]
    assert seeds(4, 0, None) == [0]
    assert seeds(4, None, 3) == [5, 6, 7]
    assert seeds(4, 10, 2) == [10, 11]


def test_the_spread_is_over_seeds_and_ignores_runs_without_a_peak() -> None:
    assert spread([Repeat("a", 1, 0, 0.5), Repeat("b", 1, 0, 0.5)]) is None
    mean, deviation = spread([Repeat("a", 1, 0, 0.5), Repeat("b", 2, 0, 0.7), Repeat("c", 3, 80, None)]) or (0, 0)
    assert (mean, deviation) == pytest.approx((0.6, 0.141421), abs=1e-6)
