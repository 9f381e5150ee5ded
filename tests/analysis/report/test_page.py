"""The page: one file, drawn in a real browser, safe for every run name."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pytest
from browser import Visit, chromium, show, violations
from playwright.sync_api import Browser
from sweep_records import STORY_CONFIG, amc_sweep, completed, run, story, sweep

from amc_analysis.analyse import add_conclusions, analyse, rank_runs
from amc_analysis.report.comparison_page import comparison_html
from amc_analysis.report.page import to_html
from amc_analysis.report.page_data import chart_data
from amc_analysis.runs.confusion import read_confusions
from amc_sweeps.browser import assets
from amc_sweeps.browser.run_rows import as_script
from amc_sweeps.runs.records import Goal, Metric, SweepRecord

EVIL = "</script><script>document.title = 'harmed'</script><img src=x onerror=\"document.title = 'harmed'\">"


def page_of(record: SweepRecord) -> str:
    return to_html(analyse(record))


def own(page: str) -> str:
    """Return the page without the chart library, which names W3C's namespaces."""
    return page.replace(assets.text(assets.LIBRARY), "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def shown(browser: Browser, page: str, folder: Path, **options: Any) -> Visit:
    """Return the page in a window that is tall enough for all of it."""
    opened = show(browser, page, folder, viewport={"width": 1200, "height": 6000}, **options)
    opened.painted()
    return opened


def test_the_page_fetches_nothing_and_escapes_everything() -> None:
    page = page_of(sweep(completed("a", [0.5, 0.6], name=EVIL), config=STORY_CONFIG, name=EVIL))
    assert not re.search(r"<[^>]+\s(?:src|href)=[\"']?(?![\"'#])|url\(|@import|https?://", own(page))
    assert page.count("<script") == 3
    assert "&lt;/script&gt;" in page
    assert "default-src 'none'" in html.unescape(page)
    assert not re.search(r"<[^>]+\son\w+=", own(page)), "no element has an event handler"


def test_only_the_pages_own_scripts_may_run() -> None:
    page = page_of(story())
    allowed = re.search(r"script-src ([^;]+);", html.unescape(page))
    assert allowed is not None
    assert len(re.findall(r"sha256-", allowed[1])) == 2
    assert "unsafe-inline" not in allowed[1]


@pytest.mark.client
def test_a_browser_draws_every_chart_and_runs_no_script_from_a_name(browser: Browser, tmp_path: Path) -> None:
    record = story()
    first, *others = record.runs
    evil = completed("evil", [0.1, 0.2], name=EVIL, config={**first.config, "snr_layer": EVIL})
    page = shown(browser, page_of(sweep(first, evil, *others, config=STORY_CONFIG, name=EVIL)), tmp_path)
    charts = page.page.locator(".chart")
    assert charts.count() >= 4
    assert charts.locator("canvas").count() >= charts.count()
    assert page.page.title() != "harmed"
    assert page.page.locator("img").count() == 0
    assert EVIL in page.column("run")
    told = dict(zip(page.column("run"), page.column("told the search"), strict=True))
    assert (told["whole"], told["gem"], told["alive"]) == ("peak", "worst value", "-"), "W&B's own search"
    page.assert_clean()


@pytest.mark.client
def test_a_browser_draws_confusion_and_accuracy_by_snr(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "best" / "evaluation"
    folder.mkdir(parents=True)
    evaluation = {"modulations": ["BPSK", "QPSK"], "modulation_confusion": [[9, 1], [3, 7]]}
    evaluation |= {"snr_levels_db": [0, 10], "snr_confusion": [[5, 5], [0, 10]]}
    (folder / "epoch_0008.json").write_text(json.dumps(evaluation))
    analysed = rank_runs(amc_sweep())
    confusions = read_confusions(tmp_path / "runs", analysed.record, analysed.ranked)
    report = replace(add_conclusions(analysed), confusions=confusions)
    data = chart_data(report)
    assert data["confusions"][0]["modulation"] == {"names": ["BPSK", "QPSK"], "shares": [[0.9, 0.1], [0.3, 0.7]]}
    assert data["levels"]["runs"][0] == {"run": 0, "points": [[0, 0.4], [10, 0.4]]}
    page = shown(browser, to_html(report), tmp_path)
    for name in ("levels", "confusion-modulation", "confusion-snr"):
        assert page.page.locator(f"#{name} canvas").count() >= 1, name
    page.assert_clean()


@pytest.mark.client
def test_peaks_without_a_history_are_drawn_without_curves(browser: Browser, tmp_path: Path) -> None:
    peaks = [
        run(f"r{i}", summary={"val/combined_acc": 0.4 + i / 100}, config={"max_lr": 1e-3 * (1 + i)}) for i in range(5)
    ]
    page = shown(browser, page_of(sweep(*peaks, config=STORY_CONFIG)), tmp_path)
    assert page.page.locator(".chart canvas").count() >= 2
    assert page.page.locator("#chart-curves").count() == 0
    assert page.column("peak") == ["44.00%", "43.00%", "42.00%", "41.00%", "40.00%"]
    page.assert_clean()


@pytest.mark.client
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_keeps_to_wcag(browser: Browser, tmp_path: Path, scheme: Literal["light", "dark"]) -> None:
    page = shown(browser, page_of(story()), tmp_path, color_scheme=scheme, bypass_csp=True)
    assert violations(page.page) == []


def test_a_page_omits_charts_without_data() -> None:
    page = own(page_of(story()))
    assert 'id="levels"' not in page
    assert "Confusion</h3>" not in page


@pytest.mark.parametrize("content", [None, "{", "{}", '{"modulations": ["a"], "modulation_confusion": [[1, 2]]}'])
def test_an_unreadable_evaluation_is_left_out(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "best" / "evaluation"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "epoch_0008.json").write_text(content)
    analysed = rank_runs(amc_sweep())
    assert read_confusions(tmp_path, analysed.record, analysed.ranked) == ()


def test_every_run_and_section_is_shown_without_scripts() -> None:
    page = re.sub(r"<script.*?</script>", "", page_of(story()), flags=re.DOTALL)
    assert "The charts need JavaScript" in page
    for text in ("gem", "poor", "40.00%", "How runs ended", "What mattered", "Where to look next"):
        assert text in page


def test_the_page_of_an_empty_sweep_has_no_script() -> None:
    page = page_of(sweep())
    assert "no runs yet" in page
    assert "<script" not in page


def test_a_curve_breaks_where_it_is_not_finite() -> None:
    analysed = rank_runs(sweep(run("a", [0.1, 0.2, float("nan"), 0.3], "failed")))
    assert chart_data(add_conclusions(analysed))["runs"][0]["y"] == [0.1, 0.2, None, 0.3]


def test_a_long_curve_is_thinned_but_keeps_its_peak() -> None:
    values = [0.3] * 5000
    values[1234] = 0.9
    drawn_run = chart_data(analyse(sweep(completed("a", values))))["runs"][0]
    assert len(drawn_run["y"]) <= 401
    assert drawn_run["y"][drawn_run["x"].index(1235)] == 0.9


@pytest.mark.client
@pytest.mark.parametrize(("goal", "sign"), [("maximize", 1), ("minimize", -1)])
def test_every_axis_holds_the_best_run_however_far_it_leads(
    browser: Browser, tmp_path: Path, goal: Goal, sign: int
) -> None:
    peaks = [sign * value for value in (0, 0.01, 0.0125, 0.015, 0.0175, 0.02, 0.0225, 0.025, 0.0275, 0.0917)]
    runs = [
        completed(f"r{i}", [sign * -0.01, peak], config={"max_lr": 1e-3 * (i % 3 + 1)}) for i, peak in enumerate(peaks)
    ]
    record = sweep(*runs, metric=Metric("val/score", goal), config={"parameters": {"max_lr": {"min": 0, "max": 1}}})
    page = shown(browser, page_of(record), tmp_path)
    axes = page.page.evaluate(
        """() => [...document.querySelectorAll("#chart-curves, #chart-best, #slice-0, #parallel")].map((box) => {
            const option = echarts.getInstanceByDom(box).getOption();
            const axis = option.parallelAxis ? option.parallelAxis.at(-1) : option.yAxis[0];
            return [axis.min, axis.max];
        })"""
    )
    assert len(axes) == 4
    assert [low <= peaks[-1] <= high for low, high in axes] == [True] * 4
    page.assert_clean()


def test_the_data_cannot_end_its_script_element() -> None:
    assert not set("<>&") & set(as_script({"name": EVIL}))
    assert json.loads(as_script({"name": EVIL})) == {"name": EVIL}


def test_the_chart_library_has_the_documented_checksum() -> None:
    table = (files("amc_sweeps") / "browser" / "README.md").read_text()
    assert hashlib.sha256(assets.text(assets.LIBRARY).encode()).hexdigest() in table
    assert "</script" not in assets.text(assets.LIBRARY)


@pytest.mark.client
def test_several_sweeps_stand_side_by_side(browser: Browser, tmp_path: Path) -> None:
    first = story()
    second = replace(sweep(completed("b", [0.2, 0.9], name=EVIL), config=STORY_CONFIG), sweep_id="another1")
    sweeps = [analyse(first), analyse(second)]
    page = shown(browser, comparison_html(sweeps), tmp_path, bypass_csp=True)
    assert page.page.locator("h2").all_inner_texts() == ["Best so far", "94fqx0gz", "another1"]
    (best,) = [row for row in page.texts("table tr") if row.startswith("best peak")]
    assert "50.00% gem" in best
    assert "90.00% b" in best
    assert page.page.locator("#chart-compared canvas").count() == 1
    best_value = "echarts.getInstanceByDom(document.getElementById('chart-compared')).getOption().yAxis[0].max"
    assert page.page.evaluate(best_value) >= 0.9
    heads = page.texts("[aria-label='Ranking of 94fqx0gz'] th")
    assert max(map(heads.index, sweeps[0].parameter_names)) < heads.index("last"), "parameters before statistics"
    assert page.page.locator("img").count() == 0
    assert violations(page.page) == []
    page.assert_clean()


def test_the_modules_of_one_script_declare_no_name_twice() -> None:
    for entry in ("report.js", "comparison.js"):
        check_names(assets.script(entry))


def check_names(script: str) -> None:
    names = re.findall(r"^(?:async )?(?:const|let|function|class) (\w+)", script, re.MULTILINE)
    assert len(names) > 20
    assert sorted(names) == sorted(set(names))
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
