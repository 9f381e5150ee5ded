"""A sweep of 1,000 runs with 150 epochs each on its page: how soon it is painted, how it scrolls, what it costs."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import psutil
from browser import chromium, filter_and_scroll, longest_task_ms
from embedded_server import EmbeddedServer
from results_file import keep
from stored_sweeps import address_of, many_runs, store_sweep

PAINTED_MS, LONGEST_TASK_MS, IDLE_SHARE = 1500, 200, 0.01
IDLE_S = 30


def test_a_thousand_runs_are_painted_fast_and_cost_little(tmp_path: Path) -> None:
    sweep = store_sweep(tmp_path / "data", many_runs(1000, 150))
    with EmbeddedServer(tmp_path / "data") as server, chromium() as browser:
        address = f"{address_of(server.base_url, sweep)}?key={server.key}"
        painted = []
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.goto(address)
            page.wait_for_selector("html[data-painted-at]", state="attached")
            painted.append(int(page.locator("html").get_attribute("data-painted-at") or 0))
            page.close()
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        page.wait_for_selector("html[data-painted-at]", state="attached")
        time.sleep(2)
        filter_and_scroll(page)
        longest = longest_task_ms(page)
        process = psutil.Process(server.pid)
        before = sum(process.cpu_times()[:2])
        time.sleep(IDLE_S)
        share = (sum(process.cpu_times()[:2]) - before) / IDLE_S
    figures = {
        "first painting, ms": painted[0],
        f"painting, median of 5, ms (at most {PAINTED_MS:,})": median(painted),
        f"longest task of filter and scroll, ms (at most {LONGEST_TASK_MS})": round(longest),
        f"server with an idle page, share of a core (at most {IDLE_SHARE:.0%})": f"{share:.2%}",
    }
    keep("pages", full=True, figures=figures)
    assert median(painted) <= PAINTED_MS
    assert longest <= LONGEST_TASK_MS
    assert share <= IDLE_SHARE
