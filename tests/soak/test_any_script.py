"""docs/any-script.md runs as it is written. Its plain agent waits for up to five seconds after each trial."""

from __future__ import annotations

from pathlib import Path

from executed_pages import check_page


def test_the_page_about_any_program_runs_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_page("any-script.md", tmp_path / "empty")
