"""What W&B's agent makes of a sweep's ``command``: macros, arguments of the program, text that only a shell expands.

The rules are those of wandb 0.31. The agent starts no shell. It replaces a macro only where the macro is a whole item,
and drops every other item that begins with ``${`` and ends with ``}``. ``${envvar:NAME}`` works anywhere in an item.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import PurePath

from amc_agents.preflight.flat_sweep import FlatSweep
from amc_core.config import FIELDS, VARIANT, check_value, parse_flag, unknown_field
from amc_sweeps.grammar.trial_program import is_trial_program
from amc_sweeps.number_formats import quoted

TRIAL_COMMAND = '["${env}", "${program}", "${args}"]'

# Forms of the arguments that amc-train does not read -> what the agent passes.
_UNREADABLE_ARGS = {
    "args_no_hyphens": "NAME=VALUE as text, which amc-train refuses when it continues a run",
    "args_no_boolean_flags": "true as a bare flag and false not at all, but every flag of amc-train needs a value",
    "args_json": "one JSON text, but amc-train reads flags",
    "args_json_file": "the name of a JSON file, but amc-train reads flags",
    "args_append_hydra": "+NAME=VALUE, which amc-train refuses as an unknown parameter",
    "args_override_hydra": "++NAME=VALUE, which amc-train refuses as an unknown parameter",
}
_MACROS = ("env", "interpreter", "program", "args", "args_no_equals", *_UNREADABLE_ARGS)
_MACRO = re.compile(r"\$\{([^}]*)\}")
_ENVVAR = re.compile(r"\$\{envvar:[A-Z0-9_]*\}")
_VARIABLE = re.compile(r"\$(?:\{([A-Z_][A-Z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_HOME = re.compile(r"(?:^|(?<==))~(?=/|$)")
_COMMAND_IN_COMMAND = re.compile(r"\$\(|`")
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
_OTHER_FLAGS = {spec.other_flag: name for name, spec in FIELDS.items() if spec.other_flag}
_OPTIONS = frozenset(
    {"no_wandb", "runs_dir", "checkpoint_artifact", "repeat_of", VARIANT}
)  # of amc-train, besides FIELDS


def command_problems(sweep: FlatSweep) -> Iterator[str]:
    """Find a command that would not start amc-train, or that it could not read."""
    program, items = sweep.config.program, _items(sweep)
    if "command" not in sweep.config.raw:
        yield f"command: missing; without it the agent runs 'python {program}'; write {TRIAL_COMMAND}"
    if not items:
        return
    for item in items:
        yield from _item_messages(item)
        if reason := _UNREADABLE_ARGS.get(item[2:-1] if item.startswith("${") else ""):
            yield f"command: {item} passes {reason}; write {TRIAL_COMMAND}"
    if "${interpreter}" in items:
        yield f"command: ${{interpreter}} would run 'python {program}'; write {TRIAL_COMMAND}"
    if (shell := _shell(items)) is not None:
        yield (
            f"command: '{shell} -c' hands the arguments of a run to the shell and not to amc-train, and W&B's stop "
            f"reaches only the shell; write {TRIAL_COMMAND}, and prepare the environment before `wandb agent` starts"
        )
    elif not _starts_program(items, sweep):
        yield (
            f"command: has no ${{program}}, so the agent would start {_words(items)} and never amc-train; write "
            f"{TRIAL_COMMAND}, or name your own script as program"
        )
    yield from _flag_problems(items)


def other_command_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find items of another program's command that the agent would drop or pass on unchanged."""
    items = _items(sweep)
    if _shell(items) is None:
        for item in items:
            yield from _item_messages(item)
        if items and sweep.config.program is not None and not _starts_program(items, sweep):
            yield (
                f"command: has no ${{program}}, so the agent would start {_words(items)} and never "
                f'{sweep.config.program}; write ["${{env}}", "${{interpreter}}", "${{program}}", "${{args}}"]'
            )


def shell_text(text: str) -> str | None:
    """Return the part of a text that only a shell would expand: a variable, ``~`` or a command; None without one."""
    rest = _ENVVAR.sub("", text)
    for pattern in (_VARIABLE, _HOME, _COMMAND_IN_COMMAND):
        if match := pattern.search(rest):
            return match[0]
    return None


def with_envvars(text: str) -> str | None:
    """Return the text with ``${envvar:NAME}`` in place of shell variables and ``~``; None where that is not possible.

    The agent's ``${envvar:NAME}`` knows capital letters only.
    """
    if _COMMAND_IN_COMMAND.search(text) or any(name != name.upper() for _, name in _VARIABLE.findall(text)):
        return None
    return _HOME.sub("${envvar:HOME}", _VARIABLE.sub(lambda match: f"${{envvar:{match[1] or match[2]}}}", text))


def _items(sweep: FlatSweep) -> list[str]:
    return [str(item) for item in sweep.config.command or []]


def _item_messages(item: str) -> Iterator[str]:
    rest = _ENVVAR.sub("", item)
    names = _MACRO.findall(rest)
    known = [name for name in names if name in _MACROS]
    if known and rest != f"${{{known[0]}}}":
        parts = json.dumps([part for part in re.split(r"[\s=]+", item) if part])
        yield f"command: {quoted(item)}: the agent replaces ${{{known[0]}}} only as an item of its own; write {parts}"
    elif (found := shell_text(item)) is not None:
        instead = with_envvars(item)
        line = "export a variable in capitals before `wandb agent` starts, and write ${envvar:NAME}"
        line = line if instead is None else f"write {json.dumps(instead)}"
        yield f"command: {quoted(item)}: the agent starts no shell, so {found} is passed on as it stands; {line}"
    elif unknown := [name for name in names if name not in _MACROS]:
        if unknown[0].startswith("envvar:"):
            name = unknown[0].removeprefix("envvar:").upper()
            yield f"command: ${{{unknown[0]}}}: the agent reads names of A-Z, 0-9 and _; write ${{envvar:{name}}}"
            return
        match = difflib.get_close_matches(unknown[0], _MACROS, n=1)
        hint = f"; did you mean ${{{match[0]}}}?" if match else f"; known: {', '.join(_MACROS)}, envvar:NAME"
        yield f"command: ${{{unknown[0]}}} is not a macro of W&B's agent, which drops it{hint}"


def _shell(items: Sequence[str]) -> str | None:
    """Return the shell that the command starts with ``-c``."""
    for item, following in pairwise(items):
        if PurePath(item).name in _SHELLS and re.fullmatch(r"-[a-z]*c", following):
            return item
    return None


def _starts_program(items: Sequence[str], sweep: FlatSweep) -> bool:
    program = sweep.config.program
    if sweep.runs_trial:  # its module is the same program
        return any(item == "${program}" or is_trial_program(item) or item == "amc_agents.trial.main" for item in items)
    return any(item == "${program}" or (program is not None and item.endswith(program)) for item in items)


def _words(items: Sequence[str]) -> str:
    return repr(" ".join(item for item in items if item != "${env}")[:80])


def flags_of(sweep: FlatSweep) -> list[str]:
    """Return the names of the flags that the command itself gives amc-train."""
    return [name for name, _, _ in _flags(_items(sweep))]


def _flags(items: Sequence[str]) -> Iterator[tuple[str, str | None, str]]:
    """Yield name, value (None without one) and item of every flag after the program."""
    start = next(
        (place for place, item in enumerate(items) if item == "${program}" or is_trial_program(item)), len(items)
    )
    for item in items[start + 1 :]:
        name, equals, value = item.removeprefix("--").partition("=")
        if item.startswith("--") and name:
            name = name.replace("-", "_")
            yield _OTHER_FLAGS.get(name, name), value if equals else None, item


def _flag_problems(items: Sequence[str]) -> Iterator[str]:
    """Find flags of amc-train in the command that it would refuse, or that keep it from training under W&B."""
    for name, value, item in _flags(items):
        if name in {"summary", "help"}:
            yield f"command: {item} trains nothing; leave it out"
        elif name == "no_wandb" and (value or "").lower() not in {"false", "0"}:
            yield f"command: {item} trains without W&B, so the sweep would hear nothing of the run; leave it out"
        elif name in FIELDS and value is not None and "${" not in value:
            _, problem = check_value(name, parse_flag(name, value))
            if problem is not None:
                yield f"command: {problem}"
        elif name not in FIELDS and name not in _OPTIONS:
            yield f"command: {unknown_field(name)}"
