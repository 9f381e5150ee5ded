"""The report of 1,000 runs with 150 epochs each: its size, how soon it is written and painted, how it scrolls."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from browser import chromium, filter_and_scroll, longest_task_ms, show
from embedded_server import EmbeddedServer
from results_file import keep
from stored_sweeps import many_runs, store_sweep

LARGEST_MB, PAINTED_MS, LONGEST_TASK_MS = 15, 1500, 200
COMMAND = [sys.executable, "-c", "from amc_analysis.cli import main; main()"]


def test_the_report_of_a_thousand_runs_is_small_and_fast(tmp_path: Path) -> None:
    sweep = store_sweep(tmp_path / "data", many_runs(1000, 150))
    report = tmp_path / "report.html"
    with EmbeddedServer(tmp_path / "data") as server:
        environment = {**os.environ, **EmbeddedServer.process_environment(), **server.environment(HOME=str(tmp_path))}
        environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        written_s = []
        for _ in range(3):
            begin = time.perf_counter()
            command = [*COMMAND, f"local/p/{sweep}", "--html", str(report)]
            subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
            written_s.append(time.perf_counter() - begin)
    text = report.read_text(encoding="utf-8")
    painted = []
    with chromium() as browser:
        for _ in range(5):
            page = show(browser, text, tmp_path, viewport={"width": 1280, "height": 1000}).page
            page.wait_for_selector("html[data-painted-at]", state="attached")
            painted.append(int(page.locator("html").get_attribute("data-painted-at") or 0))
            page.close()
        opened = show(browser, text, tmp_path, viewport={"width": 1280, "height": 1000})
        opened.painted()
        page = opened.page
        page.wait_for_timeout(2000)
        filter_and_scroll(page)
        page.locator("button.open").first.click()
        page.wait_for_timeout(700)
        longest = longest_task_ms(page)
        begin = time.perf_counter()
        page.pdf(format="A4")
        printed_s = time.perf_counter() - begin
        opened.assert_clean()
    size_mb = report.stat().st_size / 1e6
    figures = {
        f"size, MB (at most {LARGEST_MB})": round(size_mb, 2),
        "amc-analyze --html, whole command, first time, s": round(written_s[0], 2),
        "again, without new rows, s": round(min(written_s[1:]), 2),
        f"painting, median of 5, ms (at most {PAINTED_MS:,})": median(painted),
        f"longest task of filter, scroll and details, ms (at most {LONGEST_TASK_MS})": round(longest),
        "printing to PDF, s": round(printed_s, 1),
    }
    keep("report", full=True, figures=figures)
    assert size_mb < LARGEST_MB
    assert median(painted) <= PAINTED_MS
    assert longest <= LONGEST_TASK_MS
