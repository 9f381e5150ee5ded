"""The documents match the code: links, paths, modules, commands, flags and tables."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import re
from itertools import product
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from repository import repository_files
from test_architecture import ROOMS

from amc_agents.commands import main as amc_sweep
from amc_agents.commands.next_ import LATER, SWEEP_IS_OVER
from amc_agents.fleet.loop import FORWARDED
from amc_agents.trial.main import NO_WANDB
from amc_agents.trial.main import main as amc_train
from amc_analysis.cli import main as amc_analyze
from amc_analysis.report.verdicts import CONTRADICTED, NOT_ENOUGH, SUPPORTED
from amc_analysis.rules.registry import RULES
from amc_core.command_line import DONE, FAILED, INTERRUPTED, USAGE_ERROR
from amc_core.commands import main as amc_data
from amc_core.config import FIELDS
from amc_core.metric_names import EPOCH_METRICS, FINAL_FACTS, FINAL_METRICS, OCCASIONAL_METRICS, is_epoch_metric
from amc_sweeps.runs.causes import EXIT_CODES

ROOT = Path(__file__).parents[1]
FILES = repository_files()
DOCUMENTS = sorted(name for name in FILES if name.endswith(".md") and (ROOT / name).is_file())
TEXTS = {name: (ROOT / name).read_text() for name in DOCUMENTS}
COMMANDS: dict[str, click.Command] = {
    "amc-sweep": amc_sweep,
    "amc-data": amc_data,
    "amc-analyze": amc_analyze,
    "amc-train": amc_train,
}
LARGEST_PICTURE = 200_000  # bytes


def _prose(text: str) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(text: str) -> set[str]:
    """Return what GitHub calls a document's headings."""
    headings = re.findall(r"^#+ (.*)$", _prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _code(text: str) -> list[str]:
    """Return the words that stand in backticks."""
    return [word for code in re.findall(r"`([^`\n]+)`", _prose(text)) for word in code.split()]


def _table(name: str, heading: str, number: int = 0) -> list[list[str]]:
    """Return the rows of a table under a heading, without its head."""
    section = TEXTS[name].split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    table = re.findall(r"(?:^\|.*\n?)+", section, re.MULTILINE)[number]
    return [line.strip("| ").split(" | ") for line in table.splitlines()][2:]


def _names(rows: list[list[str]]) -> set[str]:
    """Return the names in the first column; `a_{b,c}` stands for two."""
    patterns = [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]
    parts = [[part.split(",") for part in re.split(r"[{}]", pattern)] for pattern in patterns]
    return {"".join(choice) for part in parts for choice in product(*part)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXTS[name]):
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (anchor and anchor not in _anchors(target.read_text())):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_and_module_in_backticks_exists(name: str) -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    packages = dict(line.replace(" ", "").split("=") for line in parser["options"]["package_dir"].split("\n") if line)
    folders = {file.partition("/")[0] for file in FILES if "/" in file}
    missing = []
    for word in _code(TEXTS[name]):
        top = word.partition("/")[0]
        if "/" in word and (top in folders or top in packages):
            place = ROOT / packages[top] / word.partition("/")[2] if top in packages else ROOT / word
            if not list(place.parent.glob(place.name or "*")):
                missing.append(word)
        elif re.fullmatch(r"[\w.-]+\.(py|md|cfg|toml)", word):
            if not any(Path(file).name == word for file in FILES):
                missing.append(word)
        elif word.partition(".")[0] in packages and "." in word and importlib.util.find_spec(word) is None:
            missing.append(word)
    assert missing == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_exists(name: str) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", TEXTS[name], flags=re.MULTILINE))
    assert named <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "docs/commands.md"])
def test_every_flag_exists(name: str, command: str) -> None:
    for words in re.findall(rf"{command}((?: [\w-]+)*(?: --[\w-]+)+)", TEXTS[name]):
        parts = words.split()
        subcommand = [parts[0]] if command in {"amc-sweep", "amc-data"} and parts[0][:2] != "--" else []
        shown = CliRunner().invoke(COMMANDS[command], [*subcommand, "--help"]).output
        for flag in (part for part in parts if part.startswith("--")):
            assert flag in shown, f"{command} {words}"


def _all_commands() -> dict[str, click.Command]:
    """Return every command by the words that call it."""
    found: dict[str, click.Command] = {}
    for program, command in COMMANDS.items():
        members = command.commands if isinstance(command, click.Group) else {}
        found |= {f"{program} {name}": member for name, member in members.items()} or {program: command}
    return found


def _section(name: str) -> str:
    """Return what docs/commands.md says of a command."""
    return TEXTS["docs/commands.md"].split(f"\n## {name}\n", 1)[1].split("\n## ")[0]


@pytest.mark.parametrize(("name", "command"), sorted(_all_commands().items()))
def test_every_command_and_option_is_documented(name: str, command: click.Command) -> None:
    text = _section(name)
    if name == "amc-train":  # a parameter's name is its flag
        text += re.sub(r"^\| `(\w+)` \|", r"--\1 ", TEXTS["docs/parameters.md"], flags=re.MULTILINE)
    documented = set(re.findall(r"--[\w-]+", text))
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    assert {flag for option in options for flag in option.opts if flag.startswith("--")} <= documented


def test_every_parameter_of_a_trial_is_documented() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TEXTS["docs/parameters.md"], re.MULTILINE)) == set(FIELDS)


EVERYWHERE = {DONE, FAILED, USAGE_ERROR, INTERRUPTED}
OWN_CODES = {
    "amc-train": {*EXIT_CODES.values(), NO_WANDB, FAILED, USAGE_ERROR},
    "amc-sweep agent": {DONE, FAILED, USAGE_ERROR, *FORWARDED.values()},
    "amc-sweep next": {*EVERYWHERE, SWEEP_IS_OVER, LATER},
    "amc-analyze": {*EVERYWHERE, SUPPORTED, CONTRADICTED, NOT_ENOUGH},
}


@pytest.mark.parametrize("name", sorted(_all_commands()))
def test_every_exit_code_is_documented(name: str) -> None:
    (text,) = re.findall(r"Exit codes: (.*?)\n(?:\n|```)", _section(name), re.DOTALL)
    codes = {int(code) for code in re.findall(r"\b\d+\b", text)}
    assert codes == OWN_CODES[name] if name in OWN_CODES else {DONE} <= codes <= EVERYWHERE


def test_no_other_exit_code_is_in_the_code() -> None:
    documented = set().union(EVERYWHERE, *OWN_CODES.values())
    sources = [ROOT / name for name in FILES if name.endswith(".py") and not name.startswith(("tests/", "docs/"))]
    found = [code for file in sources for code in re.findall(r"(?:sys\.exit|SystemExit)\((\d+)\)", file.read_text())]
    assert found  # else this looks at nothing
    assert {int(code) for code in found} <= documented


def test_the_site_has_every_document() -> None:
    index = TEXTS["docs/index.md"]
    listed = {
        line for block in re.findall(r"```\{toctree\}\n.*?\n\n(.*?)\n```", index, re.DOTALL) for line in block.split()
    }
    assert {Path(name).stem for name in DOCUMENTS if name.startswith("docs/")} - {"index"} <= listed


def test_the_readme_names_how_to_start() -> None:
    assert {"demo", "test"} <= set(re.findall(r"^make (\w+)", TEXTS["README.md"], flags=re.MULTILINE))


def test_the_map_has_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = {f"{wing}/{room}" for wing, names in ROOMS.items() for room in names}
    folders = {Path(file).parent for file in FILES if file.endswith("__init__.py")}
    ours = {"/".join(folder.parts[-2:]) for folder in folders} & rooms
    assert [room for room in sorted(ours) if f"`{room}/`" not in text] == []


def test_every_picture_is_shown_and_loads_fast() -> None:
    pictures = [ROOT / name for name in FILES if name.startswith("docs/") and name.endswith(".png")]
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size <= LARGEST_PICTURE, picture
        assert any(picture.name in text for text in TEXTS.values()), f"no document shows {picture}"


def test_the_table_of_ends_is_the_codes_own() -> None:
    rows = _table("docs/runs.md", "How a trial ends")
    assert {name.strip("`"): int(code) for name, code, _ in rows} == {
        str(end): code for end, code in EXIT_CODES.items()
    }


def test_the_table_of_metrics_is_the_codes_own() -> None:
    names = _names(_table("docs/runs.md", "What a run logs"))
    assert {name for name in names if "*" not in name} == EPOCH_METRICS | OCCASIONAL_METRICS
    examples = {"f1/mod/*": "QPSK", "f1/family/*": "PSK", "f1/snr/*": "12", "acc/snr/*": "12"}
    assert {name for name in names if "*" in name} == set(examples)
    assert all(is_epoch_metric(name.replace("*", example)) for name, example in examples.items())
    assert _names(_table("docs/runs.md", "What a run logs", 1)) == FINAL_METRICS | FINAL_FACTS


def test_the_table_of_rules_is_the_codes_own() -> None:
    assert [row[0] for row in _table("docs/analysis.md", "Integrity rules")] == [str(rule) for rule in RULES]


def test_the_table_of_sweep_files_has_every_file() -> None:
    rows = _table("docs/sweep-files.md", "The files in `sweeps/`")
    assert {re.findall(r"`([^`]+)`", row[0])[0] for row in rows} == {file.name for file in ROOT.glob("sweeps/*.yaml")}


def test_numbers_have_one_format() -> None:
    own = [name for name in DOCUMENTS if not name.startswith("tests/")]
    assert [name for name in own if re.search(r"\d %", TEXTS[name])] == []


def test_no_document_names_one_that_is_not_shipped() -> None:
    own = [name for name in DOCUMENTS if name != "CHANGELOG.md"]
    assert [name for name in own if "runlog" in TEXTS[name].lower()] == []


def test_every_line_of_the_compatibility_sheet_has_a_test_and_every_such_test_a_line() -> None:
    backed = {
        argument.value
        for file in FILES
        if file.startswith("tests/") and file.endswith(".py")
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "compatibility"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    lines = [row[0] for row in _table("docs/compatibility.md", "The sheet")]
    assert sorted(lines) == sorted(set(lines))
    assert set(lines) - backed == set(), "a line that no test backs"
    assert backed - set(lines) == set(), "a test of a line that the sheet lacks"


def test_the_compatibility_sheet_names_every_command_but_those_that_are_no_users_of_a_server() -> None:
    named = {word for row in _table("docs/compatibility.md", "The sheet") for word in re.findall(r"[\w-]+", row[0])}
    assert set(amc_sweep.commands) - named == {"demo", "serve"}
