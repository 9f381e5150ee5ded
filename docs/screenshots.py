"""Draw the pictures of README.md and docs: the report and the live pages, as Chromium shows them.

`make screenshots` runs this. The report is of a recorded sweep, the pages are of a made-up one (`demo_sweep.py`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from browser import chromium  # noqa: E402 - the path is set above
from demo_sweep import evaluation, store_demo_sweep  # noqa: E402
from embedded_server import EmbeddedServer  # noqa: E402
from playwright.sync_api import Browser, Page  # noqa: E402
from stored_sweeps import StoredRun, address_of  # noqa: E402

DOCS = ROOT / "docs"
SWEEP = ROOT / "sweeps" / "recorded" / "94fqx0gz.yaml"
COLOURS = 128
LIMIT_BYTES = 200_000  # a README must load fast
HEARTBEAT = """mutation H($id: ID!, $runState: JSONString) { agentHeartbeat(input: {id: $id, runState: $runState}) {
    agent { id } } }"""
UPLOAD = """mutation C($files: [String!]!, $run: String!) { createRunFiles(input: {entityName: "local",
    projectName: "p", runName: $run, files: $files}) { files { uploadUrl } } }"""


def main() -> None:
    """Write the pictures into docs."""
    with TemporaryDirectory() as folder, chromium() as browser:
        _draw_report(browser, Path(folder, "report.html"))
        sweep, run, at_work = store_demo_sweep(Path(folder, "data"))
        with EmbeddedServer(Path(folder, "data")) as server:
            _upload_evaluation(server, run)
            for agent, living in at_work.items():
                server.graphql(HEARTBEAT, id=agent, runState=json.dumps({living: True}))
            for scheme in ("light", "dark"):
                _draw_page(browser, server, address_of(server.base_url, sweep), f"sweep-{scheme}", (1400, 1260), scheme)
            _draw_page(browser, server, f"{server.base_url}/local/p/runs/{run.id}", "run", (1400, 1500), "light")


def _draw_report(browser: Browser, page: Path) -> None:
    analyze = Path(sys.executable).with_name("amc-analyze")
    subprocess.run([analyze, "--from", SWEEP, "--html", page], check=True, stdout=subprocess.DEVNULL)
    opened = browser.new_page(viewport={"width": 1000, "height": 1180})  # to the end of the first chart
    opened.goto(page.as_uri())
    _keep(opened, "report")


def _draw_page(
    browser: Browser,
    server: EmbeddedServer,
    address: str,
    name: str,
    size: tuple[int, int],
    scheme: Literal["light", "dark"],
) -> None:
    opened = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    opened.goto(f"{address}?key={server.key}")
    _keep(opened, name)


def _keep(page: Page, name: str) -> None:
    """Photograph a page when it is drawn, with fewer colours."""
    page.wait_for_selector("html[data-painted]:not([data-painted='0'])", state="attached")
    page.wait_for_timeout(1000)  # charts are drawn one by one, and curves in pieces
    with Image.open(io.BytesIO(page.screenshot())) as image:
        # The default method (median cut) merges the small coloured marks, such as a warning's and an error's.
        picture = image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
    picture.save(DOCS / f"{name}.png", optimize=True)
    size = (DOCS / f"{name}.png").stat().st_size
    if size > LIMIT_BYTES:
        sys.exit(f"docs/{name}.png has {size:,} bytes, allowed are {LIMIT_BYTES:,}: make it smaller, or lower COLOURS")
    page.close()


def _upload_evaluation(server: EmbeddedServer, run: StoredRun) -> None:
    content = json.dumps(evaluation(run.values)).encode()
    (file,) = server.graphql(UPLOAD, files=["evaluation/best.json"], run=run.id)["createRunFiles"]["files"]
    headers = {"Content-MD5": base64.b64encode(hashlib.md5(content).digest()).decode()}
    urllib.request.urlopen(
        urllib.request.Request(file["uploadUrl"], content, headers, method="PUT"), timeout=10
    ).close()


if __name__ == "__main__":
    main()
