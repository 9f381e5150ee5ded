"""Every odd value in every column of the database, one column at a time: nothing that others are told changes."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

import pytest
from damaged_database import ODD, answers, changes, columns, damage, make_template
from in_process_server import InProcessServer
from results_file import keep


@pytest.mark.timeout(3000)
def test_every_odd_value_in_every_column_harms_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begin, template, expected = time.monotonic(), make_template(tmp_path), None
    for number, (table, column) in enumerate([("", ""), *columns()]):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(template, folder)
        if table:
            damage(folder / "amc.sqlite3", table, {chain: {column: odd} for chain, odd in enumerate(ODD)})
        server = InProcessServer(folder)
        with contextlib.closing(server):
            told = answers(server), changes(server)
        expected = expected or told
        assert told == expected, f"{table}.{column}"
        assert [record for record in caplog.records if record.levelname == "ERROR"] == [], f"{table}.{column}"
        shutil.rmtree(folder)
    keep(
        "damaged_cells",
        full=True,
        figures={
            "columns": len(columns()),
            "odd values in each": len(ODD),
            "answers of 5xx, exceptions, answers about other runs that changed": 0,
            "minutes": (time.monotonic() - begin) / 60,
        },
    )
