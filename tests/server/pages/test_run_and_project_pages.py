"""The first page, a project's and a run's in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Literal

import pytest
from browser import Visit, chromium, violations, visit
from client_scenarios import wait_until
from embedded_server import EmbeddedServer
from playwright.sync_api import Browser, Page, expect
from stored_sweeps import StoredRun, many_runs, store_sweep

from amc_core.modulations import class_names

pytestmark = pytest.mark.client

EVALUATION = {
    "epoch": 2,
    "modulations": ["BPSK", "QPSK"],
    "modulation_confusion": [[9, 1], [3, 7]],
    "snr_levels_db": [0, 10],
    "snr_confusion": [[5, 5], [0, 10]],
    "by_snr": [{"snr_db": 0, "combined_acc": 0.4, "mod_acc": 0.6}, {"snr_db": 10, "combined_acc": 0.8, "mod_acc": 0.9}],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    data = tmp_path_factory.mktemp("pages") / "data"
    runs = [StoredRun("lost", [0.1, 0.5], "crashed", None, {"max_lr": 0.003}, log=["2026-01-01T00:00:00.0 epoch 1"])]
    store_sweep(data, [*many_runs(11), *runs])
    with EmbeddedServer(data) as running:
        yield running


def post(server: EmbeddedServer, run: str, **files: list[str]) -> None:
    names = {"history": "wandb-history.jsonl", "events": "wandb-events.jsonl", "console": "output.log"}
    send(server, run, {"files": {names[name]: {"offset": 0, "content": lines} for name, lines in files.items()}})


def send(server: EmbeddedServer, run: str, body: dict[str, object]) -> None:
    credentials = base64.b64encode(f"api:{server.key}".encode()).decode()
    address = f"{server.base_url}/files/local/p/{run}/file_stream"
    headers = {"Authorization": f"Basic {credentials}"}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    urllib.request.urlopen(request, timeout=10).close()


def begin(server: EmbeddedServer, run: str) -> None:
    document = """mutation U($name: String) { upsertBucket(input: {name: $name, modelName: "p", host: "box"}) {
        bucket { id } } }"""
    server.graphql(document, name=run)


def upload(server: EmbeddedServer, run: str, name: str, content: bytes) -> None:
    document = """mutation C($files: [String!]!, $run: String!) { createRunFiles(input: {entityName: "local",
        projectName: "p", runName: $run, files: $files}) { files { uploadUrl } } }"""
    files = server.graphql(document, files=[name], run=run)["createRunFiles"]["files"]
    headers = {"Content-MD5": base64.b64encode(hashlib.md5(content).digest()).decode()}
    request = urllib.request.Request(files[0]["uploadUrl"], content, headers, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


def opened(browser: Browser, server: EmbeddedServer, path: str) -> Visit:
    separator = "&" if "?" in path else "?"
    size = {"width": 1280, "height": 4000}
    return visit(browser, f"{server.base_url}{path}{separator}key={server.key}", home=server.base_url, viewport=size)


def copied(page: Page, text: str) -> str:
    """Press the button that copies a text, and return what is then pasted."""
    button = page.get_by_role("button", name=f"Copy {text}")
    button.click()
    expect(button).to_have_text("copied")
    page.evaluate("document.body.appendChild(document.createElement('textarea')).focus()")
    page.keyboard.press("Control+V")
    return page.locator("textarea").last.input_value()


def shown_levels(page: Visit) -> dict[str, list[list[float]]]:
    """Return the lines of the chart by SNR level."""
    lines: dict[str, list[list[float]]] = page.page.evaluate(
        """async () => {
            const script = document.querySelector("script[src*=run_page]").src;
            const { chartOf } = await import(script.replace("run_page", "chart"));
            const { series = [] } = chartOf(document.getElementById("levels")).echarts.getOption() ?? {};
            return Object.fromEntries(series.map((line) => [line.name, line.data]));
        }"""
    )
    return lines


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_violates_wcag(browser: Browser, server: EmbeddedServer, scheme: Literal["light", "dark"]) -> None:
    context = browser.new_context(color_scheme=scheme, bypass_csp=True, viewport={"width": 1280, "height": 3000})
    page = context.new_page()
    page.goto(f"{server.base_url}/login")
    found = {"/login": violations(page)}
    page.goto(f"{server.base_url}/?key={server.key}")
    for path in ("/", "/local/p", "/local/p/runs/lost", "/local/p/sweeps/sweep0012"):
        page.goto(f"{server.base_url}{path}")
        if "/runs/" in path or "/sweeps/" in path:
            page.wait_for_selector("html[data-painted]:not([data-painted='0'])", state="attached")
        found[path] = violations(page)
    assert {path: rules for path, rules in found.items() if rules} == {}
    context.close()


def test_the_first_page_and_a_project_list_sweeps_with_their_best(browser: Browser, server: EmbeddedServer) -> None:
    for path in ("/", "/local/p"):
        page = opened(browser, server, path)
        (row,) = page.texts("table tbody tr:has(.badge)")
        assert "running" in row
        assert re.search(r"\d\d\.\d\d%", row)
        assert re.search(r"\d+ finished", row)
        assert page.page.locator("svg.spark polyline").count() == 1
        page.assert_clean()
        page.page.close()


def test_a_project_shows_a_new_run_without_a_reload(browser: Browser, server: EmbeddedServer) -> None:
    page = opened(browser, server, "/local/p")
    begin(server, "alone")
    expect(page.page.get_by_role("link", name="alone")).to_be_visible(timeout=3000)
    page.assert_clean()
    page.page.goto(server.base_url)
    page.page.get_by_role("link", name=re.compile(r"^\d runs? without a sweep$")).click()
    expect(page.page.get_by_role("link", name="alone")).to_be_visible()
    page.page.close()


def test_a_run_shows_how_it_ended_and_how_to_continue_it(browser: Browser, server: EmbeddedServer) -> None:
    page = opened(browser, server, "/local/p/runs/lost")
    assert page.texts(".headline") == ["Lost after 2 of 12 epochs. Peak val/combined_acc: 50.00% at epoch 2."]
    assert page.texts("code.command") == ["amc-sweep repeat local/p/lost", "amc-sweep resume local/p/lost"]
    assert copied(page.page, "amc-sweep resume local/p/lost") == "amc-sweep resume local/p/lost"
    # A page that came over plain HTTP from another machine has no clipboard of its own.
    page.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    assert copied(page.page, "amc-sweep repeat local/p/lost") == "amc-sweep repeat local/p/lost"
    settings = page.texts("section[aria-labelledby=config] tbody tr td:first-child")
    assert settings[0] == "max_lr searched"
    assert "epochs" in settings
    expect(page.page.locator("#console")).to_have_text("epoch 1\n")
    page.painted()
    assert page.texts("#metric-grid h3") == ["combined_acc"]
    page.assert_clean()
    page.page.close()


def test_a_run_grows_on_its_page(browser: Browser, server: EmbeddedServer) -> None:
    begin(server, "growing")
    page = opened(browser, server, "/local/p/runs/growing")
    expect(page.page.locator("#no-metrics")).to_be_visible()
    rows = [
        json.dumps({"_step": step, "epoch": step + 1, "train/loss": 1 / (step + 1), "val/loss": 0.5})
        for step in range(3)
    ]
    events = [json.dumps({"_runtime": 60, "system.gpu.0.gpu": 50.0})]
    post(
        server,
        "growing",
        history=rows,
        events=events,
        console=["2026-01-01T00:00:00.0 hello", "ERROR 2026-01-01T00:00:00.0 <b>oh</b>"],
    )
    expect(page.page.locator("#console")).to_have_text("hello\n<b>oh</b>\n", timeout=5000)
    assert page.texts("#console .stderr") == ["<b>oh</b>"]
    assert page.texts("#metric-grid h3") == ["loss"]
    assert page.texts("#system-grid h3") == ["system.gpu"]
    upload(server, "growing", "evaluation/best.json", json.dumps(EVALUATION).encode())
    expect(page.page.locator("#confusion-modulation canvas").first).to_be_visible(timeout=6000)
    expect(page.page.get_by_role("link", name="evaluation/best.json")).to_be_visible(timeout=6000)
    first = {"modulation and SNR": [[0, 0.4], [10, 0.8]], "modulation": [[0, 0.6], [10, 0.9]]}
    wait_until(lambda: shown_levels(page) == first, "the first evaluation is drawn", 10)
    better = {**EVALUATION, **{"modulations": class_names("digital17"), "modulation_confusion": [[1] * 17] * 17}}
    better["by_snr"] = [
        {"snr_db": 0, "combined_acc": 0.5, "mod_acc": 0.61},
        {"snr_db": 10, "combined_acc": 0.9, "mod_acc": 1.0},
    ]
    upload(server, "growing", "evaluation/best.json", json.dumps(better).encode())
    expect(page.page.locator("#ceiling-note")).to_contain_text("no receiver does better", timeout=6000)
    second = {
        "modulation and SNR": [[0, 0.5], [10, 0.9]],
        "modulation": [[0, 0.61], [10, 1.0]],
        "ceiling": [[0, 0.662], [10, 1]],
    }
    wait_until(lambda: shown_levels(page) == second, "the better evaluation is drawn", 10)
    send(server, "growing", {"complete": True, "exitcode": 0})
    expect(page.page.locator("#state")).to_have_text("finished", timeout=6000)
    expect(page.page.locator(".headline")).to_contain_text("Completed", timeout=6000)
    page.assert_clean()
    page.page.close()
