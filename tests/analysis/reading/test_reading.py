"""Reading runs: all at once or one by one, the same either way; whole histories, rate limits, sweeps and projects."""

from __future__ import annotations

import base64
import json
import math
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from embedded_server import EmbeddedServer
from limiting_proxy import LimitingProxy

from amc_analysis.reading.bulk import BulkSource, NoBulkError, wait_s
from amc_analysis.reading.public_api import PublicApiSource
from amc_analysis.reading.reader import assemble, common_metric, read
from amc_analysis.reading.sources import NotFoundError, Selection, SweepMetadata
from amc_analysis.runs.history import History
from amc_analysis.runs.records import RunWithHistory, SweepUnreadableError, history_of
from amc_sweeps.runs.export_file import Export, write
from amc_sweeps.runs.records import MetricError, RunRecord, SweepRecord

CONFIG = {
    "method": "random",
    "program": "train.py",
    "metric": {"name": "acc", "goal": "maximize"},
    "parameters": {"a": {"min": 0.0, "max": 1.0}},
}
SWEEP = {"id": "abcd1234", "state": "FINISHED", "config": CONFIG, "description": "what people write"}


def exported_run(number: int, **more: Any) -> dict[str, Any]:
    """Return a run with rows of several shapes, and numbers that JSON does not have."""
    rows: list[dict[str, Any]] = [
        {"_step": step, "_timestamp": 1e9 + step, "epoch": step + 1, "acc": number / 10 + step / 1000}
        for step in range(20)
    ]
    rows[3] |= {"deep": {"er": step_loss(number)}, "text": "no number", "acc": math.nan if number == 1 else 0.5}
    rows.append({"_step": 20, "test/acc": 0.25})
    own = {"id": f"run{number}", "sweep": "abcd1234", "state": "finished", "config": {"a": number / 10, "epochs": 20}}
    return {**own, "summary": {"acc": 0.5}, "history": rows, "heartbeat_at": "2025-07-01T13:00:00Z", **more}


def step_loss(number: int) -> float:
    """Return some number."""
    return 1.0 / number


LONG = [{"_step": step, "acc": step / 10_000} for step in range(5_100)]  # more rows than the server sends at a time
RUNS = (
    exported_run(1, exit_code=0, host="gpu-1"),
    exported_run(2, state="killed", stop_recorded=True, stop_reason="hyperband", stop_band=3, stop_value=0.1,
                 stop_threshold=0.2, exit_code=255),
    exported_run(3, state="crashed", history=[]),
    exported_run(4, sweep=None, notes="not of the sweep"),
    exported_run(5, sweep=None, state="failed", exit_code=7, history=LONG),
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A server with runs on it, and the environment that a ``wandb.Api`` wants."""

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
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with EmbeddedServer(tmp_path_factory.mktemp("reading") / "data") as server:
        found = Place(server)
        found.post("/import", write(Export("amc", (SWEEP,), RUNS)).encode())
        yield found


def plain(record: SweepRecord) -> dict[str, Any]:
    """Return a record as values that can be compared, NaN equal to NaN."""
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
        del run["log_tail"]  # the public API's is read only where an end needs explaining
    return content


SELECTIONS = [
    Selection("local", "amc", "abcd1234"),
    Selection("local", "amc"),
    Selection("local", "amc", run_ids=("run5", "run1")),
]


@pytest.mark.client
@pytest.mark.parametrize("wanted", SELECTIONS, ids=["sweep", "project", "runs"])
def test_the_public_api_reads_what_the_bulk_operation_reads(place: Place, wanted: Selection) -> None:
    all_at_once = plain(read(place.bulk(), wanted))
    one_by_one = plain(read(place.public(), wanted))
    if wanted.run_ids is not None:  # W&B orders by creation, whatever the order of the ids
        for content in (all_at_once, one_by_one):
            content["runs"].sort(key=lambda run: run["run_id"])
    assert all_at_once == one_by_one


def test_a_sweep_is_found_by_its_id_alone_and_has_every_row_and_flag(place: Place) -> None:
    record = read(place.bulk(), Selection(sweep_id="abcd1234"))
    assert (record.entity, record.project, record.state, record.description) == (
        "local",
        "amc",
        "FINISHED",
        "what people write",
    )
    first, second, third = record.runs
    assert history_of(first).length == 21
    assert history_of(first).column("deep.er").rows.tolist() == [3]
    assert math.isnan(first.points[3].value)
    assert (second.exit_code, second.stop_reason, second.stop_decision) == (255, "hyperband", second.stop_decision)
    assert second.stop_decision is not None
    assert history_of(third).length == 0


def test_a_project_has_the_runs_of_no_sweep(place: Place) -> None:
    record = read(place.bulk(), Selection("local", "amc"))
    assert [run.run_id for run in record.runs] == ["run4", "run5"]
    assert (record.kind, record.metric.name, record.metric.goal) == ("project", "acc", "maximize")
    assert record.runs[0].notes == "not of the sweep"


@pytest.mark.parametrize(
    "wanted",
    [
        Selection("local", "amc", "nonesuch"),
        Selection("local", "elsewhere", "abcd1234"),
        Selection("other", None, "abcd1234"),
        Selection("local", "nonesuch"),
    ],
)
def test_what_is_not_there_is_not_found(place: Place, wanted: Selection) -> None:
    with pytest.raises(NotFoundError):
        read(place.bulk(), wanted)


def test_a_wrong_key_is_said_so(place: Place) -> None:
    with pytest.raises(SweepUnreadableError, match="401"):
        read(BulkSource(place.server.base_url, "amc-" + "0" * 40), SELECTIONS[0])


def test_progress_is_told_run_by_run(place: Place) -> None:
    told: list[tuple[int, int]] = []
    read(place.bulk(), SELECTIONS[0], progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_server_without_the_operation_is_told_from_one_that_fails(tmp_path: Path) -> None:
    import http.server
    import threading

    class Older(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Older) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(NoBulkError):
            read(BulkSource(f"http://127.0.0.1:{server.server_port}", "key"), SELECTIONS[0])
        thread.join()


# --- rate limits


def test_the_bulk_request_comes_again_when_a_busy_server_says_so(place: Place) -> None:
    slept: list[float] = []
    with LimitingProxy(place.server.base_url, lambda path, _: path == "/bulk", retry_after="7") as proxy:
        source = BulkSource(proxy.base_url, place.server.key, sleep=slept.append)
        assert len(read(source, SELECTIONS[0]).runs) == 3
    assert slept == [7.0]


@pytest.mark.client
def test_the_public_api_waits_as_long_as_retry_after_says_and_loses_nothing(place: Place) -> None:
    with LimitingProxy(place.server.base_url, lambda _, body: b"istory" in body, retry_after="3") as proxy:
        limited = read(place.public(proxy.base_url), SELECTIONS[0])
    assert len(proxy.refused) >= 2
    assert min(proxy.waits_s()) >= 3.0
    assert [run["history"] for run in plain(limited)["runs"]] == [
        run["history"] for run in plain(read(place.bulk(), SELECTIONS[0]))["runs"]
    ]


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
def test_a_wait_is_what_the_server_says_else_longer_and_longer(
    header: str | None, attempt: int, seconds: float
) -> None:
    now = datetime(2015, 10, 21, 7, 27, tzinfo=UTC).timestamp()
    assert wait_s(header, attempt, now) == seconds


# --- what runs without a sweep are ranked by


def logging(**columns: float) -> RunRecord:
    """Return a run that logged these once."""
    return RunWithHistory("r", "r", "finished", history=History.from_rows([columns]))


def test_runs_of_no_sweep_are_ranked_by_what_they_log_in_common() -> None:
    ours = logging(**{"val/combined_acc": 0.5, "val/loss": 1.0})
    assert common_metric([ours]).name == "val/combined_acc"
    foreign = logging(**{"loss": 1.0, "val_acc": 0.5, "test_acc": 0.9, "_step": 1.0})
    assert common_metric([foreign, logging(**{"val_acc": 0.4, "valid/f1": 0.1})]).name == "val_acc"
    falling = common_metric([logging(**{"eval/loss": 0.3, "lr": 0.1})])
    assert (falling.name, falling.goal) == ("eval/loss", "minimize")


def test_a_metric_or_goal_that_cannot_be_told_is_asked_for() -> None:
    with pytest.raises(MetricError, match=r"give --metric NAME .* logged: loss"):
        common_metric([logging(**{"loss": 1.0, "test/acc": 0.5})])
    with pytest.raises(MetricError, match="give --goal"):
        common_metric([], "throughput")
    assert common_metric([], "throughput", "maximize").goal == "maximize"


# --- servers that tell less than all


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

    def scan_history(self) -> Iterator[dict[str, Any]]:
        if self.broken:
            raise RuntimeError("HTTP 500")
        return iter(self.rows)

    def console_logs(self, last: int) -> list[FakeLine]:
        return [FakeLine("MemoryError\n")][:last]


class FakeSweep:
    name = "a sweep"
    state = "running"
    config: Mapping[str, Any] = {"metric": {"name": "acc", "goal": "maximize"}}


class FakeApi:
    """A server that tells no flags: the bulk operation of the client fails on it."""

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
    """Read what such a server has."""
    return read(PublicApiSource(FakeApi(*runs)), FAKE)


def test_without_the_bulk_operation_flags_are_unknown_and_the_rest_stands() -> None:
    found = read_fake(FakeRun("a", [{"acc": 0.5}]))
    (run,) = found.runs
    assert (run.exit_code, run.stop_recorded) == (None, None)
    assert run.curve == [0.5]
    assert found.state == "RUNNING"


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


def test_runs_keep_their_order_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    api = FakeApi(*(FakeRun(f"r{i}") for i in range(20)))
    found = read(PublicApiSource(api), FAKE, progress=lambda done, total: told.append((done, total)))
    assert [run.run_id for run in found.runs] == [f"r{i}" for i in range(20)]
    assert told[-1] == (20, 20)


def test_one_unreadable_history_does_not_hide_the_other_runs() -> None:
    found = read_fake(FakeRun("bad", broken=True), FakeRun("good", [{"acc": 0.5}]))
    assert [run.unread for run in found.runs] == ["RuntimeError: HTTP 500", None]
    assert found.runs[1].curve == [0.5]


def test_logs_are_read_only_where_an_end_needs_explaining() -> None:
    crashed, said, fine = (
        FakeRun("crashed", state="crashed"),
        FakeRun("said", state="crashed", summary_metrics={"end_reason": "diverged"}),
        FakeRun("fine"),
    )
    found = read_fake(crashed, said, fine)
    assert [run.log_tail for run in found.runs] == ["MemoryError", None, None]


def test_the_host_is_where_the_client_leaves_it() -> None:
    nowhere = FakeRun("b", rawconfig={})
    assert [run.host for run in read_fake(FakeRun("a"), nowhere).runs] == ["gpu-3", None]


def test_a_sweep_that_is_not_there_is_said_so() -> None:
    with pytest.raises(NotFoundError):
        read(PublicApiSource(FakeApi()), Selection("e", "p", "other"))
