"""W&B's client-side search, ``wandb sweep-scheduler`` of wandb 0.31: every form is refused where its user sees it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from embedded_server import EmbeddedServer

from amc_agents.commands import main

pytestmark = pytest.mark.client

PLAIN: dict[str, Any] = {
    "program": "train.py",
    "method": "random",
    "metric": {"name": "acc", "goal": "maximize"},
    "parameters": {"a": {"min": 0.0, "max": 1.0}},
}
METRICS = [{"name": "acc", "goal": "maximize"}, {"name": "loss", "goal": "minimize"}]
NOT_SUPPORTED = "`wandb sweep-scheduler`, is not supported"
FORMS = {
    "wandb": ({**PLAIN, "scheduler": {"engine": "wandb"}}, NOT_SUPPORTED),
    "optuna": ({**PLAIN, "scheduler": {"engine": "optuna", "source": "s.py", "optimizer": "study"}}, NOT_SUPPORTED),
    "ax": ({**PLAIN, "method": "custom", "scheduler": {"engine": "ax"}}, NOT_SUPPORTED),
    "custom": ({**PLAIN, "method": "custom"}, "allowed: grid, random, bayes"),
    "metrics": (
        {**PLAIN, "metrics": METRICS, "scheduler": {"engine": "optuna"}},
        "nothing else searches for several objectives",
    ),
}
BY_API = "import sys, yaml, wandb; wandb.sweep(yaml.safe_load(open(sys.argv[1])), project='p')"
# What the client prints before anything goes wrong, and where its log is.
CLIENTS_OWN = ("Creating sweep", "Starting sweep scheduler", "Loaded credentials", "Find detailed error logs")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("scheduler") / "data") as running:
        yield running


def call(server: EmbeddedServer, folder: Path, config: dict[str, Any], *command: str) -> tuple[int, list[str]]:
    """Run a command beside ``sweep.yaml``; return its exit code and the lines that its user sees."""
    (folder / "sweep.yaml").write_text(yaml.safe_dump(config))
    own = {f"WANDB_{name}": str(folder) for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "DIR")}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**server.process_environment(), **server.environment(**own, WANDB_SILENT="false")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def first_news(lines: list[str]) -> str:
    """Return the first line that is not the client's own."""
    return next(line for line in lines if not any(words in line for words in CLIENTS_OWN))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_for_the_scheduler_is_refused(server: EmbeddedServer, tmp_path: Path, form: str) -> None:
    config, reason = FORMS[form]
    code, lines = call(server, tmp_path, config, "wandb", "sweep", "--project", "p", "sweep.yaml")
    assert code == 1
    assert first_news(lines).startswith("Error: the sweep was not taken: ")
    assert reason in first_news(lines)
    assert server.graphql('{ project(name: "p") { id } }')["project"] is None
    for options in ([], ["--dry-run"]):
        result = CliRunner().invoke(main, ["create", str(tmp_path / "sweep.yaml"), *options])
        assert result.exit_code == 2
        assert reason in result.output.splitlines()[0]


def test_the_api_shows_the_refusal_before_its_traceback(server: EmbeddedServer, tmp_path: Path) -> None:
    config, reason = FORMS["optuna"]
    code, lines = call(server, tmp_path, config, sys.executable, "-c", BY_API, "sweep.yaml")
    assert code == 1
    assert first_news(lines).startswith("wandb: ERROR the sweep was not taken: ")
    assert reason in first_news(lines)


def test_the_scheduler_is_refused_for_a_sweep_that_the_server_searches(server: EmbeddedServer, tmp_path: Path) -> None:
    document = 'mutation C($c: String) { upsertSweep(input: {config: $c, projectName: "q"}) { sweep { name } } }'
    sweep = server.graphql(document, c=yaml.safe_dump(PLAIN))["upsertSweep"]["sweep"]["name"]
    code, lines = call(server, tmp_path, PLAIN, "wandb", "sweep-scheduler", f"local/q/{sweep}")
    assert code == 1
    assert f"the server itself searches sweep {sweep} (random)" in first_news(lines)
    assert NOT_SUPPORTED in first_news(lines)
    assert f"Start agents only: wandb agent local/q/{sweep}" in first_news(lines)
    assert not any("Traceback" in line for line in lines)
