"""amc-sweep promote: the best configurations again with other seeds, at the embedded server and at another W&B."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from embedded_server import EmbeddedServer
from operated_sweep import METRIC, PATH, PROJECT, SWEEP_ID, OperatedSweep
from plain_wandb import PlainWandb
from preempted_trials import Machine, frames
from sweep_records import START, completed, run, sweep

from amc_agents.commands.promote import planned_trials
from amc_agents.preflight.check_sweep import check_sweep
from amc_agents.repeats.promotion import PromotionError, finalists_sweep, promotions
from amc_agents.repeats.queue_runs import queue_delay, queue_problem
from amc_analysis.analyse import rank_runs
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_core.config import TrialConfig
from amc_sweeps.runs import export_file
from amc_sweeps.runs.records import RunRecord

COMMAND = ["${env}", "${program}", "${args}"]
TRIALS = {
    "program": "amc-train",
    "command": COMMAND,
    "method": "random",
    "metric": {"name": METRIC, "goal": "maximize"},
    "run_cap": 3,
    "parameters": {"max_lr": {"values": [0.001, 0.002, 0.003]}, "patience": {"value": None}},
}


def trial(number: int, *peaks: float, state: str = "finished", **settings: Any) -> RunRecord:
    config = TrialConfig.from_mapping(
        {"max_lr": number / 1000, "patience": None, **settings.pop("set", {})}
    ).to_mapping()
    make = completed if state == "finished" else run
    more = {} if state == "finished" else {"state": state, "heartbeat_at": None if state == "pending" else START}
    return make(settings.pop("name", f"r{number}"), peaks, config={**config, **settings}, **more)


def ranked(*runs: RunRecord) -> AnalysedSweep:
    return rank_runs(sweep(*runs, config=TRIALS))


def plan(analysed: AnalysedSweep, **options: Any) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    found = promotions(analysed, **{"top": 2, "runs": (), "seeds": 3, **options})
    return [(each.run_id, each.present, each.missing) for each in found]


def test_the_best_configurations_get_the_seeds_after_their_own() -> None:
    runs = ranked(trial(1, 0.5), trial(2, 0.7, set={"seed": 4}), trial(3, 0.6))
    assert plan(runs) == [("r2", (), (5, 6, 7)), ("r3", (), (1, 2, 3))]
    assert plan(runs, runs=("r1",), seeds=1) == [("r1", (), (1,))]
    assert plan(runs, top=9, seeds=1) == [("r2", (), (5,)), ("r3", (), (1,)), ("r1", (), (1,))]
    with pytest.raises(PromotionError, match="no run nowhere with a value"):
        plan(runs, runs=("nowhere",))
    with pytest.raises(PromotionError, match="no run of this sweep has both"):
        plan(ranked(run("seedless", [0.5], config={"max_lr": 0.1})))


def test_only_the_missing_seeds_are_added() -> None:
    again = {"repeat_of": "r2"}
    had = [
        trial(1, 0.5),
        trial(2, 0.7),
        trial(2, 0.6, name="a", set={"seed": 1}, **again),
        trial(2, name="b", state="pending", set={"seed": 2}, **again),
    ]
    assert plan(ranked(*had), top=1) == [("r2", (1, 2), (3,))]
    lost = trial(2, 0.1, name="c", state="crashed", set={"seed": 3}, **again)
    assert plan(ranked(*had, lost), top=1) == [("r2", (1, 2), (4,))], "a seed whose run was lost is not used again"
    whole = trial(2, 0.1, name="d", set={"seed": 4}, **again)
    assert plan(ranked(*had, lost, whole), top=1) == [("r2", (1, 2, 4), ())]


def test_a_better_repeat_does_not_become_another_finalist() -> None:
    runs = ranked(trial(1, 0.5), trial(2, 0.7), trial(2, 0.9, name="a", set={"seed": 1}, repeat_of="r2"))
    assert plan(runs) == [("r2", (1,), (2, 3)), ("r1", (), (1, 2, 3))]


def test_another_wandb_gets_a_grid_over_variants_that_passes_the_check() -> None:
    runs = ranked(trial(1, 0.5), trial(2, 0.7, set={"snr_layer": "bottleneck_64"}), trial(3, 0.6, set={"epochs": 7}))
    found = promotions(runs, top=2, runs=(), seeds=2)
    made = finalists_sweep(runs, found)
    assert made["parameters"] == {
        "variant": {
            "values": [
                "snr_layer=bottleneck_64 max_lr=0.002 epochs=100 seed=1",
                "snr_layer=bottleneck_64 max_lr=0.002 epochs=100 seed=2",
                "snr_layer=standard max_lr=0.003 epochs=7 seed=1",
                "snr_layer=standard max_lr=0.003 epochs=7 seed=2",
            ]
        },
        "patience": {"value": None},
    }
    assert check_sweep(yaml.safe_dump(made), source="made").problems == []
    planned = planned_trials(yaml.safe_dump(made))
    assert plan(runs, seeds=3, planned=planned) == [("r2", (1, 2), (3,)), ("r3", (1, 2), (3,))]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[OperatedSweep]:
    with EmbeddedServer(tmp_path / "data") as server, PlainWandb(server) as plain:
        yield OperatedSweep(server, plain, tmp_path)


def import_sweep(
    operated: OperatedSweep, config: dict[str, Any], configs: list[dict[str, Any]], state: str = "FINISHED"
) -> None:
    """Import a sweep of finished runs with peaks 0.5, 0.6, ..."""
    runs = [
        {
            "id": f"r{number}",
            "sweep": SWEEP_ID,
            "state": "finished",
            "exit_code": 0,
            "created_at": "2025-07-01T12:00:00Z",
            "config": values,
            "history": [{"_step": 0, "epoch": 1, METRIC: 0.4 + number / 10}],
            "summary": {"end_reason": "completed"},
        }
        for number, values in enumerate(configs, start=1)
    ]
    made = {"id": SWEEP_ID, "state": state, "name": "promoted", "config": config}
    file = operated.folder / "sweep.yaml"
    file.write_text(export_file.write(export_file.Export(PROJECT, (made,), tuple(runs))))
    ended = operated.call("import", str(file))
    assert ended.returncode == 0, ended.stderr


def settings(number: int) -> dict[str, Any]:
    return TrialConfig.from_mapping({"max_lr": number / 1000, "patience": None}).to_mapping()


RUNS = """query R($sweep: String!) { project(name: "operated", entityName: "local") { sweep(sweepName: $sweep) { state
    runs { edges { node { name displayName state config } } } } } }"""


@pytest.mark.client
def test_the_embedded_server_queues_the_finalists_and_a_second_promotion_adds_nothing(served: OperatedSweep) -> None:
    import_sweep(served, TRIALS, [settings(number) for number in (1, 2, 3)])
    shown = served.call("promote", SWEEP_ID, "--top", "2", "--seeds", "2", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "r3  peak 70.00%, has no other seed; gets 2 seeds: 1, 2" in shown.stderr
    assert "4 runs would be added" in shown.stderr
    done = served.call("promote", SWEEP_ID, "--top", "2", "--seeds", "2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(each["run"], each["new_seeds"], len(each["queued"])) for each in document["finalists"]] == [
        ("r3", [1, 2], 2),
        ("r2", [1, 2], 2),
    ]
    assert document["into"] == document["sweep"] == PATH
    node = served.server.graphql(RUNS, sweep=SWEEP_ID)["project"]["sweep"]
    waiting = [edge["node"] for edge in node["runs"]["edges"] if edge["node"]["state"] == "pending"]
    assert (node["state"], [each["displayName"] for each in waiting]) == (
        "PENDING",
        ["r3-seed-1", "r3-seed-2", "r2-seed-1", "r2-seed-2"],
    )
    config = config_of(waiting[0])
    assert {name: config[name] for name in ("max_lr", "seed", "repeat_of", "patience")} == {
        "max_lr": 0.003,
        "seed": 1,
        "repeat_of": "r3",
        "patience": None,
    }
    again = served.call("promote", SWEEP_ID, "--top", "2", "--seeds", "2")
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
    assert "no run is missing" in again.stderr


@pytest.mark.compatibility("promote")
@pytest.mark.client
def test_another_wandb_gets_a_sweep_of_its_own_and_only_once(served: OperatedSweep) -> None:
    import_sweep(served, TRIALS, [settings(number) for number in (1, 2, 3)])
    done = served.call("promote", PATH, "--top", "2", "--seeds", "2", "--json", plain=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["into"] != PATH
    assert document["agent_command"].endswith(f"wandb agent {document['into']}")
    again = json.loads(served.call("promote", PATH, "--top", "2", "--seeds", "2", "--json", plain=True).stdout)
    assert (again["into"], [each["new_seeds"] for each in again["finalists"]]) == (document["into"], [[], []])
    more = json.loads(served.call("promote", PATH, "--top", "3", "--seeds", "2", "--json", plain=True).stdout)
    assert [(each["run"], each["new_seeds"]) for each in more["finalists"]] == [("r3", []), ("r2", []), ("r1", [1, 2])]


@pytest.mark.client
def test_runs_of_another_program_are_queued_or_refused_with_their_commands(served: OperatedSweep) -> None:
    config = {**TRIALS, "program": "train.py", "parameters": {"lr": {"values": [1, 2]}}}
    import_sweep(served, config, [{"lr": 1, "seed": 0}, {"lr": 2, "seed": 0}])
    refused = served.call("promote", SWEEP_ID, "--top", "1", "--seeds", "2")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "its file has no parameter seed" in refused.stderr
    assert "python train.py --lr=2 --seed=1\n  python train.py --lr=2 --seed=2" in refused.stderr
    elsewhere = served.call("promote", PATH, "--top", "1", "--seeds", "2", plain=True)
    assert elsewhere.returncode == 2
    assert "queues no runs, and the sweep is not one of amc-train" in elsewhere.stderr


@pytest.mark.client
def test_a_cancelled_sweep_gets_no_queued_runs(served: OperatedSweep) -> None:
    import_sweep(served, TRIALS, [settings(number) for number in (1, 2)], state="CANCELED")
    for command in (("promote", SWEEP_ID, "--seeds", "1"), ("repeat", "r1", "--in-sweep", "--seed", "1")):
        refused = served.call(*command)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"sweep {PATH} is cancelled, so agents get no runs of it; nothing was queued" in refused.stderr
        assert f"amc-sweep resume {PATH} lets it go on" in refused.stderr


def test_a_paused_sweep_gives_queued_runs_later() -> None:
    assert [queue_problem(state, PATH) for state in ("PAUSED", "FINISHED", "RUNNING")] == [None] * 3
    assert (
        queue_delay("PAUSED", PATH) == f"sweep {PATH} is paused: agents get queued runs after amc-sweep resume {PATH}"
    )
    assert queue_delay("RUNNING", PATH) is None


@pytest.mark.client
def test_agents_train_variants_and_the_runs_that_repeat_one(served: OperatedSweep) -> None:
    text = "model_type=amc_convnet representation=constellation patience=null"
    mapping = {"model_type": "iq_convnet", "representation": "iq", "grad_clip_norm": 1.0}
    short = {"image_size": 32, "batch_size": 32, "epochs": 1, "seed": 0}
    parameters = {"variant": {"values": [text, mapping]}, **{name: {"value": value} for name, value in short.items()}}
    trained = {**TrialConfig.from_mapping({"variant": text, **short}).to_mapping(), "variant": text}
    config = {**TRIALS, "method": "grid", "run_cap": 3, "parameters": parameters}
    import_sweep(served, config, [trained], state="RUNNING")
    machine = Machine("desk", served.folder, served.server, frames(served.folder))
    promoted = served.call("promote", SWEEP_ID, "--seeds", "1", "--json")
    assert promoted.returncode == 0, promoted.stderr
    (finalist,) = json.loads(promoted.stdout)["finalists"]
    assert machine.start("wandb", "agent", PATH).wait(timeout=180) == 0, machine.output("wandb")
    node = served.server.graphql(RUNS, sweep=SWEEP_ID)["project"]["sweep"]
    runs = {edge["node"]["name"]: edge["node"] for edge in node["runs"]["edges"]}
    assert (node["state"], [run["state"] for run in runs.values()]) == ("FINISHED", ["finished"] * 3)
    configs = {name: config_of(run) for name, run in runs.items()}
    again = configs.pop(finalist["queued"][0])
    assert (again["seed"], again["repeat_of"]) == (1, "r1")
    settings = TrialConfig().to_mapping().keys() - {"data", "seed"}
    assert {name: again[name] for name in settings} == {name: trained[name] for name in settings}
    (drawn,) = (values for name, values in configs.items() if name != "r1")
    assert {name: drawn[name] for name in mapping} == mapping
    assert (drawn["variant"], drawn["patience"]) == (mapping, 25)


def config_of(run: dict[str, Any]) -> dict[str, Any]:
    return {name: entry.get("value") for name, entry in json.loads(run["config"]).items()}
