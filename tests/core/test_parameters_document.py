"""docs/parameters.md is what TrialConfig says of its fields.

After a change of a field: ``python tests/core/test_parameters_document.py`` writes it again.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

from amc_core.config import FIELDS, FieldSpec, TrialConfig

FILE = Path(__file__).parents[2] / "docs" / "parameters.md"
INTRODUCTION = """\
# Parameters of a trial

Every parameter of a trial is a field of `TrialConfig`. It has the same name in a sweep file, in `wandb.config` and as a
flag of `amc-train`. [What a sweep may vary](sweep-files.md#what-a-sweep-may-vary) says which value wins.
[One trial](training.md) says what the choices do and where they come from.

`python tests/core/test_parameters_document.py` writes this page, and a test compares the two.
"""


def document() -> str:
    """Return the page: a table for every group of fields."""
    text = [INTRODUCTION]
    for group, names in _groups().items():
        rows = "".join(_row(FIELDS[name]) for name in names)
        text.append(f"## {group.capitalize()}\n\n| name | default | allowed | meaning |\n|---|---|---|---|\n{rows}")
    return "\n".join(text)


def _groups() -> dict[str, list[str]]:
    """Return the names of the fields under the comments that head them in the source."""
    groups: dict[str, list[str]] = {}
    for line in inspect.getsource(TrialConfig).splitlines():
        if heading := re.fullmatch(r"    # (\w+)", line):
            groups[heading[1]] = []
        elif (field := re.match(r"    (\w+): ", line)) and field[1] in FIELDS:
            groups[list(groups)[-1]].append(field[1])
    return groups


def _row(spec: FieldSpec) -> str:
    default = json.dumps(spec.default).strip('"')
    other = f" (`--{spec.other_flag}` is a second flag)" if spec.other_flag else ""
    return f"| `{spec.name}` | `{default}` | {spec.allowed()} | {spec.help}{other} |\n"


def test_the_page_is_the_fields_of_the_configuration() -> None:
    assert FILE.read_text() == document(), "run: python tests/core/test_parameters_document.py"


def test_every_field_is_in_one_group() -> None:
    assert sorted(name for names in _groups().values() for name in names) == sorted(FIELDS)


if __name__ == "__main__":
    FILE.write_text(document())
