"""docs/commands.md is what ``--help`` of every command prints.

After a change of a command: ``python tests/agents/commands/test_commands_document.py`` writes it again.
"""

from __future__ import annotations

import copy
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from amc_agents.commands import main
from amc_agents.trial.main import main as amc_train
from amc_analysis.cli import main as amc_analyze
from amc_core import command_line
from amc_core.commands import main as amc_data
from amc_core.config import FIELDS

FILE = Path(__file__).parents[3] / "docs" / "commands.md"
WIDTH = 110
INTRODUCTION = """\
# The commands

`amc-sweep` creates, watches and steers sweeps. `amc-data` makes and checks data files. `amc-train` trains one trial.
`amc-analyze` reads what the runs show. This page is what `--help` prints.
`python tests/agents/commands/test_commands_document.py` writes it, and a test compares the two.

A SWEEP is an id, `PROJECT/ID`, `ENTITY/PROJECT/ID` or the URL of the sweep's page. With `--json`,
stdout holds nothing else. Every command that talks to W&B says on stderr which one it uses.

## Exit codes

| code | means |
|---|---|
| 0 | done |
| 1 | tried and failed: the server gave a wrong answer, a check failed, agents cannot continue |
| 2 | refused: the arguments cannot be used; nothing was changed |
| 130 | interrupted by Ctrl-C |

A command that runs a trial in this terminal ends as the trial does, with one of
[amc-train's codes](runs.md#how-a-trial-ends). `amc-analyze` uses the same four. With `--supports` it
also ends with 3 (a statement is contradicted) or 4 (there is not enough evidence).

A file that cannot be written is refused before the work begins. Files are written whole or not at all.
A command goes on where nobody reads its output any more (`| head -1`) or the disk of its log is full. One
that prints a result ends with 1 where a full disk lost a part of it.
"""
TRIAL_FLAGS = "Every field of `TrialConfig` is a flag of `amc-train`, too: [parameters of a trial](parameters.md).\n"


def _without_fields() -> click.Command:
    """Return amc-train without the flags of TrialConfig, which have a page of their own."""
    command = copy.copy(amc_train)
    command.params = [parameter for parameter in amc_train.params if parameter.name not in FIELDS]
    return command


PROGRAMS: dict[str, click.Command] = {
    "amc-sweep": main,
    "amc-data": amc_data,
    "amc-train": _without_fields(),
    "amc-analyze": amc_analyze,
}
COMMANDS = [
    (program, name, command)
    for program, group in PROGRAMS.items()
    if isinstance(group, click.Group)
    for name, command in sorted(group.commands.items())
]

# Paths that a command reads.
READ = {
    *("amc-data audit file", "amc-data evaluate checkpoint_path", "amc-data evaluate file", "amc-data show file"),
    *("amc-data split file", "amc-sweep backup data", "amc-sweep clean data", "amc-sweep clean runs_dir"),
    *("amc-sweep create file", "amc-sweep demo sweep_file", "amc-sweep doctor data", "amc-sweep doctor runs_dir"),
    *("amc-sweep resume runs_dir", "amc-sweep update file", "amc-analyze evaluations"),
}
# Paths that a command makes, or checks, before its work.
MADE_FIRST = {
    *("amc-data split manifest_path", "amc-data synth out", "amc-sweep agent logs", "amc-sweep demo folder"),
    *("amc-sweep launch logs", "amc-sweep serve data", "amc-sweep serve key_file", "amc-train runs_dir"),
}


def document() -> str:
    """Return the page."""
    text = [INTRODUCTION]
    for program, command in PROGRAMS.items():
        names = [name for group, name, each in COMMANDS if group == program and not each.hidden]
        titles = [f"{program} {name}" for name in names] or [program]
        if names:
            text.append(" · ".join(f"[{name}](#{program}-{name})" for name in names) + "\n")
        for title in titles:
            text.append(f"## {title}\n\n```text\n{_help(command, *title.split())}```\n")
    return "\n".join([*text, TRIAL_FLAGS])


def _help(command: click.Command, program: str, *names: str) -> str:
    shown = CliRunner().invoke(command, [*names, "--help"], prog_name=program, terminal_width=WIDTH)
    assert shown.exit_code == 0, shown.output
    return "".join(f"{line.rstrip()}\n" for line in shown.stdout.splitlines())


def test_the_page_is_the_help_of_the_commands_and_imports_nothing_heavy() -> None:
    from embedded_server import EmbeddedServer  # here, so that this file can be run without tests/support on its path

    # In another process: click remembers how a command was first called, and other tests call commands directly.
    program = (
        "import sys, test_commands_document\n"
        "sys.stdout.write(test_commands_document.document())\n"
        "heavy = {'torch', 'wandb', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env=EmbeddedServer.process_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode == 0, printed.stderr
    assert FILE.read_text() == printed.stdout, "run: python tests/agents/commands/test_commands_document.py"


@pytest.mark.parametrize(("program", "name", "command"), COMMANDS)
def test_a_commands_help_has_a_valid_example_and_exit_codes(program: str, name: str, command: click.Command) -> None:
    text = inspect.cleandoc(command.help or "")
    examples = re.findall(rf"^{program} {name}\b.*$", text, re.MULTILINE)
    assert examples, f"{program} {name} --help has no example"
    assert re.search(r"Exit codes: (of a \w+ )?0 ", text), f"{program} {name} --help has no exit codes"
    known = {option for parameter in command.params for option in parameter.opts if isinstance(parameter, click.Option)}
    for example in examples:
        own = re.split(r"\s&&\s|\s\|\s|\s{2,}", example)[0]
        assert set(re.findall(r"(?<=\s)--[\w-]+", own)) <= known, example


def test_what_a_command_writes_is_checked_before_its_work() -> None:
    plain = {
        " ".join(filter(None, [program, name, parameter.name]))
        for program, name, command in [*COMMANDS, ("amc-train", "", amc_train), ("amc-analyze", "", amc_analyze)]
        for parameter in command.params
        if type(parameter.type) is click.Path and not parameter.type.exists
    }
    assert plain == READ | MADE_FIRST, "name what a command writes by OutputFile or OutputFolder"


def test_the_exit_codes_are_those_of_the_commands() -> None:
    codes = [command_line.DONE, command_line.FAILED, command_line.USAGE_ERROR, command_line.INTERRUPTED]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", INTRODUCTION, re.MULTILINE)] == codes
    assert click.ClickException.exit_code == command_line.FAILED
    assert click.UsageError.exit_code == command_line.USAGE_ERROR


def test_an_interrupted_command_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.commands["list"], "callback", interrupted)
    ended = CliRunner().invoke(main, ["list"])
    assert (ended.exit_code, ended.stderr) == (command_line.INTERRUPTED, "interrupted\n")


if __name__ == "__main__":
    FILE.write_text(document())
