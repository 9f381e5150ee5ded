"""amc-sweep update: what it shows, when it asks, what it refuses; with the real client and an agent at work."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from client_scenarios import GRID, Researcher, wait_until
from embedded_server import EmbeddedServer
from operated_sweep import CONFIG, PATH, SWEEP_ID, OperatedSweep, ended_runs
from plain_wandb import PlainWandb

from amc_agents.commands import main
from amc_analysis.cli import main as analyze

pytestmark = pytest.mark.client

NARROWER = {**CONFIG, "parameters": {"lr": {"values": [0.2, 0.3]}, "epochs": {"value": 6}}}
ENTRY = "from amc_agents.commands import main; main()"
WAITING = """
import os, time, wandb

with wandb.init() as run:
    run.log({"val/acc": run.config["a"]})
    open(f"began{run.config['a']}", "w").close()
    while not os.path.exists(f"go{run.config['a']}"):
        time.sleep(0.05)
"""
UPDATES = """query U($sweep: String!) { project(name: "operated", entityName: "local") { sweep(sweepName: $sweep) {
    id config updates { author config } } } }"""
UPSERT = "mutation U($id: ID, $config: String) { upsertSweep(input: {id: $id, config: $config}) { sweep { id } } }"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatedSweep]:
    folder = tmp_path_factory.mktemp("updated")
    with EmbeddedServer(folder / "data") as server, PlainWandb(server) as plain:
        operated = OperatedSweep(server, plain, folder)
        operated.import_runs(ended_runs())
        yield operated


@pytest.fixture
def operated(served: OperatedSweep) -> OperatedSweep:
    """Return the sweep with its first config."""
    served.server.graphql(UPSERT, id=stored(served)["id"], config=yaml.safe_dump(CONFIG))
    return served


def write(operated: OperatedSweep, config: dict[str, Any]) -> str:
    file = operated.folder / "new.yaml"
    file.write_text(yaml.safe_dump(config))
    return str(file)


def stored(operated: OperatedSweep) -> dict[str, Any]:
    return dict(operated.server.graphql(UPDATES, sweep=SWEEP_ID)["project"]["sweep"])


@pytest.mark.compatibility("update")
def test_nothing_is_changed_before_yes_nor_by_a_file_that_cannot_be_used(operated: OperatedSweep) -> None:
    before = stored(operated)
    file = write(operated, NARROWER)
    shown = operated.call("update", SWEEP_ID, file, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "lr: 0.1 (4 runs) is dropped; 0.3 is new" in shown.stderr
    assert "random draws the next configurations from the new space" in shown.stderr
    unasked = operated.call("update", SWEEP_ID, file, typed="y\n")
    assert (unasked.returncode, unasked.stdout) == (2, "")
    assert "Give --yes" in unasked.stderr
    elsewhere = operated.call("update", SWEEP_ID, file, "--yes", plain=True)
    assert elsewhere.returncode == 2
    assert "wandb sweep --prior_run RUN" in elsewhere.stderr
    bad = CliRunner().invoke(main, ["update", SWEEP_ID, write(operated, {**NARROWER, "run_kap": 3}), "--yes"])
    assert bad.exit_code == 2
    assert "run_kap" in bad.stderr
    assert "nothing was changed" in bad.stderr
    same = operated.call("update", SWEEP_ID, write(operated, CONFIG), "--yes")
    assert same.returncode == 0
    assert "nothing changes" in same.stderr
    assert stored(operated) == before


def test_a_change_is_noted_shown_exported_and_analysed(operated: OperatedSweep) -> None:
    result = operated.json("update", PATH, write(operated, NARROWER), "--yes")
    assert (result["sweep"], result["changed"]) == (PATH, True)
    assert result["changes"] == ["lr: 0.1 (4 runs) is dropped; 0.3 is new"]
    update = operated.json("status", SWEEP_ID)["updates"][-1]
    assert "@" in update["author"]
    assert update["changes"] == ["lr: 0.1 is dropped; 0.3 is new"]
    export, parquet = operated.folder / "export.yaml", operated.folder / "runs.parquet"
    exported = operated.call("export", SWEEP_ID, str(export))
    assert exported.returncode == 0, exported.stderr
    for arguments in (["--from", str(export), "--save", str(parquet)], ["--from", str(parquet)]):
        analysed = CliRunner().invoke(analyze, [*arguments, "--json"])
        assert analysed.exit_code == 0, analysed.stderr
        assert '"SPACE_CHANGED"' in analysed.stdout
        assert "after 4 of its 4 runs had begun: lr: 0.1 is dropped; 0.3 is new" in analysed.stdout


def test_a_sweep_that_changes_while_the_command_asks_is_left_alone(operated: OperatedSweep) -> None:
    file = write(operated, NARROWER)
    terminal, stdin = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-c", ENTRY, "update", SWEEP_ID, file],
        env=operated.environment(),
        cwd=operated.folder,
        stdin=stdin,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stderr is not None
    shown = ""
    while "[y/N]" not in shown:
        letter = command.stderr.read(1)
        assert letter, shown
        shown += letter
    other = yaml.safe_dump({**CONFIG, "run_cap": 11})
    operated.server.graphql(UPSERT, id=stored(operated)["id"], config=other)
    os.write(terminal, b"y\n")
    _, rest = command.communicate(timeout=60)
    os.close(terminal)
    os.close(stdin)
    assert command.returncode == 2, rest
    assert "changed by somebody else in the meantime" in rest
    assert stored(operated)["config"] == other


def test_an_agent_at_work_goes_on_in_the_new_space(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with EmbeddedServer(tmp_path / "data") as server:
        researcher = Researcher(folder, server)
        (folder / "train.py").write_text(WAITING)
        (folder / "go4").touch()
        try:
            sweep = researcher.create_sweep(GRID % "1, 2")
            agent = researcher.start_agent(sweep)
            wait_until((folder / "began1").exists, "the first run begins")
            (folder / "sweep.yaml").write_text(GRID % "3")
            said = researcher.command(sys.executable, "-c", ENTRY, "update", sweep, "sweep.yaml", "--yes")
            assert "1 run, 1 of them outside of the new space" in said
            (folder / "go1").touch()
            wait_until((folder / "began3").exists, "the next run begins")
            (folder / "sweep.yaml").write_text(GRID % "3, 4")
            assert "Updating sweep with ID" in researcher.wandb("sweep", "--update", sweep, "sweep.yaml")
            (folder / "go3").touch()
            assert agent.wait(timeout=90) == 0
            ended = researcher.sweep(sweep)
            assert ended["state"] == "FINISHED"
            assert [(run["a"], run["state"]) for run in ended["runs"].values()] == [
                *((1, "finished"), (3, "finished"), (4, "finished"))
            ]
        finally:
            researcher.end()
