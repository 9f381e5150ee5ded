"""Pages in the system's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Give a browser; the test is skipped on a machine without Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """An open page, and what went wrong on it."""

    page: Page
    home: str  # where its requests may go: the beginning of an address
    errors: list[str] = field(default_factory=list)
    outside_requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._check)

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.errors.append(text)

    def _check(self, request: Request) -> None:
        if not request.url.startswith((self.home, "data:", "blob:")):
            self.outside_requests.append(request.url)

    def assert_clean(self) -> None:
        """Check that nothing was written to the console and nothing was fetched from elsewhere."""
        assert self.errors == []
        assert self.outside_requests == []

    def painted(self) -> None:
        """Wait until everything that is on the screen is drawn."""
        self.page.wait_for_selector("html[data-painted]:not([data-painted='0'])", state="attached")

    def texts(self, selector: str) -> list[str]:
        """Return the visible texts of elements."""
        return [text.strip() for text in self.page.locator(selector).all_inner_texts()]

    def column(self, title: str) -> list[str]:
        """Return a column of the table of runs."""
        heads = [head.rstrip(" ▲▼") for head in self.texts("#run-table thead th")]
        return self.texts(f"#run-table tbody tr:not(.spacer) td:nth-child({heads.index(title) + 1})")


def violations(page: Page) -> list[str]:
    """Return what of WCAG 2.1 A and AA a page violates, by axe. Its context needs ``bypass_csp``."""
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    result = page.evaluate("rules => axe.run(document, { runOnly: rules })", rules)
    assert result["passes"], "axe looked at nothing"
    return [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in result["violations"]]


def visit(context: Browser | BrowserContext, address: str, *, home: str | None = None, **options: Any) -> Visit:
    """Open an address in a page of its own."""
    opened = Visit(context.new_page(**options), home or address)
    opened.page.goto(address)
    return opened


def show(context: Browser | BrowserContext, page: str, folder: Path, **options: Any) -> Visit:
    """Open a page that is one file."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    return visit(context, (folder / "page.html").as_uri(), **options)


def overlapping_labels(page: Page) -> list[str]:
    """Return the pairs of texts that overlap by more than a pixel in a chart of the page."""
    pairs: list[str] = page.evaluate(
        """() => {
            const corners = (text) => {
                const { x, y, width, height } = text.getBoundingRect();
                const [a, b, c, d, e, f] = text.transform ?? [1, 0, 0, 1, 0, 0];
                const [left, right, top, bottom] = [x + 1, x + width - 1, y + 1, y + height - 1];
                return [[left, top], [right, top], [right, bottom], [left, bottom]]
                    .map(([u, v]) => [a * u + c * v + e, b * u + d * v + f]);
            };
            // Two rectangles are apart where a line along an edge of one separates them.
            const apart = (one, other) => [[one, other], [other, one]].some(([edges]) => edges.some(([x, y], place) => {
                const [u, v] = edges[(place + 1) % 4];
                const along = (points) => points.map(([p, q]) => p * (v - y) - q * (u - x));
                const [first, second] = [along(one), along(other)];
                return Math.max(...first) <= Math.min(...second) || Math.max(...second) <= Math.min(...first);
            }));
            return [...document.querySelectorAll(".chart")].flatMap((box) => {
                const chart = echarts.getInstanceByDom(box);
                if (!chart) return [];
                const texts = chart.getZr().storage.getDisplayList(true)
                    .filter(({ type, style, invisible }) => type === "tspan" && style.text.trim() && !invisible)
                    .map((shape) => [shape.style.text, corners(shape)]);
                return texts.flatMap(([text, place], index) => texts.slice(index + 1)
                    .filter(([, other]) => !apart(place, other)).map(([other]) => `${box.id}: ${text} | ${other}`));
            });
        }"""
    )
    return pairs


WATCH_TASKS = """window.tasks = [];
new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((task) => task.duration)))
    .observe({ type: "longtask", buffered: false });"""


def filter_and_scroll(page: Page) -> None:
    """Filter the table of runs by some texts and scroll it, with a watch on the page's tasks (``longest_task_ms``)."""
    page.evaluate(WATCH_TASKS)
    for words in ("max_lr<0.01", "resnet50", "gpu-1", ""):
        page.fill("#search", words)
        page.wait_for_timeout(700)
    for top in range(0, 30_000, 1500):
        page.evaluate("top => { document.querySelector('.scroll.runs').scrollTop = top; }", top)
        page.wait_for_timeout(30)


def longest_task_ms(page: Page) -> float:
    """Return how long the longest task took since the watch began; the browser names those over 50 ms only."""
    return float(max(page.evaluate("window.tasks"), default=0))
