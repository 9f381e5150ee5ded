"""Confusion matrices of runs that were trained elsewhere: put up by the trial, fetched for the page, kept for later."""

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
from preempted_trials import SMALL, Machine, run_of, signal_everybody
from sweep_records import run, sweep
from tiny_files import synthetic_file

from amc_agents.trial.best_evaluation import SO_FAR, BestEvaluation, best_epoch, is_better
from amc_analysis.reading.bulk import BulkSource
from amc_analysis.reading.cache import Cache
from amc_analysis.reading.evaluations import cached_confusions, fetch_confusions
from amc_analysis.reading.public_api import PublicApiSource
from amc_analysis.reading.sources import MAX_FILE_BYTES, FileSource
from amc_analysis.runs.confusion import MAX_RUNS, Confusion, confusion_of, read_confusions
from amc_analysis.runs.findings import Findings, analyse
from amc_core.training.evaluation_files import BEST_FILE, epoch_file
from amc_sweeps.runs.export_file import Export, write
from amc_sweeps.runs.records import SweepRecord

PEAK = "val/combined_acc"


def evaluation(epoch: Any, **more: Any) -> dict[str, Any]:
    """Return one as a trial writes it, as far as anybody reads it."""
    found = {"epoch": epoch, "modulations": ["BPSK", "QPSK"], "modulation_confusion": [[9, 1], [3, 7]]}
    return {**found, "snr_levels_db": [0, 10], "snr_confusion": [[5, 5], [0, 10]], **more}


def findings_of(*runs: Any) -> Findings:
    return analyse(
        replace(sweep(*runs, config={"metric": {"name": PEAK, "goal": "maximize"}}), entity="e", project="p")
    )


# --- what a file must be


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
def test_what_is_no_evaluation_is_no_picture_and_no_error(text: bytes) -> None:
    assert confusion_of("a", text) is None


def test_only_the_best_runs_that_are_not_here_are_asked_for(tmp_path: Path) -> None:
    findings = findings_of(*(run(f"r{n}", [0.9 - n / 100]) for n in range(MAX_RUNS + 2)))
    here = tmp_path / "r1" / epoch_file(1)
    here.parent.mkdir(parents=True)
    here.write_text(json.dumps(evaluation(1)))
    asked: list[str] = []

    def fetch(_record: SweepRecord, missing: Sequence[Any]) -> dict[str, Confusion]:
        asked.extend(entry.run.run_id for entry in missing)
        found = confusion_of("r4", json.dumps(evaluation(7)).encode())
        assert found is not None
        return {"r4": found}

    found = read_confusions(tmp_path, findings.sweep, findings.ranked, fetch)
    assert asked == ["r0", "r2", "r3", "r4", "r5"]
    assert [(one.run_id, one.epoch) for one in found] == [("r1", 1), ("r4", 7)]


# --- from W&B: real files of a real server


class Shelf:
    """An embedded server with a project, whose runs get files."""

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
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with EmbeddedServer(tmp_path_factory.mktemp("shelf") / "data") as server:
        found = Shelf(server)
        found.put("a", BEST_FILE, b"best of a")
        found.put("b", BEST_FILE, b"best of b")
        found.put("b", epoch_file(3), b"epoch 3 of b")
        found.put("c", BEST_FILE, bytes(MAX_FILE_BYTES + 1))
        yield found


def read_all(source: FileSource) -> list[bytes | None]:
    with ThreadPoolExecutor() as pool:
        names = (epoch_file(3), BEST_FILE)
        return list(pool.map(lambda run_id: source.file("local/amc", run_id, names), ("a", "b", "c", "d")))


EXPECTED = [b"best of a", b"epoch 3 of b", None, None]


def test_the_embedded_server_is_asked_again_when_it_is_busy(shelf: Shelf) -> None:
    slept: list[float] = []
    with LimitingProxy(shelf.server.base_url, lambda path, _: path.endswith(BEST_FILE), retry_after="7") as proxy:
        assert read_all(BulkSource(proxy.base_url, shelf.server.key, sleep=slept.append)) == EXPECTED
    assert slept == [7.0] * 3


@pytest.mark.client
def test_a_plain_wandb_is_asked_through_the_clients_own_api(shelf: Shelf) -> None:
    import wandb

    with PlainWandb(shelf.server) as plain:
        limited = LimitingProxy(plain.base_url, lambda _, body: b"RunFiles" in body)
        with limited as proxy:
            api = wandb.Api(overrides={"base_url": proxy.base_url}, api_key=KEY)
            assert read_all(PublicApiSource(api)) == EXPECTED
    assert len(limited.refused) == 4
    assert min(limited.waits_s()) >= 1.0
    assert plain.refused == []


@pytest.mark.client
def test_a_trial_that_is_killed_is_on_a_page_that_cannot_see_its_folder(tmp_path: Path, shelf: Shelf) -> None:
    data = synthetic_file(tmp_path, levels_db=(0, 10, 20), frames_per_cell=5)
    machine = Machine("gpu-1", tmp_path, shelf.server, data)
    trial = machine.train("gem", {**SMALL, "epochs": 1000, "epochs_per_cycle": 1000, "patience": "null"})
    source = BulkSource(shelf.server.base_url, shelf.server.key)
    wait_until(lambda: run_of(shelf.server, "gem")["history"], "a row arrives")
    wait_until(lambda: source.file("local/demo", "gem", [BEST_FILE]), "so does the best evaluation")
    signal_everybody(trial, signal.SIGKILL)
    assert trial.wait(timeout=30) == -signal.SIGKILL

    page = tmp_path / "page.html"
    analyse_it = "from amc_analysis.cli import main; main()"
    told = subprocess.run(
        [sys.executable, "-c", analyse_it, "--runs", "demo/gem", "--html", page],
        env={**EmbeddedServer.process_environment(), **shelf.server.environment()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "reading the evaluations of 1 run\n" in told.stderr
    (embedded,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    (shown,) = json.loads(embedded)["confusions"]
    epoch = int(shown["title"].split()[-1])
    own = json.loads((machine.runs / "gem" / epoch_file(epoch)).read_text())
    rows = own["modulation_confusion"]
    assert shown["modulation"]["names"] == own["modulations"]
    assert shown["modulation"]["shares"] == [[round(count / sum(row), 4) for count in row] for row in rows]


# --- what is kept


class Counting:
    """A place whose files a test changes, and that notes whose were asked for."""

    def __init__(self, **files: dict[str, Any]) -> None:
        self.files = files
        self.asked: list[str] = []

    def file(self, project: str, run_id: str, names: Sequence[str]) -> bytes | None:
        assert project == "e/p"
        self.asked.append(run_id)
        found = self.files.get(run_id)
        if found and "broken" in found:
            raise RuntimeError("HTTP 500")
        return None if found is None else json.dumps(found).encode()


def test_a_kept_evaluation_of_the_peak_is_not_asked_for_again_and_is_there_offline(tmp_path: Path) -> None:
    findings = findings_of(run("a", [0.1, 0.3]), run("b", [0.1, 0.2]), run("c", [0.1]))
    source = Counting(a=evaluation(2, **{PEAK: 0.3}), b=evaluation(1, **{PEAK: 0.1}))
    path = tmp_path / "kept.sqlite3"

    def epochs() -> dict[str, int]:
        source.asked.clear()
        found = fetch_confusions(lambda: source, path, findings.sweep, findings.ranked)
        return {run_id: one.epoch for run_id, one in found.items()}

    assert (epochs(), sorted(source.asked)) == ({"a": 2, "b": 1}, ["a", "b", "c"])
    source.files["b"] = evaluation(2, **{PEAK: 0.2})
    assert (epochs(), sorted(source.asked)) == ({"a": 2, "b": 2}, ["b", "c"])
    source.files["c"] = {"something": "else"}
    assert (epochs(), source.asked) == ({"a": 2, "b": 2}, ["c"])
    offline = cached_confusions([tmp_path / "another.sqlite3", path], findings.sweep, findings.ranked)
    assert {run_id: one.epoch for run_id, one in offline.items()} == {"a": 2, "b": 2}


def test_an_evaluation_of_a_run_that_is_gone_is_not_kept(tmp_path: Path) -> None:
    from test_cache import WANTED, Memory, rows

    from amc_analysis.reading.reader import read

    with Cache(tmp_path / "kept.sqlite3") as cache:
        source = Memory({"a": rows(0.1), "b": rows(0.2)})
        read(source, WANTED, cache=cache)
        cache.put_evaluation("e/p", "a", b"{}")
        cache.put_evaluation("e/p", "b", b"{}")
        del source.rows["a"]
        read(source, WANTED, cache=cache)
        assert [cache.evaluation("e/p", run_id) for run_id in ("a", "b")] == [None, b"{}"]


def test_an_error_is_told_once_and_what_was_kept_is_shown_then(tmp_path: Path) -> None:
    findings = findings_of(run("a", [0.1, 0.3]), run("b", [0.1, 0.2]))
    source = Counting(a=evaluation(1), b=evaluation(2))
    path, told = tmp_path / "kept.sqlite3", list[str]()
    fetch_confusions(lambda: source, path, findings.sweep, findings.ranked)
    source.files["a"] = {"broken": True}
    found = fetch_confusions(lambda: source, path, findings.sweep, findings.ranked, report=told.append)
    assert {run_id: one.epoch for run_id, one in found.items()} == {"a": 1, "b": 2}
    assert told == [
        "reading the evaluations of 2 runs",
        "the evaluations of a could not be read: RuntimeError: HTTP 500",
    ]


def test_a_server_that_stays_silent_holds_nobody_up() -> None:
    findings = findings_of(run("a", [0.3]), run("b", [0.2]))
    told, released = list[str](), threading.Event()

    class Silent(Counting):
        def file(self, project: str, run_id: str, names: Sequence[str]) -> bytes | None:
            if run_id == "a":
                released.wait(timeout=60)
            return super().file(project, run_id, names)

    source = Silent(a=evaluation(1), b=evaluation(1))
    found = fetch_confusions(lambda: source, None, findings.sweep, findings.ranked, report=told.append, limit_s=0.2)
    released.set()
    assert list(found) == ["b"]
    assert told[-1] == "the evaluations of a could not be read: no answer within 0.2 s"


# --- what a trial puts up


def test_the_first_of_equally_good_epochs_is_the_best() -> None:
    rows = [{"epoch": epoch, SO_FAR: best} for epoch, best in enumerate([0.0, 0.2, 0.2, 0.3, 0.3], start=1)]
    assert best_epoch(rows) == 4
    assert best_epoch([]) is None
    assert is_better(rows[0], None)
    assert not is_better(rows[2], 0.2)
    assert not is_better({"epoch": 1}, None)


class Client:
    """A ``wandb.Run`` as far as files are concerned."""

    def __init__(self, folder: Path, *, is_gone: bool = False) -> None:
        self.dir = str(folder / "client")
        self.is_gone = is_gone
        self.saved: list[Any] = []

    def save(self, path: str, **_: Any) -> None:
        if self.is_gone:
            raise ConnectionError("the client is gone")
        self.saved.append(json.loads(Path(path).read_text()))


def written(folder: Path, *epochs: int) -> list[dict[str, Any]]:
    """Leave evaluations as a trial does; return the rows of the first four epochs, of which the second is best."""
    (folder / "evaluation").mkdir()
    for epoch in epochs:
        (folder / epoch_file(epoch)).write_text(json.dumps({"epoch": epoch}))
    return [{"epoch": epoch, SO_FAR: best} for epoch, best in enumerate([0.1, 0.2, 0.2, 0.2], start=1)]


def test_what_cannot_be_uploaded_ends_no_trial_and_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    followed = BestEvaluation(Client(tmp_path, is_gone=True), tmp_path)
    for row in written(tmp_path, 2):  # the first is not even on the disk
        followed.follow(row)
    assert capsys.readouterr().err.count("is not with W&B") == 1


def test_a_trial_that_goes_on_uploads_the_best_again_and_then_only_better_ones(tmp_path: Path) -> None:
    client = Client(tmp_path)
    followed = BestEvaluation(client, tmp_path)
    followed.go_on(written(tmp_path, 1, 2, 3, 4, 5, 6))
    followed.follow({"epoch": 5, SO_FAR: 0.2})
    followed.follow({"epoch": 6, SO_FAR: 0.3})
    assert client.saved == [{"epoch": 2}, {"epoch": 6}]


def test_a_trial_that_goes_on_elsewhere_leaves_the_best_that_w_and_b_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(tmp_path)
    followed = BestEvaluation(client, tmp_path)
    followed.go_on(written(tmp_path, 5))
    followed.follow({"epoch": 5, SO_FAR: 0.2})
    assert client.saved == []
    assert capsys.readouterr().err == ""


OFFLINE = """
import json, sys
from pathlib import Path
import wandb
from amc_agents.trial.recorder import RunRecorder
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
def test_an_offline_run_that_is_carried_elsewhere_keeps_its_best_evaluation(tmp_path: Path, shelf: Shelf) -> None:
    folder = tmp_path / "gpu"
    folder.mkdir()
    env = {**EmbeddedServer.process_environment(), **shelf.server.environment(WANDB_DIR=str(folder))}
    env["PYTHONPATH"] = EmbeddedServer.process_environment()["PYTHONPATH"]
    subprocess.run([sys.executable, "-c", OFFLINE, str(folder / "runs" / "carried")], env=env, check=True)
    (left,) = (folder / "wandb").glob("offline-run-*-carried")
    carried = left.rename(tmp_path / left.name)
    (folder / "runs").rename(tmp_path / "gone")
    wandb = Path(sys.executable).parent / "wandb"
    subprocess.run([wandb, "sync", "--entity", "local", str(carried)], env=env, check=True, capture_output=True)
    found = BulkSource(shelf.server.base_url, shelf.server.key).file("local/amc", "carried", [BEST_FILE])
    assert found == b'{"epoch":2}'
