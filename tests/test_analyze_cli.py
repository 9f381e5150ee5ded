"""amc-analyze as a command: what it refuses, what it imports, and what it says of a real sweep."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from amc_analysis.cli import main
from amc_analysis.tables import RUN_FIELDS


def test_help_is_free_of_heavy_imports() -> None:
    program = (
        "import sys\nfrom amc_analysis.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'wandb', 'pandas', 'timm', 'optuna'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_help_documents_every_field_of_the_tables() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    for name, meaning in RUN_FIELDS.items():
        assert name in shown
        assert meaning in shown
    assert "Examples:" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing argument 'SWEEP'"),
        (["94fqx0gz", "--json", "--csv", "-"], "both print to standard output"),
        (["94fqx0gz", "--top", "-1"], "0 for all"),
        (["94fqx0gz", "--goal", "upwards"], "'upwards' is not one of 'maximize', 'minimize'"),
        (["94fqx0gz", "--html", "no/such/folder/a.html"], "its folder does not exist"),
        (["94fqx0gz", "--markdown", "."], "it is a folder"),
        (["a/b/c/d"], "does not name a sweep"),
        (["94fqx0gz"], "no W&B to talk to"),
    ],
)
def test_what_cannot_be_used_is_refused_with_code_2(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert says in result.output
