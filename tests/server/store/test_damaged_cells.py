"""A damaged cell of the database costs its own value: every query, page and post around it goes on."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from damaged_database import ODD, answers, changes, columns, damage, make_template
from in_process_server import InProcessServer

from amc_server.store.records import warn

TABLES = sorted({table for table, _ in columns()})
SHARE = 4  # one column of so many is damaged in a row, so that one value does not hide what another one does


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def expected(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Any]]:
    return told(template, tmp_path_factory.mktemp("expected"), "runs", {})


def told(
    template: Path, folder: Path, table: str, odd: Mapping[int, Mapping[str, Any]]
) -> tuple[dict[str, Any], list[Any]]:
    """Return what everybody is told about the healthy chain while others are damaged."""
    shutil.copy(template, folder)
    damage(folder / "amc.sqlite3", table, odd)
    warn.cache_clear()
    server = InProcessServer(folder)
    with contextlib.closing(server):
        return answers(server), changes(server)


@pytest.mark.parametrize("table", TABLES)
def test_odd_values_in_a_table_harm_nothing_else(
    tmp_path: Path,
    template: Path,
    expected: tuple[dict[str, Any], list[Any]],
    caplog: pytest.LogCaptureFixture,
    table: str,
) -> None:
    names = [column for each, column in columns() if each == table]
    share = min(SHARE, len(names))
    odd = {
        chain: {
            name: ODD[(chain // share * share + place // share) % len(ODD)]
            for place, name in enumerate(names)
            if (place - chain) % share == 0
        }
        for chain in range(len(ODD))
    }
    assert told(template, tmp_path, table, odd) == expected
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
