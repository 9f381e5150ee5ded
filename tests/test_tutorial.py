"""The tutorial runs as it is written, and the demo that the README names can be interrupted.

tests/soak/test_any_script.py runs the page about any program.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from executed_pages import PAGES, blocks, check_page, check_untouched, newcomer
from repository import ROOT


@pytest.mark.parametrize("name", PAGES)
def test_every_code_block_would_be_executed(name: str) -> None:
    assert blocks((ROOT / "docs" / name).read_text())


@pytest.mark.parametrize(
    "block", ["```python\nx = 1\n```", "```\ntrue\n```", "    true", "~~~bash\ntrue\n~~~", "```bash\n"]
)
def test_a_block_that_would_not_be_executed_is_found(block: str) -> None:
    with pytest.raises(ValueError, match="not executed"):
        blocks(f"# Title\n\n```bash\ntrue\n```\n\n{block}\n")


@pytest.mark.client
def test_the_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_page("tutorial.md", tmp_path / "empty")


@pytest.mark.client
def test_the_demo_can_be_interrupted_and_leaves_no_process(tmp_path: Path) -> None:
    environment = newcomer()
    folder = tmp_path / "demo"
    command = ["amc-sweep", "demo", "--folder", str(folder), "--sweep", str(ROOT / "sweeps" / "smoke.yaml")]
    # Whoever starts the tests in the background has them ignore Ctrl-C, and a child inherits that.
    command = ["env", "--default-signal=INT", *command]
    output = (tmp_path / "output").open("w")
    demo = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=tmp_path)
    deadline = time.monotonic() + 120
    # When a trial runs, the server, the agents and wandb-core run, too.
    while not any("amc-train" in line for line in _processes_of(folder)) and time.monotonic() < deadline:
        assert demo.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.2)
    assert len(_processes_of(folder)) > 3
    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=40) == 130
    output.close()
    deadline = time.monotonic() + 5
    while _processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _processes_of(folder) == []
    check_untouched(environment)


def _processes_of(folder: Path) -> list[str]:
    """Return the command lines of the processes that a demo in this folder has started."""
    commands = []
    for process in psutil.process_iter():
        try:
            is_started = process.environ().get("AMC_RUNS_DIR", "").startswith(str(folder))
            if is_started and process.status() != psutil.STATUS_ZOMBIE:
                commands.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return commands
