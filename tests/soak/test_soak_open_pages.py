"""Pages that stay open: 20 of them beside 64 agents that post without a pause, and three through eight hours.

Of the 20 pages a few are in Chromium. The others are clients that ask for the same at the same intervals: a reader's
browser draws on the reader's machine, and here it would take the cores that the server and the agents need.

The eight hours are played fast. The page of a sweep gets its 19,200 answers from a script in the page itself. The pages
of a run and of a project ask the server 5 ms after each answer instead of 2 s, while the run grows.

AMC_SOAK_PAGES_S (default 90) is the time with agents, AMC_SOAK_HOURS (default 8) the time that is played.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import statistics
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from browser import chromium
from embedded_server import EmbeddedServer
from playwright.sync_api import Browser, CDPSession, Page
from results_file import keep
from simulated_agents import Agent, Connection, Tally, Work
from stored_sweeps import CONFIG, address_of, many_runs, store_sweep

SECONDS = float(os.environ.get("AMC_SOAK_PAGES_S", "90"))
HOURS = float(os.environ.get("AMC_SOAK_HOURS", "8"))
IS_FULL = not any(name.startswith("AMC_") for name in os.environ)
MOST_P99_S = 0.25
AGENTS = 64
IN_CHROMIUM = ("sweep", "run")
SIMULATED = {"sweep": 11, "run": 4, "project": 2, "projects": 1}
ASKS_AN_HOUR = {"sweep": 2400, "run": 3600, "project": 1800}  # every 1.5 s; twice and once every 2 s
PARTS = 8  # of the time, after each of which the page is measured
MOST_GROWTH = 1.1  # of heap and elements, from the first part to the last
SPARE_BYTES, SPARE_NODES = 2_000_000, 500
ROWS_AN_HOUR = 120
CREATE_RUN = 'mutation U($name: String) { upsertBucket(input: {name: $name, modelName: "p"}) { bucket { id } } }'


class OpenPage(threading.Thread):
    """Asks for what a page asks for, without drawing it."""

    def __init__(self, server: EmbeddedServer, kind: str, addresses: dict[str, str], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._port = int(server.base_url.rsplit(":", 1)[1])
        self._key = base64.b64encode(f"api:{server.key}".encode()).decode()
        self._kind, self._address, self._over = kind, addresses[kind], stop
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        """Ask until the test is over."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        version, tag = "", ""
        try:
            while not self._over.wait(1.5 if self._kind == "sweep" else 2.0):
                if self._kind == "sweep":
                    body = self._ask(connection, f"{self._address}/data?since={version}")[1]
                    version = json.loads(body)["version"] if body else version
                    continue
                if self._kind == "run":
                    self._ask(connection, f"{self._address}/data?rows=140&events=-1&console=-1&every=1")
                tag = self._ask(connection, self._address, tag)[0]
        except Exception as error:  # noqa: BLE001 - a thread's failure is the test's
            self.failures.append(f"{self._kind}: {type(error).__name__}: {error}")
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, path: str, tag: str = "") -> tuple[str, bytes]:
        begin = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": f"Basic {self._key}", "If-None-Match": tag})
        reply = connection.getresponse()
        body = reply.read()
        self.seconds.append(time.perf_counter() - begin)
        assert reply.status in (200, 204, 304), f"{reply.status}: {body[:300]!r}"
        return reply.headers.get("ETag", ""), body


@pytest.mark.timeout(1200)
def test_twenty_open_pages_do_not_delay_heartbeats(tmp_path: Path) -> None:
    config = CONFIG.replace("val/combined_acc", "acc")
    sweep = store_sweep(tmp_path / "data", many_runs(1000, 150), config)
    addresses = {
        "sweep": f"/local/p/sweeps/{sweep}",
        "run": "/local/p/runs/run1000-0",
        "project": "/local/p",
        "projects": "/",
    }
    with EmbeddedServer(tmp_path / "data") as server, chromium() as browser:
        port, stop, tally = int(server.base_url.rsplit(":", 1)[1]), threading.Event(), Tally()
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        pages = []
        for kind in IN_CHROMIUM:
            page = context.new_page()
            page.goto(f"{server.base_url}{addresses[kind]}?key={server.key}")
            pages.append(page)
        kinds = [kind for kind, count in SIMULATED.items() for _ in range(count)]
        clients = [OpenPage(server, kind, addresses, stop) for kind in kinds]
        agents = [
            Agent(lambda: Connection(port, server.key, patience_s=120), Work(sweep, project="p"), tally, stop)
            for _ in range(AGENTS)
        ]
        process = psutil.Process(server.pid)
        begin, before = time.monotonic(), sum(process.cpu_times()[:2])
        for thread in [*clients, *agents]:
            thread.start()
        while time.monotonic() - begin < SECONDS:
            pages[0].wait_for_timeout(1000)  # lets the browser's events through
        rows, seconds = tally.rows, time.monotonic() - begin
        cpu = (sum(process.cpu_times()[:2]) - before) / seconds
        stop.set()
        for thread in [*clients, *agents]:
            thread.join(timeout=120)
        shown = pages[0].locator("#shown-count").inner_text()
    asked = [second for client in clients for second in client.seconds]
    p99_s = _p99(tally.heartbeat_s)
    figures = {
        "simulated agents, posting without a pause": AGENTS,
        "open pages": len(kinds) + len(IN_CHROMIUM),
        "of them in Chromium": ", ".join(IN_CHROMIUM),
        "of them clients that ask for the same": ", ".join(f"{count} {kind}" for kind, count in SIMULATED.items()),
        "runs of 150 epochs stored before": 1000,
        "runs on the sweep's page at the end": shown,
        "seconds": seconds,
        "acknowledged rows a second": rows / seconds,
        "heartbeats": len(tally.heartbeat_s),
        "heartbeat p50, ms": statistics.median(tally.heartbeat_s) * 1000,
        f"heartbeat p99, ms (at most {MOST_P99_S * 1000:.0f})": p99_s * 1000,
        "answers to pages": len(asked),
        "answer to a page p50, ms": statistics.median(asked) * 1000,
        "answer to a page p99, ms": _p99(asked) * 1000,
        "CPU cores that the server took": cpu,
    }
    keep("open_pages", full=IS_FULL, figures=figures)
    assert tally.failures == []
    assert [failure for client in clients for failure in client.failures] == []
    if IS_FULL:
        assert p99_s < MOST_P99_S


# Answers a sweep's page after its first question, each time with 8 changed runs.
FEED = """
const [fetchFirst, later] = [window.fetch, window.setTimeout];
let first = null;
window.asked = window.most = 0;
window.setTimeout = (call, ms, ...rest) => later(call, ms >= 1000 ? 0 : ms, ...rest);
window.fetch = async (...question) => {
    while (first !== null && window.asked >= window.most) await new Promise((go) => later(go, 50));
    window.asked += 1;
    if (first === null) {
        const reply = await fetchFirst(...question);
        first = await reply.clone().json();
        return reply;
    }
    const rows = [];
    for (let count = 0; count < 8; count += 1) {
        const [place, run] = first.rows[(window.asked * 8 + count) % first.rows.length];
        const y = run.y.map((value) => (value === null ? null : value * (1 + 0.1 * Math.sin(window.asked + count))));
        rows.push([place, { ...run, y, last: y[y.length - 1] ?? null, seconds: window.asked }]);
    }
    const words = { version: `fed-${window.asked}`, sentence: `Answer ${window.asked}.` };
    const now = first.now + 1.5 * window.asked;
    return new Response(JSON.stringify({ ...first, ...words, now, is_whole: false, rows }));
};
"""
# Lets a page ask the server soon after each answer.
HURRY = """
const [fetchAny, later] = [window.fetch, window.setTimeout];
window.asked = window.most = 0;
window.setTimeout = (call, ms, ...rest) => later(call, ms >= 1000 ? 5 : ms, ...rest);
window.fetch = async (...question) => {
    while (window.asked >= window.most) await new Promise((go) => later(go, 50));
    window.asked += 1;
    return fetchAny(...question);
};
"""


@pytest.mark.timeout(3000)
def test_a_page_does_not_grow_in_eight_hours(tmp_path: Path) -> None:
    sweep = store_sweep(tmp_path / "data", many_runs(40, 40))
    with EmbeddedServer(tmp_path / "data") as server, chromium() as browser:
        server.graphql(CREATE_RUN, name="long")
        rows = _RowsOfLongRun(server)
        rows.post(600, console=5000)
        addresses = {
            "sweep": address_of(server.base_url, sweep),
            "run": f"{server.base_url}/local/p/runs/long",
            "project": f"{server.base_url}/local/p",
        }
        pages = {
            kind: _open(browser, server, address, FEED if kind == "sweep" else HURRY)
            for kind, address in addresses.items()
        }
        sizes: dict[str, list[dict[str, float]]] = {kind: [] for kind in pages}
        # Fill the log, of which a page keeps 5,000 lines, so that it does not grow after the first part.
        pages["run"].evaluate("window.most = 10")
        pages["run"].wait_for_function("() => window.asked >= 10")
        rows.post(1, console=5000)
        begin = time.monotonic()
        for part in range(1, PARTS + 1):
            asks = {kind: round(count * HOURS * part / PARTS) for kind, count in ASKS_AN_HOUR.items()}
            for kind, page in pages.items():
                page.evaluate("most => { window.most = most; }", asks[kind])
            for _ in range(round(ROWS_AN_HOUR * HOURS / PARTS)):
                rows.post(1, console=3)
                pages["run"].wait_for_timeout(50)
            for kind, page in pages.items():
                page.wait_for_function("most => window.asked >= most", arg=asks[kind], timeout=1_200_000)
                page.wait_for_timeout(1000)  # until it is drawn
                sizes[kind].append(_size(page))
        seconds = time.monotonic() - begin
        asked = {kind: page.evaluate("window.asked") for kind, page in pages.items()}
        painted = {kind: page.locator("html").get_attribute("data-painted") for kind, page in pages.items()}
    figures: dict[str, object] = {"hours that were played": HOURS, "seconds that it took": seconds}
    for kind, measured in sizes.items():
        figures |= {
            f"{kind}: answers, charts drawn": f"{asked[kind]:,}, {int(painted[kind] or 0):,}",
            f"{kind}: heap after each part, MB": ", ".join(f"{size['JSHeapUsedSize'] / 1e6:.1f}" for size in measured),
            f"{kind}: elements and texts": ", ".join(f"{size['Nodes']:.0f}" for size in measured),
            f"{kind}: listeners": ", ".join(f"{size['JSEventListeners']:.0f}" for size in measured),
        }
    keep("open_pages_8_hours", full=IS_FULL, figures=figures)
    for kind, measured in sizes.items():
        for name, spare in (("JSHeapUsedSize", SPARE_BYTES), ("Nodes", SPARE_NODES), ("JSEventListeners", SPARE_NODES)):
            assert measured[-1][name] <= MOST_GROWTH * measured[0][name] + spare, f"{kind}: {name}"


class _RowsOfLongRun:
    """A run that grows."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server, self._rows, self._lines = server, 0, 0

    def post(self, rows: int, *, console: int) -> None:
        """Add rows of 30 metrics, as many of system metrics, and lines of the console."""
        steps = range(self._rows, self._rows + rows)
        history = [{"epoch": step + 1, **{f"val/m{number}": step / 7 for number in range(30)}} for step in steps]
        events = [{"_runtime": 30 * step, "system.cpu": 50.0} for step in steps]
        lines = [f"2026-01-01T00:00:00.0 line {number}" for number in range(self._lines, self._lines + console)]
        content = {
            "wandb-history.jsonl": (self._rows, list(map(json.dumps, history))),
            "wandb-events.jsonl": (self._rows, list(map(json.dumps, events))),
            "output.log": (self._lines, lines),
        }
        files = {name: {"offset": offset, "content": new} for name, (offset, new) in content.items()}
        key = base64.b64encode(f"api:{self._server.key}".encode()).decode()
        request = urllib.request.Request(
            f"{self._server.base_url}/files/local/p/long/file_stream",
            json.dumps({"files": files}).encode(),
            {"Authorization": f"Basic {key}"},
        )
        urllib.request.urlopen(request, timeout=30).close()
        self._rows, self._lines = self._rows + rows, self._lines + console


def _open(browser: Browser, server: EmbeddedServer, address: str, script: str) -> Page:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(f"{server.base_url}/?key={server.key}")
    page.add_init_script(script)
    page.goto(address)
    return page


def _size(page: Page) -> dict[str, float]:
    session: CDPSession = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    for _ in range(3):
        session.send("HeapProfiler.collectGarbage")
    metrics: list[dict[str, Any]] = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return {metric["name"]: metric["value"] for metric in metrics}


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]
