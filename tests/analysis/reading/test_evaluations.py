"""Confusion matrices of runs of other machines: uploaded by the trial, read for the page, cached."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from client_scenarios import wait_until
from embedded_server import EmbeddedServer
from limiting_proxy import LimitingProxy
from plain_wandb import KEY, PlainWandb
from preempted_trials import SMALL, Machine, run_of, signal_all
from sweep_records import run, sweep
from tiny_files import synthetic_file

from amc_agents.trial.evaluations import RUNNING_BEST, BestEvaluation, best_epoch, is_better
from amc_analysis.analyse import rank_runs
from amc_analysis.reading.cache import Cache
from amc_analysis.reading.evaluations import cached_confusions, fetch_confusions
from amc_analysis.reading.public_api import PublicApiSource
from amc_analysis.reading.sources import MAX_FILE_BYTES, FileSource
from amc_analysis.reading.whole_histories import BulkSource
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.runs.confusion import MAX_RUNS, Confusion, confusion_of, read_confusions
from amc_core.training.evaluation_files import BEST_FILE, epoch_file
from amc_sweeps.runs.export_file import Export, write
from amc_sweeps.runs.records import SweepRecord

PEAK = "val/combined_acc"


def evaluation(epoch: Any, **more: Any) -> dict[str, Any]:
    """Return the part of a trial's evaluation that is read."""
    content = {"epoch": epoch, "modulations": ["BPSK", "QPSK"], "modulation_confusion": [[9, 1], [3, 7]]}
    return {**content, "snr_levels_db": [0, 10], "snr_confusion": [[5, 5], [0, 10]], **more}


def ranked_sweep(*runs: Any) -> AnalysedSweep:
    return rank_runs(
        replace(sweep(*runs, config={"metric": {"name": PEAK, "goal": "maximize"}}), entity="e", project="p")
    )


# --- the content of a file


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(evaluation(None)).encode(),
        json.dumps(evaluation(float("inf"))).encode(),
        json.dumps(evaluation(1, snr_confusion=[[1, 2]])).encode(),
        json.dumps(evaluation(1, snr_confusion=[[1, 2], [float("inf"), 4]])).encode(),
        json.dumps(evaluation(1, snr_confusion=[[1, 2], [-3, 4]])).encode(),
        json.dumps(evaluation(1, snr_confusion=[["many"] * 2] * 2)).encode(),
        json.dumps(evaluation(1, snr_levels_db=[0] * 101, snr_confusion=[[1] * 101] * 101)).encode(),
    ],
)
def test_a_file_that_is_no_evaluation_gives_no_confusion_and_no_error(text: bytes) -> None:
    assert confusion_of("a", text) is None


def test_only_the_best_runs_without_a_local_file_are_fetched(tmp_path: Path) -> None:
    analysed = ranked_sweep(*(run(f"r{n}", [0.9 - n / 100]) for n in range(MAX_RUNS + 2)))
    local_file = tmp_path / "r1" / epoch_file(1)
    local_file.parent.mkdir(parents=True)
    local_file.write_text(json.dumps(evaluation(1)))
    fetched: list[str] = []

    def fetch(_record: SweepRecord, missing: Sequence[Any]) -> dict[str, Confusion]:
        fetched.extend(entry.run.run_id for entry in missing)
        confusion = confusion_of("r4", json.dumps(evaluation(7)).encode())
        assert confusion is not None
        return {"r4": confusion}

    confusions = read_confusions(tmp_path, analysed.record, analysed.ranked, fetch)
    assert fetched == ["r0", "r2", "r3", "r4", "r5"]
    assert [(confusion.run_id, confusion.epoch) for confusion in confusions] == [("r1", 1), ("r4", 7)]


# --- from a server: real files of runs


class RunFiles:
    """An embedded server with a project; its runs get files."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        runs = [{"id": name, "state": "crashed", "history": [{"epoch": 1, PEAK: 0.5}]} for name in ("a", "b", "c", "d")]
        self._post("/import", write(Export("amc", (), tuple(runs))).encode())

    def put(self, run_id: str, name: str, content: bytes) -> None:
        document = """mutation C($run: String!, $name: String!) { createRunFiles(input: {
            entityName: "local", projectName: "amc", runName: $run, files: [$name]}) { files { uploadUrl } } }"""
        url = self.server.graphql(document, run=run_id, name=name)["createRunFiles"]["files"][0]["uploadUrl"]
        with urllib.request.urlopen(urllib.request.Request(url, content, method="PUT"), timeout=30):
            pass

    def _post(self, path: str, body: bytes) -> None:
        key = base64.b64encode(f"api:{self.server.key}".encode()).decode()
        request = urllib.request.Request(f"{self.server.base_url}{path}", body, {"Authorization": f"Basic {key}"})
        with urllib.request.urlopen(request, timeout=30):
            pass


@pytest.fixture(scope="module")
def run_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFiles]:
    with EmbeddedServer(tmp_path_factory.mktemp("files") / "data") as server:
        uploaded = RunFiles(server)
        uploaded.put("a", BEST_FILE, b"best of a")
        uploaded.put("b", BEST_FILE, b"best of b")
        uploaded.put("b", epoch_file(3), b"epoch 3 of b")
        uploaded.put("c", BEST_FILE, bytes(MAX_FILE_BYTES + 1))
        yield uploaded


def read_all(source: FileSource) -> list[bytes | None]:
    with ThreadPoolExecutor() as pool:
        names = (epoch_file(3), BEST_FILE)
        return list(pool.map(lambda run_id: source.file("local/amc", run_id, names), ("a", "b", "c", "d")))


EXPECTED = [b"best of a", b"epoch 3 of b", None, None]


def test_a_request_to_the_busy_embedded_server_is_repeated(run_files: RunFiles) -> None:
    waits_s: list[float] = []
    with LimitingProxy(run_files.server.base_url, lambda path, _: path.endswith(BEST_FILE), retry_after="7") as proxy:
        assert read_all(BulkSource(proxy.base_url, run_files.server.key, sleep=waits_s.append)) == EXPECTED
    assert waits_s == [7.0] * 3


@pytest.mark.compatibility("confusion matrices")
@pytest.mark.client
def test_files_of_a_plain_wandb_come_through_the_clients_own_api(run_files: RunFiles) -> None:
    import wandb

    with PlainWandb(run_files.server) as plain:
        limited = LimitingProxy(plain.base_url, lambda _, body: b"RunFiles" in body)
        with limited as proxy:
            api = wandb.Api(overrides={"base_url": proxy.base_url}, api_key=KEY)
            assert read_all(PublicApiSource(api)) == EXPECTED
    assert len(limited.refused) == 4
    assert min(limited.waits_s()) >= 1.0
    assert plain.refused == []


@pytest.mark.client
def test_the_page_shows_the_confusion_of_a_killed_trial_of_another_machine(tmp_path: Path, run_files: RunFiles) -> None:
    data = synthetic_file(tmp_path, levels_db=(0, 10, 20), frames_per_cell=5)
    machine = Machine("gpu-1", tmp_path, run_files.server, data)
    trial = machine.train("gem", {**SMALL, "epochs": 1000, "epochs_per_cycle": 1000, "patience": "null"})
    source = BulkSource(run_files.server.base_url, run_files.server.key)
    wait_until(lambda: run_of(run_files.server, "gem")["history"], "a row arrives")
    wait_until(lambda: source.file("local/demo", "gem", [BEST_FILE]), "the best evaluation arrives")
    signal_all(trial, signal.SIGKILL)
    assert trial.wait(timeout=30) == -signal.SIGKILL

    page = tmp_path / "page.html"
    entry = "from amc_analysis.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", entry, "--runs", "demo/gem", "--html", page],
        env={**EmbeddedServer.process_environment(), **run_files.server.environment()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "reading the evaluations of 1 run\n" in ended.stderr
    (embedded,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    (confusion,) = json.loads(embedded)["confusions"]
    uploaded = json.loads(source.file("local/demo", "gem", [BEST_FILE]) or b"")
    rows = uploaded["modulation_confusion"]
    assert confusion["title"].split()[-1] == str(uploaded["epoch"])
    assert confusion["modulation"]["names"] == uploaded["modulations"]
    assert confusion["modulation"]["shares"] == [[round(count / sum(row), 4) for count in row] for row in rows]


# --- the cache


class CountingSource:
    """A source of files that a test changes; it lists the runs that were read."""

    def __init__(self, **files: dict[str, Any]) -> None:
        self.files = files
        self.read_runs: list[str] = []

    def file(self, project: str, run_id: str, names: Sequence[str]) -> bytes | None:
        assert project == "e/p"
        self.read_runs.append(run_id)
        content = self.files.get(run_id)
        if content and "broken" in content:
            raise RuntimeError("HTTP 500")
        return None if content is None else json.dumps(content).encode()


def test_a_cached_evaluation_of_the_peak_is_not_read_again_and_is_used_offline(tmp_path: Path) -> None:
    analysed = ranked_sweep(run("a", [0.1, 0.3]), run("b", [0.1, 0.2]), run("c", [0.1]))
    source = CountingSource(a=evaluation(2, **{PEAK: 0.3}), b=evaluation(1, **{PEAK: 0.1}))
    path = tmp_path / "cache.sqlite3"

    def epochs() -> dict[str, int]:
        source.read_runs.clear()
        confusions = fetch_confusions(lambda: source, path, analysed.record, analysed.ranked)
        return {run_id: confusion.epoch for run_id, confusion in confusions.items()}

    assert (epochs(), sorted(source.read_runs)) == ({"a": 2, "b": 1}, ["a", "b", "c"])
    source.files["b"] = evaluation(2, **{PEAK: 0.2})
    assert (epochs(), sorted(source.read_runs)) == ({"a": 2, "b": 2}, ["b", "c"])
    source.files["c"] = {"something": "else"}
    assert (epochs(), source.read_runs) == ({"a": 2, "b": 2}, ["c"])
    offline = cached_confusions([tmp_path / "another.sqlite3", path], analysed.record, analysed.ranked)
    assert {run_id: confusion.epoch for run_id, confusion in offline.items()} == {"a": 2, "b": 2}


def test_the_evaluation_of_a_deleted_run_leaves_the_cache(tmp_path: Path) -> None:
    from test_cache import SELECTION, MemorySource, rows

    from amc_analysis.reading.reader import read

    with Cache(tmp_path / "cache.sqlite3") as cache:
        source = MemorySource({"a": rows(0.1), "b": rows(0.2)})
        read(source, SELECTION, cache=cache)
        cache.put_evaluation("e/p", "a", b"{}")
        cache.put_evaluation("e/p", "b", b"{}")
        del source.rows["a"]
        read(source, SELECTION, cache=cache)
        assert [cache.evaluation("e/p", run_id) for run_id in ("a", "b")] == [None, b"{}"]


def test_an_error_is_reported_once_and_the_cached_evaluation_is_used(tmp_path: Path) -> None:
    analysed = ranked_sweep(run("a", [0.1, 0.3]), run("b", [0.1, 0.2]))
    source = CountingSource(a=evaluation(1), b=evaluation(2))
    path, reports = tmp_path / "cache.sqlite3", list[str]()
    fetch_confusions(lambda: source, path, analysed.record, analysed.ranked)
    source.files["a"] = {"broken": True}
    confusions = fetch_confusions(lambda: source, path, analysed.record, analysed.ranked, report=reports.append)
    assert {run_id: confusion.epoch for run_id, confusion in confusions.items()} == {"a": 1, "b": 2}
    assert reports == [
        "reading the evaluations of 2 runs",
        "the evaluations of a could not be read: RuntimeError: HTTP 500",
    ]


def test_a_server_that_does_not_answer_delays_no_other_run() -> None:
    analysed = ranked_sweep(run("a", [0.3]), run("b", [0.2]))
    reports, released = list[str](), threading.Event()

    class SilentSource(CountingSource):
        def file(self, project: str, run_id: str, names: Sequence[str]) -> bytes | None:
            if run_id == "a":
                released.wait(timeout=60)
            return super().file(project, run_id, names)

    source = SilentSource(a=evaluation(1), b=evaluation(1))
    confusions = fetch_confusions(
        lambda: source, None, analysed.record, analysed.ranked, report=reports.append, limit_s=0.2
    )
    released.set()
    assert list(confusions) == ["b"]
    assert reports[-1] == "the evaluations of a could not be read: no answer within 0.2 s"


# --- the trial's uploads


def test_the_first_of_equally_good_epochs_is_the_best() -> None:
    rows = [{"epoch": epoch, RUNNING_BEST: best} for epoch, best in enumerate([0.0, 0.2, 0.2, 0.3, 0.3], start=1)]
    assert best_epoch(rows) == 4
    assert best_epoch([]) is None
    assert is_better(rows[0], None)
    assert not is_better(rows[2], 0.2)
    assert not is_better({"epoch": 1}, None)


class Client:
    """The part of a ``wandb.Run`` that takes files."""

    def __init__(self, folder: Path, *, is_gone: bool = False) -> None:
        self.dir = str(folder / "client")
        self.is_gone = is_gone
        self.saved: list[Any] = []

    def save(self, path: str, **_: Any) -> None:
        if self.is_gone:
            raise ConnectionError("the client is gone")
        self.saved.append(json.loads(Path(path).read_text()))


def written(folder: Path, *epochs: int) -> list[dict[str, Any]]:
    """Write evaluations as a trial does; return the rows of the first four epochs. The second epoch is the best."""
    (folder / "evaluation").mkdir()
    for epoch in epochs:
        (folder / epoch_file(epoch)).write_text(json.dumps({"epoch": epoch}))
    return [{"epoch": epoch, RUNNING_BEST: best} for epoch, best in enumerate([0.1, 0.2, 0.2, 0.2], start=1)]


def test_a_failed_upload_does_not_end_the_trial_and_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    followed = BestEvaluation(Client(tmp_path, is_gone=True), tmp_path)
    for row in written(tmp_path, 2):  # the file of the first epoch does not exist
        followed.update(row)
    assert capsys.readouterr().err.count("was not uploaded") == 1


def test_a_resumed_trial_uploads_the_best_again_and_then_only_better_ones(tmp_path: Path) -> None:
    client = Client(tmp_path)
    followed = BestEvaluation(client, tmp_path)
    followed.resume(written(tmp_path, 1, 2, 3, 4, 5, 6))
    followed.update({"epoch": 5, RUNNING_BEST: 0.2})
    followed.update({"epoch": 6, RUNNING_BEST: 0.3})
    assert client.saved == [{"epoch": 2}, {"epoch": 6}]


def test_a_trial_resumed_on_another_machine_keeps_the_best_file_on_wandb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(tmp_path)
    followed = BestEvaluation(client, tmp_path)
    followed.resume(written(tmp_path, 5))
    followed.update({"epoch": 5, RUNNING_BEST: 0.2})
    assert client.saved == []
    assert capsys.readouterr().err == ""


OFFLINE = """
import json, sys
from pathlib import Path
import wandb
from amc_agents.trial.wandb_recorder import RunRecorder
from amc_core.training.evaluation_files import epoch_file
folder = Path(sys.argv[1])
(folder / "evaluation").mkdir(parents=True)
run = wandb.init(project="amc", id="carried", mode="offline")
recorder = RunRecorder(run, folder)
recorder.begin()
for epoch, best in enumerate([0.1, 0.3, 0.3], start=1):
    (folder / epoch_file(epoch)).write_text(json.dumps({"epoch": epoch}))
    recorder.log({"epoch": epoch, "best/combined_acc": best})
run.finish()
"""


@pytest.mark.client
def test_an_offline_run_that_is_synced_from_another_folder_keeps_its_best_evaluation(
    tmp_path: Path, run_files: RunFiles
) -> None:
    folder = tmp_path / "gpu"
    folder.mkdir()
    env = {**EmbeddedServer.process_environment(), **run_files.server.environment(WANDB_DIR=str(folder))}
    env["PYTHONPATH"] = EmbeddedServer.process_environment()["PYTHONPATH"]
    subprocess.run([sys.executable, "-c", OFFLINE, str(folder / "runs" / "carried")], env=env, check=True)
    (offline_run,) = (folder / "wandb").glob("offline-run-*-carried")
    carried = offline_run.rename(tmp_path / offline_run.name)
    (folder / "runs").rename(tmp_path / "gone")
    wandb = Path(sys.executable).parent / "wandb"
    subprocess.run([wandb, "sync", "--entity", "local", str(carried)], env=env, check=True, capture_output=True)
    content = BulkSource(run_files.server.base_url, run_files.server.key).file("local/amc", "carried", [BEST_FILE])
    assert content == b'{"epoch":2}'
