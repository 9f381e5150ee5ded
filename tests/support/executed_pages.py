"""Pages of the documentation whose code blocks are all executed, in one shell, as they are written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from repository import ROOT

# By page: what its last sweep shows of the runs (the cause of the end, the number of logged values), and a line that it
# prints as the page says.
PAGES = {
    "tutorial.md": ([("completed", 4)] * 4, "exit code 4\n"),
    "any-script.md": ([("completed", 30)], "exit code 75\n"),
}
LIMIT_S = 240  # on a machine that is busy with other tests


def blocks(text: str) -> list[str]:
    """Return the code blocks of a page.

    Raises:
        ValueError: a block would not be executed: it is in another language than bash, or it is indented.
    """
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    others = [language for language, _ in found if language != "bash"]
    others += re.findall(r"^(?:\s*```|~~~|    ).*$", prose, re.MULTILINE)
    if others:
        raise ValueError(f"not executed: {others}")
    return [block for _, block in found]


def newcomer() -> dict[str, str]:
    """Return this test's environment with our commands on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def check_page(name: str, folder: Path) -> None:
    """Execute a page in an empty folder, and check what it leaves."""
    page = blocks((ROOT / "docs" / name).read_text())
    runs, line = PAGES[name]
    # After the page's own lines its last sweep is read once more.
    ending = 'echo "$line" > line; amc-analyze "$sweep" --json > analysis.json\n'
    script = "\n".join(f"{block}echo {number} >> executed" for number, block in enumerate([*page, ending]))
    environment = newcomer()
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    finally:
        for state in Path(environment["AMC_STATE_DIR"]).glob("*.json"):
            os.kill(json.loads(state.read_text())["pid"], signal.SIGTERM)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (folder / "executed").read_text().split() == [str(number) for number in range(len(page) + 1)]
    analysis = json.loads((folder / "analysis.json").read_text())
    assert [(run["cause"], run["epochs"]) for run in analysis["runs"]] == runs
    assert line in done.stdout
    key = (folder / "server" / "api.key").read_text().strip()
    assert re.fullmatch("amc-[0-9a-f]{40}", key)
    assert key not in (folder / "line").read_text() + done.stdout + done.stderr
    check_untouched(environment)


def check_untouched(environment: Mapping[str, str]) -> None:
    """Check that nobody's W&B settings were written, and that no key went into a netrc."""
    assert not (Path(environment["HOME"]) / ".netrc").exists()
    assert not Path(environment["NETRC"]).exists()
    assert not (Path(environment["WANDB_CONFIG_DIR"]) / "settings").exists()
