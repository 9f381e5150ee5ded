"""amc-sweep create refuses a wrong file before it contacts a server."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from amc_agents.commands import main
from amc_agents.commands.create import where_to_run
from amc_analysis.cli import main as amc_analyze
from amc_sweeps.backend.choose import Backend

GOOD = """
program: amc-train
command: ["${env}", "${program}", "${args}"]
method: grid
metric: {name: val/combined_acc, goal: maximize}
run_cap: 4
early_terminate: {type: hyperband, min_iter: 2, eta: 2, strict: true}
parameters:
  max_lr: {values: [0.001, 0.002]}
  snr_layer: {values: [standard, bottleneck_64]}
  epochs: {value: 8}
  patience: {value: 8}
  epochs_per_cycle: {value: 8}
"""


def _create(tmp_path: Path, text: str | None, *arguments: str) -> tuple[int, str, str]:
    file = tmp_path / "sweep.yaml"
    if text is not None:
        file.write_text(text)
    result = CliRunner().invoke(main, ["create", str(file), *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_dry_run_shows_configurations_and_bands_and_needs_no_server(tmp_path: Path) -> None:
    code, out, err = _create(tmp_path, GOOD, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["configurations"] == 4
    assert json.loads(out)["bands_epochs"] == [2, 4]
    assert "4 configurations" in err


def test_a_sweep_file_may_be_a_pipe() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as pipe:
        pipe.write(GOOD)
    result = CliRunner().invoke(main, ["create", f"/dev/fd/{reader}", "--dry-run"])
    os.close(reader)
    assert result.exit_code == 0, result.output
    assert "4 configurations" in result.stderr


def test_a_dry_run_takes_seed_and_shuffle_and_says_when_a_seed_has_no_effect(tmp_path: Path) -> None:
    code, out, err = _create(tmp_path, GOOD, "--dry-run", "--json", "--seed", "7", "--shuffle")
    assert (code, json.loads(out)["seed"], json.loads(out)["shuffle"]) == (0, 7, True)
    assert "--seed has no effect" not in err
    assert "4 configurations, searched by grid in a random order with seed 7, run_cap 4" in err
    _, out, err = _create(tmp_path, GOOD, "--dry-run", "--json", "--seed", "7")
    assert (json.loads(out)["seed"], json.loads(out)["shuffle"]) == (7, False)
    assert "warning: --seed has no effect" in err
    _, out, err = _create(tmp_path, GOOD.replace("grid", "random"), "--dry-run", "--json")
    assert (json.loads(out)["seed"], "--seed" in err) == (None, False)


@pytest.mark.parametrize("method", ["random", "bayes"])
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_only_a_grid_can_be_shuffled(tmp_path: Path, method: str, options: list[str]) -> None:
    code, out, err = _create(tmp_path, GOOD.replace("grid", method), "--shuffle", *options)
    assert (code, out) == (2, "")
    assert f"--shuffle: only a grid has an order, and {method} draws at random anyway; nothing was registered" in err


def test_a_dry_run_says_what_bayes_learns_from_crashed_runs(tmp_path: Path) -> None:
    bayes = GOOD.replace("grid", "bayes")
    code, out, err = _create(tmp_path, bayes, "--dry-run", "--json")
    assert (code, json.loads(out)["crashed_runs"]) == (0, "auto")
    assert "searched by bayes, crashed runs: auto" in err
    _, out, err = _create(tmp_path, bayes, "--dry-run", "--json", "--crashed-runs", "extrapolate", "--seed", "7")
    assert json.loads(out)["crashed_runs"] == "extrapolate"
    assert "searched by bayes with seed 7, crashed runs: extrapolate" in err
    _, out, err = _create(tmp_path, GOOD, "--dry-run", "--json")
    assert json.loads(out)["crashed_runs"] is None
    assert "crashed" not in err


def test_crashed_runs_of_a_search_that_learns_from_none_are_refused(tmp_path: Path) -> None:
    code, out, err = _create(tmp_path, GOOD, "--crashed-runs", "auto")
    assert (code, out) == (2, "")
    assert "only bayes learns from runs, and this sweep's method is grid; leave it out; nothing was registered" in err
    code, _, err = _create(tmp_path, GOOD.replace("grid", "bayes"), "--crashed-runs", "luck", "--dry-run")
    assert code == 2
    assert "'luck' is not one of 'auto', 'worst', 'best'" in err


@pytest.mark.parametrize("seed", ["-1", str(2**32), "1.5", "x"])
def test_a_seed_that_the_server_cannot_take_is_refused(tmp_path: Path, seed: str) -> None:
    code, out, err = _create(tmp_path, GOOD, "--seed", seed)
    assert (code, out) == (2, "")
    assert seed in err


def test_all_problems_are_reported_at_once_with_exit_code_2(tmp_path: Path) -> None:
    wrong = (
        GOOD.replace("max_lr: {values: [0.001, 0.002]}", "max_lr: {values: [1e-4, -1]}\n  modeltype: {value: resnet18}")
        .replace("val/combined_acc", "val/accuracy")
        .replace("run_cap", "run_kap")
    )
    code, out, err = _create(tmp_path, wrong, "--dry-run")
    assert (code, out) == (2, "")
    for expected in ("1.0e-4", "-1", "model_type", "val/accuracy", "run_cap"):
        assert expected in err


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "", "a: [", "a: 1\na: 2\n"])
def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    code, out, err = _create(tmp_path, text)
    assert (code, out) == (2, "")
    assert "nothing was registered" in err
    assert "Traceback" not in err


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    code, _, err = _create(tmp_path, None)
    assert code == 2
    assert "sweep.yaml: cannot be read: No such file or directory" in err


def test_without_any_server_the_error_names_the_options(tmp_path: Path) -> None:
    code, out, err = _create(tmp_path, GOOD)
    assert (code, out) == (2, "")
    for option in ("amc-sweep serve", "wandb login", "--base-url"):
        assert option in err


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    code, _, err = _create(tmp_path, GOOD, "--base-url", "http://127.0.0.1:9")
    assert code == 2
    assert "no server answers at http://127.0.0.1:9" in err


HUGE_GRID = """method: grid
program: x.py
parameters: {lr: {distribution: q_uniform, min: 0.0001, max: 0.1, q: 1.0e-10}}
"""
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 200_000, "nested more than 64 deep"),
        (LAUGHS, "with every alias written out"),
        (HUGE_GRID, "999,000,000 configurations"),
        ("method: random\nparameters: {x: {min: 0, max: " + "9" * 5000 + "}}", "more than 3,500 digits"),
        ("a: " + "x" * 300_000, "larger than 262,144 bytes"),
    ],
)
@pytest.mark.parametrize("command", [["create", "--dry-run"], ["create"], ["import"], ["analyze"]])
def test_every_command_refuses_a_file_beyond_a_bound_in_words(
    tmp_path: Path, text: str, reason: str, command: list[str]
) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    begin = time.process_time()
    arguments = ["--from", str(file)] if command == ["analyze"] else [command[0], str(file), *command[1:]]
    result = CliRunner().invoke(amc_analyze if command == ["analyze"] else main, arguments)
    assert time.process_time() - begin < 4
    assert result.exit_code == (2 if command != ["analyze"] else result.exit_code) != 0
    assert isinstance(result.exception, SystemExit)
    if command[0] == "create":
        assert reason in result.output
    assert len(result.output) < 5000


def test_a_space_of_many_parameters_is_counted(tmp_path: Path) -> None:
    names = "\n".join(f"  p{number}: {{values: [1, 2]}}" for number in range(2000))
    code, out, _ = _create(tmp_path, f"method: random\nprogram: x.py\nparameters:\n{names}\n", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["configurations"] is None


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (
            Backend("embedded", "http://127.0.0.1:8418", "x", key_file=Path("api.key")),
            "on this machine. Other machines",
        ),
        (Backend("server", "http://localhost:8080", "x"), "on this machine. Other machines"),
        (
            Backend("embedded", "http://10.1.1.2:8418", "x", key_file=Path("api.key")),
            "every GPU box, with the server's",
        ),
        (Backend("cloud", "https://api.wandb.ai", "x"), "every GPU box:"),
    ],
)
def test_the_agent_line_says_where_it_works(backend: Backend, words: str) -> None:
    assert words in where_to_run(backend)
