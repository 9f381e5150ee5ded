"""amc-sweep next and give-back: a launcher without an agent, the real client, the embedded server and a plain W&B."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_scenarios import Researcher
from embedded_server import EmbeddedServer
from plain_wandb import KEY, PlainWandb

pytestmark = pytest.mark.client

TRIAL = """
import sys
import wandb
run = wandb.init()
assert sys.argv[1:] == [f"--a={run.config['a']}"], sys.argv
run.log({"acc": run.config["a"]})
run.finish()
"""
GRID = """
program: train.py
command: ["${env}", PYTHON, "${program}", "${args}"]
method: grid
metric: {name: acc, goal: maximize}
parameters:
  a: {values: [1, 2]}
"""


class Launcher(Researcher):
    """A person with a Makefile."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        folder.mkdir()
        super().__init__(folder, server)
        (folder / "train.py").write_text(TRIAL)
        self.path = self.create_sweep(GRID.replace("PYTHON", sys.executable))

    def call(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run amc-sweep."""
        code = "from amc_agents.commands import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.folder,
            env={**EmbeddedServer.process_environment(), **self._env(), **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def next(self, *options: str, **env: str) -> dict[str, Any]:
        """Return what ``amc-sweep next --json`` prints."""
        done = self.call("next", self.path, "--json", *options, **env)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def shell(self, line: str) -> int:
        """Run a line of bash in which amc-sweep is a command."""
        program = self.folder / "amc-sweep"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from amc_agents.commands import main; main()" "$@"\n')
        program.chmod(0o700)
        env = {**EmbeddedServer.process_environment(), **self._env()}
        env["PATH"] = f"{self.folder}{os.pathsep}{env['PATH']}"
        return subprocess.run(["bash", "-c", line], cwd=self.folder, env=env, check=False, timeout=120).returncode


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    with EmbeddedServer(tmp_path / "data") as server:
        yield Launcher(tmp_path / "work", server)


def test_a_launcher_runs_a_whole_sweep_and_gives_a_run_back(launcher: Launcher) -> None:
    drawn = launcher.next("--lease", "24h")
    run = drawn["run"].rpartition("/")[2]
    assert (drawn["sweep"], drawn["lease_s"], drawn["continues"]) == (launcher.path, 86400.0, False)
    assert drawn["parameters"] == {"a": 1}
    assert drawn["command"] == ["/usr/bin/env", sys.executable, "train.py", "--a=1"]
    assert drawn["environment"]["WANDB_RUN_ID"] == run
    assert launcher.server.key not in json.dumps(drawn)

    returned = launcher.call("give-back", run)
    assert returned.returncode == 0, returned.stderr
    again = launcher.next()
    assert (again["run"], again["lease_s"]) == (drawn["run"], 3600.0), "it is handed out again at once"

    # On another machine than the one that asked: the environment and the parameter file are enough.
    env = {**launcher._env(), **again["environment"]}
    assert subprocess.run(again["command"], cwd=launcher.folder, env=env, check=False, timeout=90).returncode == 0
    refused = launcher.call("give-back", run)
    assert (refused.returncode, "only a run that has not begun" in refused.stderr) == (2, True)

    second = launcher.next()
    later = launcher.call("next", launcher.path)
    assert (later.returncode, later.stdout) == (75, "")
    assert "try again later" in later.stderr
    assert launcher.call("give-back", second["run"]).returncode == 0
    line = f'next=$(amc-sweep next {launcher.path}) && eval "$next" && eval "$AMC_COMMAND"'
    assert launcher.shell(line) == 0
    assert launcher.shell(line) == 3, "the sweep is over"
    ended = launcher.sweep(launcher.path)
    assert ended["state"] == "FINISHED"
    assert {run["a"]: run["state"] for run in ended["runs"].values()} == {1: "finished", 2: "finished"}


@pytest.mark.compatibility("next", "next --lease", "give-back")
def test_another_wandb_hands_out_runs_and_has_no_leases(launcher: Launcher) -> None:
    with PlainWandb(launcher.server) as plain:
        env = {"WANDB_BASE_URL": plain.base_url, "WANDB_API_KEY": KEY}
        drawn = launcher.next(**env)
        assert (drawn["lease_s"], drawn["environment"]["WANDB_BASE_URL"]) == (None, plain.base_url)
        for arguments in (("next", launcher.path, "--lease", "1h"), ("give-back", drawn["run"])):
            refused = launcher.call(*arguments, **env)
            assert refused.returncode == 2
            assert "our embedded server" in refused.stderr
    unknown = launcher.call("next", "local/demo/nosuch00")
    assert (unknown.returncode, "nosuch00" in unknown.stderr) == (2, True)
