"""The cache: only new rows are read again, and neither Ctrl-C nor a second process damages it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from test_history import ROWS, same

from amc_analysis.analyse import rank_runs
from amc_analysis.reading import selected_records
from amc_analysis.reading.cache import Cache, cache_folder, cache_path, pack_history, unpack_history
from amc_analysis.reading.options import ReadingOptions
from amc_analysis.reading.public_api import PublicApiSource
from amc_analysis.reading.reader import read, read_offline
from amc_analysis.reading.selected_records import read_records
from amc_analysis.reading.serialisation import run_from_json, run_to_json
from amc_analysis.reading.sources import HistoryPosition, RunUpdate, Selection, SourceReply, SweepMetadata
from amc_analysis.report.wording import warnings
from amc_analysis.runs.history import History
from amc_analysis.runs.records import SweepUnreadableError
from amc_core.command_line import Refusal
from amc_sweeps.backend.options import BackendChoice
from amc_sweeps.grammar.hyperband import BandDecision
from amc_sweeps.runs.records import RunRecord

CONFIG = {"metric": {"name": "acc", "goal": "maximize"}}
SELECTION = Selection("e", "p", "s")


@dataclass
class MemorySource:
    """A source in memory that counts the rows it sends; a test changes its runs."""

    rows: dict[str, list[dict[str, Any]]]
    tokens: dict[str, str] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    breaks_after: int | None = None
    unread: dict[str, str] = field(default_factory=dict)

    def read(self, selection: Selection, positions: Mapping[str, HistoryPosition]) -> SourceReply:
        self.sent = {}
        sweep = SweepMetadata("e", "p", "s", config=CONFIG, state="RUNNING", name="a sweep")
        return SourceReply(sweep, len(self.rows), self._updates(positions))

    def _updates(self, positions: Mapping[str, HistoryPosition]) -> Generator[RunUpdate]:
        for count, (run_id, rows) in enumerate(self.rows.items()):
            if count == self.breaks_after:
                raise KeyboardInterrupt
            position, token = positions.get(run_id), self.tokens.get(run_id, "t")
            is_same = position is not None and position.token == token and position.lines <= len(rows)
            first = position.lines if position is not None and is_same else 0
            self.sent[run_id] = len(rows) - first
            new = History.from_rows(rows[first:])
            run = RunRecord(run_id, run_id, "finished", config={"a": count}, summary={"n": len(rows)})
            if run_id in self.unread:
                yield RunUpdate(replace(run, unread=self.unread[run_id]), HistoryPosition("", 0), History())
                continue
            yield RunUpdate(run, HistoryPosition(token, len(rows)), new, is_whole=first == 0)


def rows(*values: float) -> list[dict[str, Any]]:
    return [{"acc": value, "epoch": epoch} for epoch, value in enumerate(values, start=1)]


def curves(record: Any) -> dict[str, Sequence[float]]:
    return {run.run_id: run.curve for run in record.runs}


@pytest.fixture
def cache(tmp_path: Path) -> Generator[Cache]:
    with Cache(tmp_path / "cache.sqlite3") as opened:
        yield opened


def test_a_second_reading_reads_only_new_rows(cache: Cache) -> None:
    source = MemorySource({"a": rows(0.1, 0.2), "b": rows(0.3)})
    read(source, SELECTION, cache=cache)
    assert source.sent == {"a": 2, "b": 1}
    source.rows["a"] += rows(0.1, 0.2, 0.9)[2:]
    source.rows["c"] = rows(0.5)
    record = read(source, SELECTION, cache=cache)
    assert source.sent == {"a": 1, "b": 0, "c": 1}
    assert curves(record) == {"a": [0.1, 0.2, 0.9], "b": [0.3], "c": [0.5]}
    assert [point.epoch for point in record.runs[0].points] == [1, 2, 3]


def test_a_run_that_started_again_under_its_id_is_read_whole(cache: Cache) -> None:
    source = MemorySource({"a": rows(0.1, 0.2)})
    read(source, SELECTION, cache=cache)
    source.rows["a"], source.tokens["a"] = rows(0.7, 0.8, 0.9), "another"
    assert curves(read(source, SELECTION, cache=cache)) == {"a": [0.7, 0.8, 0.9]}


def test_a_deleted_run_leaves_the_cache(cache: Cache) -> None:
    source = MemorySource({"a": rows(0.1), "b": rows(0.2)})
    read(source, SELECTION, cache=cache)
    del source.rows["a"]
    assert curves(read(source, SELECTION, cache=cache)) == {"b": [0.2]}
    assert cache.positions("e/p").keys() == {"b"}
    assert curves(read_offline([cache], SELECTION)) == {"b": [0.2]}


def test_offline_gives_the_last_reading(cache: Cache) -> None:
    source = MemorySource({"a": rows(0.1), "b": rows(0.2, float("nan"))})
    before = read(source, SELECTION, cache=cache)
    after = read_offline([cache], Selection(sweep_id="s"))
    assert (after.name, after.state, after.read_at) == (before.name, before.state, before.read_at)
    assert curves(after) == curves(before)
    assert [run.config for run in after.runs] == [{"a": 0}, {"a": 1}]
    assert after.runs[1].not_finite == ("acc",)


def test_offline_refuses_a_selection_of_no_reading_or_of_several_places(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(SweepUnreadableError, match="never read"):
        read_offline([cache], SELECTION)
    read(MemorySource({}), SELECTION, cache=cache)
    with Cache(tmp_path / "other.sqlite3") as other:
        read(MemorySource({}), SELECTION, cache=other)
        with pytest.raises(SweepUnreadableError, match="several places"):
            read_offline([cache, other], Selection(sweep_id="s"))


def test_runs_read_before_ctrl_c_stay_in_the_cache(cache: Cache) -> None:
    source = MemorySource({f"r{number}": rows(number / 10) for number in range(6)}, breaks_after=4)
    with pytest.raises(KeyboardInterrupt):
        read(source, SELECTION, cache=cache)
    source.breaks_after = None
    with pytest.raises(SweepUnreadableError, match="never read"):
        read_offline([cache], SELECTION)
    assert len(read(source, Selection(sweep_id="s"), cache=cache).runs) == 6
    assert source.sent == {"r0": 0, "r1": 0, "r2": 0, "r3": 0, "r4": 1, "r5": 1}


def test_a_damaged_history_is_read_again(cache: Cache) -> None:
    source = MemorySource({"a": rows(0.1, 0.2)})
    read(source, SELECTION, cache=cache)
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE runs SET history = substr(history, 1, length(history) - 8)")
    connection.close()
    assert curves(read(source, SELECTION, cache=cache)) == {"a": [0.1, 0.2]}
    assert curves(read_offline([cache], SELECTION)) == {"a": [0.1, 0.2]}


def test_offline_says_which_runs_have_no_history_in_the_cache(cache: Cache) -> None:
    source = MemorySource({"a": rows(0.1), "b": rows(0.2), "c": rows(0.3)})
    source.unread["c"] = "TimeoutError: later"
    read(source, SELECTION, cache=cache)
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE runs SET history = substr(history, 9) WHERE id = 'b'")
    connection.close()
    offline = read_offline([cache], SELECTION)
    unread = {"b": "the cache does not have its history", "c": "TimeoutError: later"}
    assert {run.run_id: run.unread for run in offline.runs} == {"a": None, **unread}
    assert offline.runs[1].state == offline.runs[2].state == "finished"
    with sqlite3.connect(cache.path) as connection:
        connection.execute("DELETE FROM runs WHERE id = 'b'")
    connection.close()
    assert [run.run_id for run in read_offline([cache], SELECTION).runs] == ["a", "b", "c"]
    assert "The history of 2 runs could not be read completely, first b" in " ".join(
        warnings(rank_runs(read_offline([cache], SELECTION)))
    )
    assert "c" not in cache.positions("e/p")
    source.unread.clear()
    assert curves(read(source, SELECTION, cache=cache)) == {"a": [0.1], "b": [0.2], "c": [0.3]}
    source.unread["c"] = "TimeoutError: later"
    read(source, SELECTION, cache=cache)
    assert curves(read_offline([cache], SELECTION))["c"] == [0.3], "a whole history stays"


def options(*, offline: bool = False) -> ReadingOptions:
    return ReadingOptions(("e/p/s",), False, None, None, offline, False, False, (), None, BackendChoice())


@pytest.mark.parametrize("kind", ["full", "damaged"])
def test_a_cache_that_fails_in_use_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    source: Any = MemorySource({"a": rows(0.1, 0.2)})
    source.files = lambda: None
    url = "http://127.0.0.1:9"
    monkeypatch.setattr(selected_records, "connect", lambda _: SimpleNamespace(base_url=url))
    monkeypatch.setattr(selected_records, "ServerSource", lambda *_, **__: source)
    monkeypatch.setattr(selected_records, "cache_folder", lambda: tmp_path)
    read_records(options())
    file, source.rows["a"] = cache_path(url, tmp_path), rows(0.1, 0.2, 0.9)
    if kind == "damaged":
        file.write_bytes(file.read_bytes()[:65536].ljust(file.stat().st_size, b"\xff"))
        with pytest.raises(Refusal, match=r"cannot be read: .*leave --offline out"):
            read_records(options(offline=True))
    else:
        monkeypatch.setattr(Cache, "put", _raise_full)
    (record,), _ = read_records(options())
    assert curves(record) == {"a": [0.1, 0.2, 0.9]}
    assert "everything is read again, because the cache" in capsys.readouterr().err
    assert file.exists() is (kind == "full"), "a damaged file would fail again"


def _raise_full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_a_history_that_another_process_extended_is_not_extended_twice(cache: Cache) -> None:
    source = MemorySource({"a": rows(0.1)})
    read(source, SELECTION, cache=cache)
    source.rows["a"] = rows(0.1, 0.2)
    positions = cache.positions("e/p")
    read(source, SELECTION, cache=cache)  # the other process
    assert cache.history("e/p", "a", positions["a"]) is None


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + bytes(200)])
def test_a_file_that_is_no_cache_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cache.sqlite3"
    path.write_bytes(content)
    with Cache(path) as opened:
        assert opened.positions("e/p") == {}


def test_a_cache_of_another_version_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    with Cache(path) as opened:
        read(MemorySource({"a": rows(0.1)}), SELECTION, cache=opened)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with Cache(path) as opened:
        assert opened.positions("e/p") == {}


def test_every_server_has_its_own_file_readable_only_by_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (cache_path(f"http://127.0.0.1:{port}", tmp_path) for port in (1, 2))
    assert first != second
    assert cache_path("http://127.0.0.1:1/", tmp_path) == first
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/h/.cache/amc-analyze")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/amc-analyze")
    with Cache(first):
        assert first.stat().st_mode & 0o077 == 0


PROCESS = """
import sys
from pathlib import Path
from test_cache import MemorySource, SELECTION, rows
from amc_analysis.reading.cache import Cache
from amc_analysis.reading.reader import read
from amc_analysis.runs.records import history_of
first = int(sys.argv[2])
for turn in range(8):
    with Cache(Path(sys.argv[1])) as cache:
        source = MemorySource({f"r{n}": rows(*(k / 10 for k in range(1 + (n + turn + first) % 5))) for n in range(40)})
        record = read(source, SELECTION, cache=cache)
        lengths = {run.run_id: history_of(run).length for run in record.runs}
        assert lengths == {name: len(logged) for name, logged in source.rows.items()}
"""


def test_two_processes_may_read_at_once(tmp_path: Path) -> None:
    """Each process reads its own source whole, while the other one writes."""
    folders = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
    command = [sys.executable, "-c", folders + PROCESS, str(tmp_path / "cache.sqlite3")]
    processes = [subprocess.Popen([*command, str(first)], stderr=subprocess.PIPE, text=True) for first in (0, 2)]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr


@given(ROWS)
@settings(deadline=None)
def test_any_history_is_unpacked_as_it_was_packed(given_rows: list[dict[str, Any]]) -> None:
    history = History.from_rows(given_rows)
    unpacked = unpack_history(pack_history(history))
    assert unpacked is not None
    assert same(unpacked, history)


def test_a_run_is_read_from_json_as_it_was_written() -> None:
    run = RunRecord(
        "r",
        "name",
        "killed",
        config={"a": [1, {"b": None}]},
        summary={"x": 1},
        exit_code=0,
        stop_recorded=False,
        stop_decision=BandDecision(3, 0.1, 0.2),
        heartbeat_at=datetime(2025, 7, 1, 12, 0, 0, 123456, tzinfo=UTC),
        log_tail="",
        notes="n",
    )
    copy = run_from_json(run_to_json(run), History())
    for name in ("config", "summary", "exit_code", "stop_recorded", "stop_decision", "heartbeat_at", "notes", "state"):
        assert getattr(copy, name) == getattr(run, name), name


# --- the public API, which selects rows by step


@dataclass
class ApiRun:
    """A run of ``wandb.Api`` that counts the scanned rows."""

    rows: list[dict[str, Any]]
    lines: int | None
    id: str = "a"
    state: str = "running"
    name: str = "a"
    sweep_name: str = "s"
    created_at: str = "2025-07-01T12:00:00Z"
    heartbeat_at: str = "2025-07-01T12:30:00Z"
    config: Mapping[str, Any] = field(default_factory=dict)
    summary_metrics: Mapping[str, Any] = field(default_factory=dict)
    rawconfig: Mapping[str, Any] = field(default_factory=dict)
    scanned: list[int] = field(default_factory=list)

    @property
    def _attrs(self) -> dict[str, Any]:
        return {} if self.lines is None else {"historyLineCount": self.lines}

    def scan_history(self, min_step: int = 0) -> list[dict[str, Any]]:
        rows = [row for row in self.rows if row["_step"] >= min_step]
        self.scanned.append(len(rows))
        return rows

    def console_logs(self, last: int) -> list[Any]:
        return []


class Api:
    """The part of ``wandb.Api`` that a reading needs."""

    def __init__(self, run: ApiRun) -> None:
        self._run = run

    def sweep(self, _path: str) -> Any:
        return type("S", (), {"name": "s", "state": "running", "config": CONFIG})()

    def runs(self, _path: str, **_: Any) -> list[ApiRun]:
        return [self._run]


def stepped(*values: float, first: int = 0) -> list[dict[str, Any]]:
    return [{"acc": value, "_step": step} for step, value in enumerate(values, start=first)]


def test_only_the_later_steps_of_a_growing_run_are_scanned(cache: Cache) -> None:
    run = ApiRun(stepped(0.1, 0.2), lines=2)
    read(PublicApiSource(Api(run)), SELECTION, cache=cache)
    read(PublicApiSource(Api(run)), SELECTION, cache=cache)
    run.rows, run.lines = stepped(0.1, 0.2, 0.3), 3
    record = read(PublicApiSource(Api(run)), SELECTION, cache=cache)
    assert run.scanned == [2, 1]
    assert curves(record) == {"a": [0.1, 0.2, 0.3]}


def test_a_run_whose_steps_restarted_is_scanned_whole(cache: Cache) -> None:
    run = ApiRun(stepped(0.1, 0.2), lines=2)
    read(PublicApiSource(Api(run)), SELECTION, cache=cache)
    run.rows, run.lines = [*stepped(0.1, 0.2), *stepped(0.5, 0.6, 0.7)], 5
    assert curves(read(PublicApiSource(Api(run)), SELECTION, cache=cache)) == {"a": [0.1, 0.2, 0.5, 0.6, 0.7]}
    assert run.scanned == [2, 1, 5]


def test_without_row_counts_a_living_run_is_scanned_whole_and_an_ended_run_once(cache: Cache) -> None:
    run = ApiRun(stepped(0.1), lines=None)
    read(PublicApiSource(Api(run)), SELECTION, cache=cache)
    run.rows = stepped(0.1, 0.2)
    assert curves(read(PublicApiSource(Api(run)), SELECTION, cache=cache)) == {"a": [0.1, 0.2]}
    run.state = "finished"
    for _ in range(2):
        assert curves(read(PublicApiSource(Api(run)), SELECTION, cache=cache)) == {"a": [0.1, 0.2]}
    assert run.scanned == [1, 2, 2]
