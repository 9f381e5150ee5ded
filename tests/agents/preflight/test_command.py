"""Checks of a sweep's command and of text that only a shell expands, against what W&B's agent does with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from amc_agents.preflight.check_sweep import Preflight, check_sweep
from amc_agents.trial import main as trial
from amc_agents.trial.relaunch import continued_values
from amc_core.config import ConfigError, TrialConfig

WRITE = 'write ["${env}", "${program}", "${args}"]'
CONFIG = {"max_lr": 0.001, "augment": False, "pretrained": True}


def checked(command: list[Any], program: str = "amc-train", **parameters: Any) -> Preflight:
    sweep = {
        "method": "random",
        "program": program,
        "command": command,
        "metric": {"name": "val/combined_acc", "goal": "maximize"},
        "run_cap": 3,
        "parameters": {"max_lr": {"values": [0.001, 0.002]}, **parameters},
    }
    return check_sweep(yaml.safe_dump(sweep), source="test")


@pytest.mark.parametrize(
    ("form", "accepted"),
    [
        ("args", True),
        ("args_no_equals", True),
        ("args_no_hyphens", False),
        ("args_no_boolean_flags", False),
        ("args_json", False),
        ("args_json_file", False),
        ("args_append_hydra", False),
        ("args_override_hydra", False),
    ],
)
def test_a_form_of_the_arguments_is_refused_where_amc_train_cannot_read_what_the_agent_passes(
    form: str, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Mapping[str, Any]] = []
    monkeypatch.setattr(trial, "_summarise", lambda settings: read.append(settings) or 0)
    made = create_sweep_command_args({"args": {name: {"value": value} for name, value in CONFIG.items()}})
    arguments = made.get(form, ["wandb/sweep-1/config-1.json"])
    result = CliRunner().invoke(trial.main, [*arguments, "--summary"])
    is_read = False
    if result.exit_code == 0 and read:
        try:  # in a new run W&B's values come before flags, in a continued run after them
            TrialConfig.from_mapping({**read[0], **CONFIG})
            is_read = TrialConfig.from_mapping(continued_values(CONFIG, {}, read[0])).max_lr == CONFIG["max_lr"]
        except ConfigError:
            is_read = False
    assert is_read == accepted, (result.output, read)
    problems = checked(["${env}", "${program}", f"${{{form}}}"]).problems
    assert (problems == []) == accepted
    assert accepted or (problems[0].startswith(f"command: ${{{form}}} passes ") and problems[0].endswith(WRITE))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["${env}", "bash", "run.sh", "${args}"], "has no ${program}, so the agent would start 'bash run.sh ${args}'"),
        (["${env}", "${args}"], "has no ${program}"),
        (["sh", "-c", "amc-train ${args}"], "'sh -c' hands the arguments of a run to the shell"),
        (["/bin/bash", "-lc", "${program}", "${args}"], "'/bin/bash -c' hands the arguments"),
        (["${env}", "${program} ${args}"], 'only as an item of its own; write ["${program}", "${args}"]'),
        (["${program}", "--data=$SLURM_TMPDIR/x", "${args}"], 'write "--data=${envvar:SLURM_TMPDIR}/x"'),
        (["${program}", "--data=${SLURM_TMPDIR}/x", "${args}"], 'write "--data=${envvar:SLURM_TMPDIR}/x"'),
        (["${program}", "--data=~/x.hdf5", "${args}"], 'write "--data=${envvar:HOME}/x.hdf5"'),
        (["${program}", "--data=$tmp/x", "${args}"], "export a variable in capitals"),
        (["${program}", "--runs_dir=$(hostname)", "${args}"], "the agent starts no shell, so $( is passed on"),
        (["${program}", "${envvar:Data}", "${args}"], "write ${envvar:DATA}"),
        (["${program}", "${arg}"], "${arg} is not a macro of W&B's agent, which drops it; did you mean ${args}?"),
        (["${program}", "--epoch=5", "${args}"], "epoch: no such parameter; did you mean epochs?"),
        (["${program}", "--epochs=none", "${args}"], "epochs: 'none' is not allowed"),
        (["${program}", "--no_wandb", "${args}"], "--no_wandb trains without W&B"),
        (["${program}", "--summary", "${args}"], "--summary trains nothing"),
    ],
)
def test_a_command_that_cannot_start_a_trial_is_refused_with_the_line_to_write(
    command: list[str], expected: str
) -> None:
    problems = checked(command).problems
    assert any(expected in problem for problem in problems), problems


@pytest.mark.parametrize(
    "command",
    [
        ["${env}", "${program}", "${args}"],
        ["${env}", "${program}"],
        ["nice", "-n", 5, "${program}", "--data=${envvar:SLURM_TMPDIR}/x", "--runs-dir=/scratch/runs", "${args}"],
        ["uv", "run", "amc-train", "${args_no_equals}"],
        ["python", "-m", "amc_agents.trial.main", "${args}"],
        ["${program}", "--no_wandb=False", "--seed", "3", "${args}"],
    ],
)
def test_a_command_that_starts_a_trial_is_accepted(command: list[Any]) -> None:
    assert checked(command).problems == []


@pytest.mark.parametrize(
    "command",
    [
        ["${env}", "${program}", "${args_no_boolean_flags}"],
        ["${interpreter}", "${program}", "${args_json_file}"],
        ["python", "train.py", "${args_append_hydra}"],
        ["sh", "-c", "cd $SLURM_TMPDIR && python train.py"],
    ],
)
def test_another_program_may_have_any_form_of_command(command: list[str]) -> None:
    result = checked(command, program="train.py")
    assert result.problems == []
    assert [warning for warning in result.warnings if warning.startswith("command")] == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python", "other.py", "${args}"], "so the agent would start 'python other.py ${args}' and never train.py"),
        (["python", "${program}", "--config=${args_json_file}"], 'write ["--config", "${args_json_file}"]'),
        (["python", "${program}", "--data=$DATA"], 'write "--data=${envvar:DATA}"'),
    ],
)
def test_an_item_that_the_agent_does_not_replace_is_a_warning_for_another_program(
    command: list[str], expected: str
) -> None:
    result = checked(command, program="train.py")
    assert result.problems == []
    assert any(expected in warning for warning in result.warnings), result.warnings


def test_a_value_that_only_a_shell_would_expand_is_refused_and_for_another_program_a_warning() -> None:
    (problem,) = checked(["${program}", "${args}"], data={"value": "$SLURM_TMPDIR/x.hdf5"}).problems
    assert problem == (
        "data: '$SLURM_TMPDIR/x.hdf5': W&B passes $SLURM_TMPDIR on as it stands, because no shell reads it; leave data "
        'out, and write command: ["${env}", "${program}", "--data=${envvar:SLURM_TMPDIR}/x.hdf5", "${args}"]; or '
        "export AMC_DATA=$SLURM_TMPDIR/x.hdf5 before `wandb agent` starts"
    )
    (problem,) = checked(["${program}", "${args}"], init_from={"values": [None, "~/last.pt"]}).problems
    assert '"--init_from=${envvar:HOME}/last.pt"' in problem
    other = checked(["${program}"], program="train.py", root={"value": "~/data"})
    assert other.problems == []
    assert any("root: '~/data': W&B passes ~ on as it stands" in warning for warning in other.warnings)
