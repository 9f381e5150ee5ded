"""What the page of a sweep asks for: everything at first, then what has changed; and who may change something."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from in_process_server import KEY, InProcessServer
from stored_sweeps import CONFIG, StoredRun, many_runs, store_sweep

from amc_server.auth import COOKIE, Gate
from amc_server.pages.sweep_view import KEEP_S, SweepViews
from amc_server.store.reader import Reader
from amc_server.store.records import ENTITY

GRID = "method: grid\nmetric: {name: acc, goal: maximize}\nparameters: {a: {values: [1, 2, 3]}}\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


class Page:
    """What a page of a sweep has after each question."""

    def __init__(self, server: InProcessServer, sweep: str) -> None:
        self._server = server
        self._address = f"/local/p/sweeps/{sweep}/data"
        self.version = ""
        self.runs: dict[int, dict[str, Any]] = {}
        self.ask()

    def ask(self) -> list[int] | None:
        """Ask a second later; return the places of the changed rows, or None if nothing has changed."""
        self._server.clock.advance(1)
        reply = self._server.request("GET", f"{self._address}?since={self.version}")
        if reply.status == 204:
            return None
        assert reply.status == 200, reply.body
        self.facts = reply.json()
        self.version = self.facts["version"]
        self.runs |= dict(self.facts["rows"])
        return [place for place, _ in self.facts["rows"]]


def test_only_changed_rows_are_sent(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agents = [server.create_agent(sweep) for _ in range(2)]
    first, second = (server.draw(agent)["run_id"] for agent in agents)
    for run in (first, second):
        server.begin(run, {"a": 1})
    page = Page(server, sweep)
    assert [page.runs[place]["id"] for place in (0, 1)] == [first, second]
    assert page.ask() is None
    server.log(first, 0.25, 0.5)
    assert page.ask() == [0]
    assert (page.runs[0]["peak"], page.runs[0]["y"], page.facts["ranks"]) == (0.5, [0.25, 0.5], [1, None])
    server.log(second, 0.75)
    assert page.ask() == [1]
    assert page.facts["ranks"] == [2, 1], "the rank of a row that is not sent changes, too"
    third = server.draw(server.create_agent(sweep))["run_id"]
    assert page.ask() == [2]
    assert page.runs[2]["id"] == third
    server.finish(first)
    assert page.ask() == [0]
    assert page.runs[0]["cause"] == "completed"
    assert page.ask() is None


def test_a_deleted_run_makes_the_page_begin_again(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    runs = [server.draw(server.create_agent(sweep))["run_id"] for _ in range(2)]
    page = Page(server, sweep)
    pk = server.sweep(sweep)["runs"][runs[0]]["id"]
    server.graphql("mutation D($id: ID!) { deleteRun(input: {id: $id}) { clientMutationId } }", id=pk)
    assert page.ask() == [0]
    assert page.facts["is_whole"]
    assert page.runs[0]["id"] == runs[1]


def test_a_change_by_the_api_alone_is_sent_even_if_its_length_is_the_same(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = server.draw(server.create_agent(sweep))["run_id"]
    server.begin(run, {"a": 1})
    server.finish(run)
    key = server.sweep(sweep)["runs"][run]["id"]
    page = Page(server, sweep)

    def change(**values: str) -> None:
        document = """mutation U($id: ID!, $config: JSONString, $summary: JSONString, $name: String) {
            upsertBucket(input: {id: $id, config: $config, summaryMetrics: $summary, displayName: $name}) {
            bucket { id } } }"""
        server.graphql(document, id=key, **values)

    change(summary='{"acc": 0.25}')
    assert page.ask() == [0]
    assert page.runs[0]["peak"] == 0.25
    change(summary='{"acc": 0.75}')
    assert page.ask() == [0]
    assert page.runs[0]["peak"] == 0.75
    change(config='{"a": {"value": 3}}')
    assert page.ask() == [0]
    assert page.runs[0]["values"] == [3]
    change(name="another")
    assert page.ask() == [0]
    assert page.runs[0]["name"] == "another"
    assert page.ask() is None


def test_another_sweep_file_makes_the_page_load_again(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    page = Page(server, sweep)
    file = page.facts["file"]
    server.set_state(sweep, "PAUSED")
    page.ask()
    assert page.facts["file"] == file
    document = (
        "mutation U($id: ID!, $config: String) { upsertSweep(input: {id: $id, config: $config}) { sweep { name } } }"
    )
    server.graphql(document, id=server.sweep(sweep)["id"], config=f"{GRID}description: about it\n")
    page.ask()
    assert page.facts["file"] != file


@pytest.mark.parametrize("page", ["", "/sweeps/{sweep}/data", "/runs/{run}", "/runs/{run}/data"])
def test_a_page_that_is_being_read_blocks_no_write(
    server: InProcessServer, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run, {"a": 1})
    read, is_reading, is_written = server.storage.read, threading.Event(), threading.Event()

    @contextlib.contextmanager
    def slow_read() -> Iterator[Reader]:
        monkeypatch.setattr(server.storage, "read", read)  # the first reading is the page's
        with read() as store:
            assert len(store.projects(ENTITY)) == 1  # SQLite takes its snapshot with the first query
            is_reading.set()
            assert is_written.wait(60)
            yield store

    monkeypatch.setattr(server.storage, "read", slow_read)
    with ThreadPoolExecutor() as pool:
        shown = pool.submit(server.request, "GET", "/local/p" + page.format(sweep=sweep, run=run))
        try:
            assert is_reading.wait(30)
            pool.submit(server.log, run, 0.5).result(timeout=30)
            assert pool.submit(server.heartbeat, agent, [run]).result(timeout=30) == []
        finally:
            is_written.set()
        assert shown.result(timeout=30).status == 200


def test_nothing_is_read_where_nothing_was_committed(server: InProcessServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = server.create_sweep(GRID)
    page = Page(server, sweep)
    monkeypatch.setattr(server.storage, "read", lambda: pytest.fail("the database was asked"))
    assert page.ask() is None


def test_a_view_is_dropped_when_no_page_is_open(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    views = SweepViews(server.storage, server.clock, lambda agent: False)
    path = ("local", "p", sweep)
    version = json.loads(views.changes(path, None) or b"")["version"]
    views.forget()
    assert views.is_unchanged(path, version)
    server.clock.advance(KEEP_S + 1)
    views.forget()
    assert not views.is_unchanged(path, version)
    assert json.loads(views.changes(path, version) or b"")["is_whole"]


def test_the_sentence_says_how_far_the_sweep_is(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    page = Page(server, sweep)
    assert page.facts["sentence"] == "Waiting for its first agent: no run has begun; 3 runs will."
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run, {"a": 1, "epochs": 4})
    server.log(run, 0.25)
    page.ask()
    assert page.facts["sentence"] == (
        "Running on 1 agent: 0 of 3 runs have ended and 1 run is alive. "
        "brisk-sweep-1 (running) leads with acc 25.00% at epoch 1 of 4."
    )
    assert page.facts["agents"][0]["run"] == run
    server.set_state(sweep, "PAUSED")
    page.ask()
    assert page.facts["sentence"].startswith("Paused: 0 of 3 runs")
    assert page.facts["actions"] == ["resume", "stop", "cancel"]


def test_ranks_and_causes_are_those_of_the_analysis(tmp_path: Path) -> None:
    from embedded_server import EmbeddedServer

    from amc_analysis.analyse import rank_runs
    from amc_analysis.reading.reader import read
    from amc_analysis.reading.sources import Selection
    from amc_analysis.reading.whole_histories import BulkSource

    runs = [
        *many_runs(40),
        StoredRun("lost", [0.1, 0.9], "crashed", None),
        StoredRun("nan", [0.1, float("nan")], "failed", 1),
    ]
    sweep = store_sweep(tmp_path / "data", runs)
    with EmbeddedServer(tmp_path / "data") as real:
        record = read(BulkSource(real.base_url, real.key), Selection("local", "p", sweep))
    analysed = rank_runs(record)
    server = InProcessServer(tmp_path / "data")
    page = Page(server, sweep)
    shown = {
        run["id"]: (page.facts["ranks"][place], run["cause"], run["peak"], run["at"], run["epochs"])
        for place, run in page.runs.items()
    }
    for entry in analysed.ranked:
        expected = (entry.rank, str(entry.cause), entry.peak, entry.peak_epoch, entry.epochs)
        assert shown[entry.run.run_id] == expected, entry.run.run_id
    gems = {page.runs[place]["id"] for place in page.facts["gems"]}
    assert gems == {entry.run.run_id for entry in analysed.gems}
    server.close()


def press(server: InProcessServer, sweep: str, content: Any, **headers: str) -> int:
    body = json.dumps(content).encode()
    return server.request("POST", f"/local/p/sweeps/{sweep}/actions", body, headers=headers, auth=False).status


def test_a_button_needs_cookie_token_and_origin(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    reply = server.request("GET", f"/local/p/sweeps/{sweep}?key={KEY}", auth=False)
    cookie = reply.headers["set-cookie"].split(";")[0]
    page = server.request("GET", f"/local/p/sweeps/{sweep}", headers={"cookie": cookie}, auth=False).body.decode()
    token = page.split('data-token="')[1].split('"')[0]
    good = {"cookie": cookie, "x-amc-token": token, "origin": "http://server.test"}
    pause = {"action": "pause"}
    for name in good:
        others = {key: value for key, value in good.items() if key != name}
        assert press(server, sweep, pause, **others) == 403, f"without {name}"
    another = f"{COOKIE}={Gate(KEY, b'other').cookie()}"
    for wrong in (
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"cookie": another},
        {"x-amc-token": "x"},
    ):
        assert press(server, sweep, pause, **{**good, **wrong}) == 403, wrong
    assert server.sweep(sweep)["state"] == "PENDING"
    assert press(server, sweep, pause, **good) == 200
    assert server.sweep(sweep)["state"] == "PAUSED"
    assert press(server, sweep, pause, **good) == 400, "it is paused already"
    for content in ({"action": "delete"}, [], {"action": ["pause"]}):
        assert press(server, sweep, content, **good) == 400
    assert press(server, sweep, {"action": "stop run", "run": "nothere"}, **good) == 404
    assert press(server, "nothere", pause, **good) == 404


def test_the_token_belongs_to_one_session_and_old_cookies_only_read() -> None:
    gate = Gate(KEY, b"secret")
    cookie, other = gate.cookie(), gate.cookie()
    assert gate.admits_change(cookie, gate.page_token(cookie))
    assert not gate.admits_change(cookie, gate.page_token(other))
    old = str(gate._signer(gate._session()).dumps([]))
    assert gate.admits_cookie(old)
    assert gate.page_token(old) == ""
    assert not gate.admits_change(old, "")
    open_gate = Gate(None, b"secret")
    assert open_gate.admits_change(None, open_gate.page_token(None))
    assert not open_gate.admits_change(None, "")


def test_a_login_leads_back_to_the_page_but_to_no_other_site(server: InProcessServer) -> None:
    def login(key: str, target: str) -> tuple[int, str | None]:
        body = f"key={key}&next={target}".encode()
        reply = server.request("POST", "/login", body, auth=False)
        return reply.status, reply.headers.get("location")

    assert login(KEY, "/local/p") == (303, "/local/p")
    assert login("amc-wrong", "/local/p") == (401, None)
    for target in ("//evil.example", "https://evil.example", "/%5Cevil.example", "%0d%0aSet-Cookie:x"):
        assert login(KEY, target) == (303, "/"), target


def test_assets_are_kept_by_the_browser_and_nothing_else_is_served(server: InProcessServer) -> None:
    sweep = server.create_sweep(CONFIG)
    page = server.request("GET", f"/local/p/sweeps/{sweep}").body.decode()
    address = page.split('src="')[1].split('"')[0]
    reply = server.request("GET", address, auth=False)
    assert (reply.status, "immutable" in reply.headers["cache-control"]) == (200, True)
    for name in ("assets.py", "README.md", "..%2fvalues.py", "nothere.js"):
        assert server.request("GET", f"{address.rpartition('/')[0]}/{name}").status == 404
