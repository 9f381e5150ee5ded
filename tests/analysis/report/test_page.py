"""The page: one file, drawn in a real browser, safe for every run name."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from sweep_records import STORY_CONFIG, amc_sweep, completed, run, story, sweep

from amc_analysis.analyse import add_conclusions, analyse, rank_runs
from amc_analysis.report.page import to_html
from amc_analysis.report.page_data import as_script, chart_data, visible_range
from amc_analysis.runs.confusion import read_confusions
from amc_sweeps.charts import chart_library
from amc_sweeps.runs.records import Goal, Metric, SweepRecord

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "</script><script>document.title = 'harmed'</script><img src=x onerror=\"document.title = 'harmed'\">"


def page_of(record: SweepRecord) -> str:
    return to_html(analyse(record))


def own(page: str) -> str:
    """Return the page without the chart library, which names W3C's namespaces."""
    return page.replace(chart_library(), "")


def drawn(page: str, folder: Path) -> str:
    """Return the document as it is after its scripts have run in a browser."""
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    (folder / "page.html").write_text(page, encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--window-size=1200,4000"]
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [BROWSER, *flags, profile, "--dump-dom", f"file://{folder / 'page.html'}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


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
def test_a_browser_draws_every_chart_and_runs_no_script_from_a_name(tmp_path: Path) -> None:
    record = story()
    first, *others = record.runs
    evil = completed("evil", [0.1, 0.2], name=EVIL, config={**first.config, "snr_layer": EVIL})
    document = drawn(page_of(sweep(first, evil, *others, config=STORY_CONFIG, name=EVIL)), tmp_path)
    assert re.search(r'<html[^>]* class="scripted"', document)
    charts = re.search(r'data-charts="(\d+)"', document)
    assert charts is not None, "the script ended"
    assert int(charts[1]) >= 4
    assert document.count("<canvas") == int(charts[1])
    assert "<title>harmed" not in document
    assert "<img" not in re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)


@pytest.mark.client
def test_a_browser_draws_confusion_and_accuracy_by_snr(tmp_path: Path) -> None:
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
    document = drawn(to_html(report), tmp_path)
    for name in ("levels", "confusion-modulation", "confusion-snr"):
        assert re.search(rf'id="{name}"[^>]*>\s*<div[^>]*><canvas', document), name


@pytest.mark.client
def test_peaks_without_a_history_are_drawn_without_curves(tmp_path: Path) -> None:
    peaks = [
        run(f"r{i}", summary={"val/combined_acc": 0.4 + i / 100}, config={"max_lr": 1e-3 * (1 + i)}) for i in range(4)
    ]
    document = drawn(page_of(sweep(*peaks, config=STORY_CONFIG)), tmp_path)
    charts = re.search(r'data-charts="(\d+)"', document)
    assert charts is not None, "the script ended"
    assert int(charts[1]) >= 2
    assert "chart-curves" not in re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)


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


@pytest.mark.parametrize(("goal", "sign"), [("maximize", 1), ("minimize", -1)])
def test_every_axis_holds_the_best_run_however_far_it_leads(goal: Goal, sign: int) -> None:
    peaks = [sign * value for value in (0, 0.01, 0.0125, 0.015, 0.0175, 0.02, 0.0225, 0.025, 0.0275, 0.0917)]
    runs = [
        completed(f"r{i}", [sign * -0.01, peak], config={"max_lr": 1e-3 * (i % 3 + 1)}) for i, peak in enumerate(peaks)
    ]
    metric = Metric("val/score", goal)
    data = chart_data(analyse(sweep(*runs, metric=metric, config={"parameters": {"max_lr": {"min": 0, "max": 1}}})))
    for low, high in (data["range"], data["peakRange"], *(each["range"] for each in data["slices"])):
        assert low <= peaks[-1] <= high
    assert data["slices"]


def test_one_divergence_does_not_flatten_the_other_curves() -> None:
    values = [0.1 * i for i in range(20)]
    low, high = visible_range([*values, 1e30], "minimize")
    assert (low, high < 10) == (0, True)
    low, high = visible_range([*values, -1e30], "maximize")
    assert (low > -10, high) == (True, max(values))


def test_the_data_cannot_end_its_script_element() -> None:
    assert not set("<>&") & set(as_script({"name": EVIL}))
    assert json.loads(as_script({"name": EVIL})) == {"name": EVIL}


def test_the_chart_library_has_the_documented_checksum() -> None:
    table = (files("amc_sweeps") / "charts" / "README.md").read_text()
    assert hashlib.sha256(chart_library().encode()).hexdigest() in table
    assert "</script" not in chart_library()
