"""Reading runs by the bulk operation and by the public API: same records, whole histories, rate limits, projects."""

from __future__ import annotations

import base64
import json
import math
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from embedded_server import EmbeddedServer
from limiting_proxy import LimitingProxy

from amc_analysis.analyse import rank_runs
from amc_analysis.reading.cache import Cache
from amc_analysis.reading.public_api import PublicApiSource
from amc_analysis.reading.reader import assemble, common_metric, read
from amc_analysis.reading.sources import NotFoundError, Selection, SweepMetadata
from amc_analysis.reading.whole_histories import BulkSource, NoBulkError
from amc_analysis.report.wording import warnings
from amc_analysis.runs.history import History
from amc_analysis.runs.records import RunWithHistory, SweepUnreadableError, history_of
from amc_sweeps.backend.patience import wait_s
from amc_sweeps.grammar.hyperband import BandDecision
from amc_sweeps.runs.export_file import Export, write
from amc_sweeps.runs.records import MetricError, RunRecord, SweepRecord

CONFIG = {
    "method": "random",
    "program": "train.py",
    "metric": {"name": "acc", "goal": "maximize"},
    "parameters": {"a": {"min": 0.0, "max": 1.0}},
}
SWEEP = {"id": "abcd1234", "state": "FINISHED", "config": CONFIG, "description": "a description"}


def exported_run(number: int, **more: Any) -> dict[str, Any]:
    """Return a run of an export file; its rows hold different metrics, a text and NaN."""
    rows: list[dict[str, Any]] = [
        {"_step": step, "_timestamp": 1e9 + step, "epoch": step + 1, "acc": number / 10 + step / 1000}
        for step in range(20)
    ]
    rows[3] |= {"deep": {"er": 1.0 / number}, "text": "no number", "acc": math.nan if number == 1 else 0.5}
    rows.append({"_step": 20, "test/acc": 0.25})
    run = {"id": f"run{number}", "sweep": "abcd1234", "state": "finished", "config": {"a": number / 10, "epochs": 20}}
    return {**run, "summary": {"acc": 0.5}, "history": rows, "heartbeat_at": "2025-07-01T13:00:00Z", **more}


LONG = [{"_step": step, "acc": step / 10_000} for step in range(5_100)]  # more rows than the server sends in one array
RUNS = (
    exported_run(1, exit_code=0, host="gpu-1"),
    exported_run(2, state="killed", stop_recorded=True, stop_reason="hyperband", stop_band=3, stop_value=0.1,
                 stop_threshold=0.2, exit_code=255),
    exported_run(3, state="crashed", history=[]),
    exported_run(4, sweep=None, notes="a note"),
    exported_run(5, sweep=None, state="failed", exit_code=7, history=LONG),
)  # fmt: skip


@dataclass(frozen=True)
class ServerWithRuns:
    """A server, and the sources that read it."""

    server: EmbeddedServer

    def bulk(self, base_url: str | None = None) -> BulkSource:
        return BulkSource(base_url or self.server.base_url, self.server.key)

    def public(self, base_url: str | None = None) -> PublicApiSource:
        import wandb

        return PublicApiSource(
            wandb.Api(overrides={"base_url": base_url or self.server.base_url}, api_key=self.server.key)
        )

    def post(self, path: str, body: bytes) -> bytes:
        credentials = base64.b64encode(f"api:{self.server.key}".encode()).decode()
        request = urllib.request.Request(
            f"{self.server.base_url}{path}", body, {"Authorization": f"Basic {credentials}"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return bytes(reply.read())

    def log(self, run: str, first: int, *rows: Mapping[str, Any]) -> None:
        """Add rows to a run as its trial would."""
        content = [json.dumps(row) for row in rows]
        body = json.dumps({"files": {"wandb-history.jsonl": {"offset": first, "content": content}}})
        self.post(f"/files/local/amc/{run}/file_stream", body.encode())


@pytest.fixture(scope="module")
def runs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerWithRuns]:
    with EmbeddedServer(tmp_path_factory.mktemp("reading") / "data") as server:
        filled = ServerWithRuns(server)
        filled.post("/import", write(Export("amc", (SWEEP,), RUNS)).encode())
        yield filled


def plain(record: SweepRecord) -> dict[str, Any]:
    """Return a record as values that can be compared; NaN equals NaN."""
    content = {
        **vars(replace(record, read_at=datetime(2025, 1, 1, tzinfo=UTC), url=None)),
        "runs": [
            {
                **vars(replace(run, history=History(), points=())),
                "points": [repr(point) for point in run.points],
                "history": {
                    name: (column.rows.tolist(), [repr(value) for value in column.values.tolist()])
                    for name, column in sorted(history_of(run).columns.items())
                },
                "length": history_of(run).length,
            }
            for run in record.runs
        ],
    }
    for run in content["runs"]:
        del run["log_tail"]  # the public API reads it only for runs whose end is unclear
    return content


SELECTIONS = [
    Selection("local", "amc", "abcd1234"),
    Selection("local", "amc"),
    Selection("local", "amc", run_ids=("run5", "run1")),
]


@pytest.mark.client
@pytest.mark.parametrize("selection", SELECTIONS, ids=["sweep", "project", "runs"])
def test_the_public_api_and_the_bulk_operation_give_the_same_record(
    runs_server: ServerWithRuns, selection: Selection
) -> None:
    by_bulk = plain(read(runs_server.bulk(), selection))
    by_public_api = plain(read(runs_server.public(), selection))
    if selection.run_ids is not None:  # W&B orders by creation, whatever the order of the ids
        for content in (by_bulk, by_public_api):
            content["runs"].sort(key=lambda run: run["run_id"])
    assert by_bulk == by_public_api


def test_a_sweep_is_found_by_its_id_alone_and_has_every_row_and_flag(runs_server: ServerWithRuns) -> None:
    record = read(runs_server.bulk(), Selection(sweep_id="abcd1234"))
    assert (record.entity, record.project, record.state, record.description) == (
        "local",
        "amc",
        "FINISHED",
        "a description",
    )
    first, second, third = record.runs
    assert history_of(first).length == 21
    assert history_of(first).column("deep.er").rows.tolist() == [3]
    assert math.isnan(first.points[3].value)
    assert (second.exit_code, second.stop_reason) == (255, "hyperband")
    assert second.stop_decision == BandDecision(3, 0.1, 0.2)
    assert history_of(third).length == 0


def test_a_project_has_the_runs_without_a_sweep(runs_server: ServerWithRuns) -> None:
    record = read(runs_server.bulk(), Selection("local", "amc"))
    assert [run.run_id for run in record.runs] == ["run4", "run5"]
    assert (record.kind, record.metric.name, record.metric.goal) == ("project", "acc", "maximize")
    assert record.runs[0].notes == "a note"


@pytest.mark.parametrize(
    "selection",
    [
        Selection("local", "amc", "nonesuch"),
        Selection("local", "elsewhere", "abcd1234"),
        Selection("other", None, "abcd1234"),
        Selection("local", "nonesuch"),
    ],
)
def test_a_missing_sweep_or_project_is_not_found(runs_server: ServerWithRuns, selection: Selection) -> None:
    with pytest.raises(NotFoundError):
        read(runs_server.bulk(), selection)


def test_a_wrong_key_is_an_error_with_its_status_code(runs_server: ServerWithRuns) -> None:
    with pytest.raises(SweepUnreadableError, match="401"):
        read(BulkSource(runs_server.server.base_url, "amc-" + "0" * 40), SELECTIONS[0])


def test_progress_is_reported_after_every_run(runs_server: ServerWithRuns) -> None:
    reports: list[tuple[int, int]] = []
    read(runs_server.bulk(), SELECTIONS[0], progress=lambda done, total: reports.append((done, total)))
    assert reports == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_server_without_the_bulk_operation_raises_its_own_error(tmp_path: Path) -> None:
    import http.server
    import threading

    class WithoutBulk(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), WithoutBulk) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(NoBulkError):
            read(BulkSource(f"http://127.0.0.1:{server.server_port}", "key"), SELECTIONS[0])
        thread.join()


# --- rate limits


def test_the_bulk_request_is_repeated_when_the_busy_server_says(runs_server: ServerWithRuns) -> None:
    waits_s: list[float] = []
    with LimitingProxy(runs_server.server.base_url, lambda path, _: path == "/bulk", retry_after="7") as proxy:
        source = BulkSource(proxy.base_url, runs_server.server.key, sleep=waits_s.append)
        assert len(read(source, SELECTIONS[0]).runs) == 3
    assert waits_s == [7.0]


@pytest.mark.client
def test_the_public_api_waits_for_retry_after_and_reads_every_row(runs_server: ServerWithRuns) -> None:
    with LimitingProxy(runs_server.server.base_url, lambda _, body: b"istory" in body, retry_after="3") as proxy:
        limited = read(runs_server.public(proxy.base_url), SELECTIONS[0])
    assert len(proxy.refused) >= 2
    assert min(proxy.waits_s()) >= 3.0
    assert [run["history"] for run in plain(limited)["runs"]] == [
        run["history"] for run in plain(read(runs_server.bulk(), SELECTIONS[0]))["runs"]
    ]


def shortened(answers: int) -> Callable[[str, bytes, bytes], bytes]:
    """Return a change that takes half of the rows, without an error, from so many answers about histories."""
    left = [answers]

    def change(_path: str, _body: bytes, reply: bytes) -> bytes:
        node = json.loads(reply) if b'"history":' in reply else {}
        run = (((node.get("data") or {}).get("project") or {}).get("run") or {}) if isinstance(node, dict) else {}
        if not run.get("history") or not left[0]:
            return reply
        left[0] -= 1
        run["history"] = run["history"][: len(run["history"]) // 2]
        return json.dumps(node).encode()

    return change


@pytest.mark.client
def test_a_short_answer_to_the_real_client_is_read_again_or_said_and_not_cached(
    runs_server: ServerWithRuns, tmp_path: Path
) -> None:
    selection = Selection("local", "amc", run_ids=("run1",))
    whole = plain(read(runs_server.bulk(), selection))
    base_url = runs_server.server.base_url
    with LimitingProxy(base_url, lambda _path, _body: False, changes_reply=shortened(1)) as proxy:
        assert plain(read(runs_server.public(proxy.base_url), selection)) == whole
    with (
        LimitingProxy(base_url, lambda _path, _body: False, changes_reply=shortened(99)) as proxy,
        Cache(tmp_path / "cache.sqlite3") as cache,
    ):
        (short,) = read(runs_server.public(proxy.base_url), selection, cache=cache).runs
        assert (short.unread, len(short.points)) == ("only 10 of 21 rows came", 10)
        assert cache.positions("local/amc") == {}
        assert plain(read(runs_server.public(), selection, cache=cache)) == whole


@pytest.mark.parametrize(
    ("header", "attempt", "seconds"),
    [
        (None, 0, 1.0),
        (None, 3, 8.0),
        (None, 30, 60.0),
        ("12", 0, 12.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 60.0),
        ("soon", 1, 2.0),
    ],
)
def test_the_wait_is_the_servers_else_it_doubles(header: str | None, attempt: int, seconds: float) -> None:
    now = datetime(2015, 10, 21, 7, 27, tzinfo=UTC).timestamp()
    assert wait_s(header, attempt, now) == seconds


# --- the metric of runs without a sweep


def logging(**columns: float) -> RunRecord:
    """Return a run with one row."""
    return RunWithHistory("r", "r", "finished", history=History.from_rows([columns]))


def test_runs_without_a_sweep_are_ranked_by_a_metric_that_they_log() -> None:
    ours = logging(**{"val/combined_acc": 0.5, "val/loss": 1.0})
    assert common_metric([ours]).name == "val/combined_acc"
    foreign = logging(**{"loss": 1.0, "val_acc": 0.5, "test_acc": 0.9, "_step": 1.0})
    assert common_metric([foreign, logging(**{"val_acc": 0.4, "valid/f1": 0.1})]).name == "val_acc"
    falling = common_metric([logging(**{"eval/loss": 0.3, "lr": 0.1})])
    assert (falling.name, falling.goal) == ("eval/loss", "minimize")


def test_without_a_fit_metric_or_a_clear_goal_the_error_asks_for_it() -> None:
    with pytest.raises(MetricError, match=r"give --metric NAME .* logged: loss"):
        common_metric([logging(**{"loss": 1.0, "test/acc": 0.5})])
    with pytest.raises(MetricError, match="give --goal"):
        common_metric([], "throughput")
    assert common_metric([], "throughput", "maximize").goal == "maximize"


# --- servers without flags


@dataclass
class FakeLine:
    content: str


@dataclass
class FakeRun:
    """A run as ``wandb.Api`` gives it."""

    id: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    state: str = "finished"
    name: str = "a-name"
    config: dict[str, Any] = field(default_factory=dict)
    summary_metrics: dict[str, Any] = field(default_factory=dict)
    created_at: str = "2025-07-01T12:00:00Z"
    heartbeat_at: str = "2025-07-01T12:30:00Z"
    rawconfig: dict[str, Any] = field(default_factory=lambda: {"_wandb": {"e": {"0": {"host": "gpu-3"}}}})
    broken: bool = False
    answered: list[int] = field(default_factory=list)  # rows of the first answers, the later ones have all
    _attrs: dict[str, Any] = field(default_factory=dict)

    def scan_history(self) -> Iterator[dict[str, Any]]:
        if self.broken:
            raise RuntimeError("HTTP 500")
        return iter(self.rows[: self.answered.pop(0)] if self.answered else self.rows)

    def console_logs(self, last: int) -> list[FakeLine]:
        return [FakeLine("MemoryError\n")][:last]


class FakeSweep:
    name = "a sweep"
    state = "running"
    config: Mapping[str, Any] = {"metric": {"name": "acc", "goal": "maximize"}}


class FakeApi:
    """A server without flags: it answers no query of its own."""

    def __init__(self, *runs: FakeRun) -> None:
        self._runs = runs

    def sweep(self, path: str) -> FakeSweep:
        if path != "e/p/s":
            raise ValueError(f"Could not find sweep {path}")
        return FakeSweep()

    def runs(self, _path: str, **_: Any) -> list[FakeRun]:
        return list(self._runs)


FAKE = Selection("e", "p", "s")


def read_fake(*runs: FakeRun) -> SweepRecord:
    """Read the runs of such a server."""
    return read(PublicApiSource(FakeApi(*runs)), FAKE)


def test_without_an_answer_flags_are_unknown_and_the_rest_is_read() -> None:
    record = read_fake(FakeRun("a", [{"acc": 0.5}]))
    (run,) = record.runs
    assert (run.exit_code, run.stop_recorded) == (None, None)
    assert run.curve == [0.5]
    assert record.state == "RUNNING"


def test_the_old_and_the_current_word_of_a_setting_are_one_value() -> None:
    config = {**FakeSweep.config, "parameters": {"snr_loss_scale": {"values": ["unit", "runlog"]}}}
    runs = read_fake(
        FakeRun("a", config={"snr_loss_scale": "runlog"}), FakeRun("b", config={"snr_loss_scale": "levels"})
    )
    sweep = assemble(
        SweepMetadata("e", "p", "s", config=config), runs.runs, FAKE, metric=None, goal=None, read_at=datetime.now(UTC)
    )
    assert [run.config["snr_loss_scale"] for run in sweep.runs] == ["levels", "levels"]
    assert sweep.config["parameters"]["snr_loss_scale"] == {"values": ["unit", "levels"]}


def test_runs_keep_their_order_and_progress_is_reported() -> None:
    reports: list[tuple[int, int]] = []
    api = FakeApi(*(FakeRun(f"r{i}") for i in range(20)))
    record = read(PublicApiSource(api), FAKE, progress=lambda done, total: reports.append((done, total)))
    assert [run.run_id for run in record.runs] == [f"r{i}" for i in range(20)]
    assert reports[-1] == (20, 20)


def test_one_unreadable_history_does_not_hide_the_other_runs() -> None:
    record = read_fake(FakeRun("bad", broken=True), FakeRun("good", [{"acc": 0.5}]))
    assert [run.unread for run in record.runs] == ["RuntimeError: HTTP 500", None]
    assert record.runs[1].curve == [0.5]


FIFTY = [{"_step": step, "acc": step / 100} for step in range(50)]
COUNTS = [{"historyLineCount": 50}, {"historyKeys": {"lastStep": 49}}]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("came", [0, 30])
def test_a_short_answer_is_asked_for_again(counts: dict[str, Any], came: int) -> None:
    waits_s: list[float] = []
    short = FakeRun("a", FIFTY, answered=[came, came], _attrs=counts)
    (run,) = read(PublicApiSource(FakeApi(short), sleep=waits_s.append), FAKE).runs
    assert (len(run.points), run.unread, waits_s) == (50, None, [0.5, 1.0])


@pytest.mark.parametrize("counts", COUNTS)
def test_an_answer_that_stays_short_is_said_and_not_cached(tmp_path: Path, counts: dict[str, Any]) -> None:
    short = FakeRun("a", FIFTY, answered=[30, 0, 30], _attrs=counts)
    source = PublicApiSource(FakeApi(short), sleep=lambda _s: None)
    with Cache(tmp_path / "cache.sqlite3") as cache:
        record = read(source, FAKE, cache=cache)
        assert len(record.runs[0].points) == 30
        assert record.runs[0].unread in {"only 30 of 50 rows came", "its rows end before its last step, 49"}
        (warning, *_) = warnings(rank_runs(record))
        assert warning.startswith("The history of 1 run could not be read completely, first a-name (a): ")
        assert cache.positions("e/p") == {}
        assert len(read(source, FAKE, cache=cache).runs[0].points) == 50


def test_lines_of_one_step_and_a_count_that_grew_are_whole_answers() -> None:
    twice = FakeRun("twice", FIFTY, _attrs={"historyLineCount": 60, "historyKeys": {"lastStep": 49}})
    grown = FakeRun("grown", FIFTY, _attrs={"historyLineCount": 40, "historyKeys": {"lastStep": 39}})
    assert [run.unread for run in read_fake(twice, grown).runs] == [None, None]


def test_a_list_that_lacks_runs_is_asked_for_again_and_then_refused() -> None:
    class ShortList(list[FakeRun]):
        def __len__(self) -> int:
            return 5

    class ShortApi(FakeApi):
        def __init__(self, *short: int) -> None:
            super().__init__(*(FakeRun(f"r{number}") for number in range(5)))
            self.short = list(short)

        def runs(self, _path: str, **_: Any) -> list[FakeRun]:
            return ShortList(self._runs[: self.short.pop(0) if self.short else None])

    waits_s: list[float] = []
    assert len(read(PublicApiSource(ShortApi(3, 0), sleep=waits_s.append), FAKE).runs) == 5
    assert waits_s == [0.5, 1.0]
    with pytest.raises(SweepUnreadableError, match="only 3 of the 5 runs of e/p/s came"):
        read(PublicApiSource(ShortApi(3, 3, 3), sleep=waits_s.append), FAKE)


def test_logs_are_read_only_for_runs_whose_end_is_unclear() -> None:
    record = read_fake(
        FakeRun("crashed", state="crashed"),
        FakeRun("diverged", state="crashed", summary_metrics={"end_reason": "diverged"}),
        FakeRun("finished"),
    )
    assert [run.log_tail for run in record.runs] == ["MemoryError", None, None]


def test_the_host_is_read_from_the_raw_configuration() -> None:
    without_host = FakeRun("b", rawconfig={})
    assert [run.host for run in read_fake(FakeRun("a"), without_host).runs] == ["gpu-3", None]


def test_a_missing_sweep_is_not_found_through_the_public_api() -> None:
    with pytest.raises(NotFoundError):
        read(PublicApiSource(FakeApi()), Selection("e", "p", "other"))
