"""The page in use: values, sorting, details on demand, small windows and paper, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Visit, chromium, overlapping_labels, show, violations
from playwright.sync_api import Browser, expect
from sweep_records import STORY_CONFIG, amc_sweep, completed, run, story, sweep

from amc_analysis.analyse import analyse
from amc_analysis.report.page import to_html
from amc_analysis.report.wording import epochs_text
from amc_analysis.results.finding import Finding, Rule, Severity
from amc_analysis.runs.confusion import Confusion, Matrix
from amc_sweeps.runs.records import RunRecord, SweepRecord

pytestmark = pytest.mark.client

LONG = "a-name-that-is-much-longer-than-any-column-" * 4
LOG = "RuntimeError: CUDA error: " + "an illegal memory access was encountered " * 8
WHITE, A4_PX = "rgb(255, 255, 255)", 718  # the width of A4 between margins of 1 cm
SEEN = """() => {
    const isPainted = (canvas) => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
        return new Set(data).size > 4;
    };
    const canvases = [...document.querySelectorAll(".chart canvas")];
    const isCut = (box) => box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight + 1;
    return {
        background: getComputedStyle(document.body).backgroundColor,
        cut: [...document.querySelectorAll(".scroll, pre")].filter((box) => box.offsetParent && isCut(box))
            .map((box) => box.innerText),
        parts: [...document.querySelectorAll("#run-table table")].map((table) => ({
            heads: [...table.tHead.rows[0].cells].map((cell) => cell.textContent),
            runs: [...table.tBodies[0].rows].map((row) => row.dataset.run),
        })),
        charts: [...document.querySelectorAll(".chart")]
            .map((box) => [...box.querySelectorAll("canvas")].some(isPainted)),
        widest: Math.max(...canvases.map((canvas) => canvas.getBoundingClientRect().width)),
        room: document.body.clientWidth,
    };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def many(count: int, **fields: str) -> SweepRecord:
    """Return a sweep with long names and values, of which every seventh run failed."""
    layers = ["bottleneck_" + "128_" * 20 + end for end in ("left", "right")]
    config = {
        **STORY_CONFIG,
        "parameters": {
            "max_lr": {"min": 1e-4, "max": 1e-1, "distribution": "log_uniform_values"},
            "snr_layer": {"values": layers},
            **{f"another_parameter_{number}": {"min": 0, "max": 1} for number in range(9)},
        },
    }

    def one(number: int) -> RunRecord:
        others = {f"another_parameter_{other}": (number * (other + 3)) % 17 / 17 for other in range(9)}
        settings = {"max_lr": 1e-4 * 10 ** (3 * number / count), "snr_layer": layers[number % 2], "epochs": 4, **others}
        name = f"{LONG}{number}"
        if number % 7 == 6:
            return run(f"run{number}", [0.1], "failed", exit_code=1, log_tail=LOG, config=settings, name=name)
        return completed(f"run{number}", [0.1, 0.2 + 0.3 * number / count], config=settings, name=name)

    return sweep(*map(one, range(count)), config=config, **fields)


def opened(browser: Browser, record: SweepRecord, folder: Path, **options: Any) -> Visit:
    page = show(browser, to_html(analyse(record)), folder, viewport={"width": 1280, "height": 900}, **options)
    page.page.wait_for_selector("#run-table tbody tr[data-run]")
    return page


def test_values_on_the_screen_are_those_of_the_analysis(browser: Browser, tmp_path: Path) -> None:
    analysed = analyse(story())
    page = opened(browser, story(), tmp_path)
    scale, ranked = analysed.scale, analysed.ranked
    assert page.column("run") == [entry.run.name for entry in ranked]
    assert page.column("peak") == [scale.text(entry.peak) for entry in ranked]
    assert page.column("last") == [scale.text(entry.last) for entry in ranked]
    assert page.column("smoothed") == [scale.text(entry.smoothed_peak) for entry in ranked]
    assert page.column("progress") == [epochs_text(entry) for entry in ranked]
    assert page.column("cause")[0].startswith("lost")
    heads = [head.rstrip(" ▲▼") for head in page.texts("#run-table thead th")]
    statistics = ("at epoch", "last", "progress", "smoothed", "noise sd", "duration", "evidence")
    parameters = [heads.index(name) for name in analysed.parameter_names]
    assert max(parameters) < min(heads.index(name) for name in statistics)
    page.assert_clean()


def test_a_click_on_a_head_sorts_and_empty_values_come_last(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, story(), tmp_path)
    expected = {"ascending": ["0.001", "0.002", "0.003", "0.004", "0.005", "0.009", "-"]}
    expected["descending"] = [*reversed(expected["ascending"][:-1]), "-"]
    for order in ("ascending", "descending"):
        page.page.get_by_role("button", name="max_lr", exact=True).click()
        assert page.column("max_lr") == expected[order]
        assert page.page.locator(f"th[aria-sort={order}]").inner_text().startswith("max_lr")


def test_rows_have_one_height_and_the_details_show_the_rest_by_click_and_by_key(
    browser: Browser, tmp_path: Path
) -> None:
    page = opened(browser, many(20), tmp_path, bypass_csp=True)
    heights = page.page.locator("#run-table tbody tr").evaluate_all("rows => rows.map((row) => row.offsetHeight)")
    assert set(heights) == {32}
    details, names = page.page.locator("#run-details"), page.page.locator("button.open")
    expect(details).to_be_hidden()
    page.page.locator("tr[data-run=run6] td.cause-cell").click()
    expect(details).to_contain_text(LOG.strip()[:199])
    expect(details).to_contain_text(f"{LONG}6 (run6)")
    row, box = page.page.locator("tr.picked").bounding_box(), details.bounding_box()
    assert row is not None
    assert box is not None
    assert row["y"] + row["height"] <= box["y"] + 1, "the details do not cover their row"
    page.page.locator("tr[data-run=run6] td.cause-cell").click()
    expect(details).to_be_hidden()
    names.first.focus()
    page.page.keyboard.press("Enter")
    expect(details).to_contain_text(f"{LONG}19 (run19)")
    expect(names.first).to_have_attribute("aria-expanded", "true")
    page.page.keyboard.press("ArrowDown")
    expect(details).to_contain_text(f"{LONG}18 (run18)")
    expect(names.nth(1)).to_be_focused()
    assert violations(page.page) == []
    page.page.keyboard.press("Escape")
    expect(details).to_be_hidden()
    expect(names.nth(1)).to_be_focused()
    page.assert_clean()


def test_the_details_of_a_run_have_every_setting_in_full(browser: Browser, tmp_path: Path) -> None:
    record = many(9)
    page = opened(browser, record, tmp_path)
    page.page.locator("button.open").first.click()
    shown = dict(zip(page.texts("#run-details dt"), page.texts("#run-details dd"), strict=True))
    best = analyse(record).ranked[0].run
    assert shown["snr_layer"] == best.config["snr_layer"]
    assert float(shown["another_parameter_8"]) == pytest.approx(best.config["another_parameter_8"], rel=1e-3)
    assert shown["state"] == "finished"
    page.page.get_by_role("button", name="Close").click()
    expect(page.page.locator("button.open").first).to_be_focused()


def test_runs_without_a_value_have_a_table_and_details_too(browser: Browser, tmp_path: Path) -> None:
    record = sweep(*(run(f"r{number}", state="failed", exit_code=1, log_tail=LOG) for number in range(3)))
    page = to_html(analyse(record))
    assert len(page) < 200_000, "no chart, no chart library"
    visited = opened(browser, record, tmp_path)
    visited.page.locator("button.open").first.click()
    expect(visited.page.locator("#run-details")).to_contain_text("illegal memory access")
    visited.assert_clean()


@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_no_window_scrolls_sideways_and_no_labels_overlap(browser: Browser, tmp_path: Path, width: int) -> None:
    names = tuple(
        f"{kind}{order}" for kind in ("ASK", "PSK", "AM-SSB-WC-", "APSK") for order in (4, 16, 32, 64, 128, 256)
    )
    levels = tuple(str(level) for level in range(-20, 32, 2))
    analysed = analyse(many(30))
    matrices = [Matrix(each, tuple(tuple(range(len(each))) for _ in each)) for each in (names, levels)]
    charted = replace(analyse(amc_sweep()), confusions=(Confusion("best", 2, *matrices),))
    for content in (to_html(analysed), to_html(analyse(story())), to_html(charted)):
        page = show(browser, content, tmp_path, viewport={"width": width, "height": 7000})
        page.painted()
        assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert overlapping_labels(page.page) == []
        page.page.close()


@pytest.mark.parametrize("rows", [12, 70])
def test_paper_is_light_and_holds_every_chart_row_and_column(browser: Browser, tmp_path: Path, rows: int) -> None:
    options = {"viewport": {"width": 1600, "height": 900}, "color_scheme": "dark"}
    visited = show(browser, to_html(analyse(many(rows))), tmp_path, **options)
    visited.page.wait_for_selector("#run-table tbody tr[data-run]")
    page = visited.page
    dark = page.evaluate(SEEN)
    assert dark["background"] != WHITE
    page.emulate_media(media="print")
    page.set_viewport_size({"width": A4_PX, "height": 1000})
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    paper = page.evaluate(SEEN)
    assert paper["background"] == WHITE
    assert paper["cut"] == []
    assert all(paper["charts"])
    assert paper["widest"] <= paper["room"]
    assert len(paper["parts"]) > 1, "the table is wider than the paper"
    for part in paper["parts"]:
        assert part["heads"][:2] == dark["parts"][0]["heads"][:2]
        assert sorted(part["runs"]) == sorted(f"run{number}" for number in range(rows))
    printed = [head for part in paper["parts"] for head in part["heads"][2:]]
    assert printed == dark["parts"][0]["heads"][2:]
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    after = page.evaluate(SEEN)
    assert after["background"] == dark["background"]
    assert len(after["parts"]) == 1
    page.evaluate("addEventListener('beforeprint', () => { window.paperClass = document.documentElement.className; })")
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert "on-paper" in page.evaluate("window.paperClass")
    visited.assert_clean()


def test_many_findings_are_folded_and_the_charts_begin_in_the_first_window(browser: Browser, tmp_path: Path) -> None:
    rules = list(Rule)[:5]
    findings = [
        Finding(rule, Severity.ERROR, (f"run{number}",), {}, f"Evidence {number} of {rule}.", "Do not use it.")
        for rule in rules
        for number in range(3)
    ]
    content = to_html(replace(analyse(story()), findings=tuple(findings)))
    visited = show(browser, content, tmp_path, viewport={"width": 1280, "height": 900}, bypass_csp=True)
    visited.painted()
    page = visited.page
    assert f"15 integrity findings, 15 errors: {Rule.SPLIT_CHANGED_ON_RESUME} (3), " in page.inner_text(".answer")
    curves, best = (page.locator(chart).bounding_box() for chart in ("#chart-curves", "#chart-best"))
    assert curves is not None
    assert best is not None
    assert (best["y"], best["height"]) == (curves["y"], curves["height"])
    assert curves["y"] < 750
    second, last = (page.get_by_text(text) for text in (f"Evidence 1 of {rules[0]}", f"Evidence 2 of {rules[4]}"))
    expect(second).to_be_hidden()
    page.get_by_text("2 more of this kind").first.click()
    expect(second).to_be_visible()
    expect(last).to_be_hidden()
    assert violations(page) == []
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(last).to_be_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(last).to_be_hidden()
    expect(second).to_be_visible()
    page.get_by_text(f"3 more: {rules[2]}, ").click()
    expect(page.get_by_text(f"Evidence 0 of {rules[4]}")).to_be_visible()
    visited.assert_clean()


def test_sections_stand_in_the_order_of_the_navigation() -> None:
    seeds = [
        completed(f"lr{rate}-{seed}", [0.4 + rate / 100 + seed / 1000], config={"max_lr": rate, "seed": seed})
        for rate in (1, 2)
        for seed in range(3)
    ]
    promoted = sweep(
        *seeds, config={"method": "random", "program": "amc-train", "parameters": {"max_lr": {"values": [1, 2]}}}
    )
    for record in (story(), amc_sweep(), promoted):
        page = to_html(analyse(record))
        parts = re.search(r'<nav aria-label="Parts">(.*?)</nav>', page, re.DOTALL)
        assert parts is not None
        linked = re.findall(r'href="#([\w-]+)"', parts[1])
        assert linked == re.findall(r'<h2 id="([\w-]+)"', page)
    assert "finalists" in linked
