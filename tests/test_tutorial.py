"""The tutorial, and the page about any program, run as they are written. So does the demo that the README names."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What the last sweep of a page shows of its runs: the cause of the end and the number of logged values.
PAGES = {"tutorial.md": [("completed", 4)] * 4, "any-script.md": [("completed", 30)]}
LIMIT_S = 240  # on a machine that is busy with other tests; alone it takes under a minute


def _blocks(text: str) -> list[str]:
    """Return the code blocks of a page.

    Raises:
        ValueError: a block would not be executed: it is in another language than bash, or it is indented.
    """
    blocks = re.findall(r"^```(.*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    others = [language for language, _ in blocks if language != "bash"]
    others += re.findall(r"^(?:\s*```|~~~|    ).*$", prose, re.MULTILINE)
    if others:
        raise ValueError(f"not executed: {others}")
    return [block for _, block in blocks]


@pytest.mark.parametrize("name", PAGES)
def test_every_code_block_would_be_executed(name: str) -> None:
    assert _blocks((ROOT / "docs" / name).read_text())


@pytest.mark.parametrize(
    "block", ["```python\nx = 1\n```", "```\ntrue\n```", "    true", "~~~bash\ntrue\n~~~", "```bash\n"]
)
def test_a_block_that_would_not_be_executed_is_found(block: str) -> None:
    with pytest.raises(ValueError, match="not executed"):
        _blocks(f"# Title\n\n```bash\ntrue\n```\n\n{block}\n")


@pytest.fixture
def shell_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A newcomer's environment: nothing of W&B's set, but for folders that keep this test's traces together."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    yield environment
    for state in Path(environment["AMC_STATE_DIR"]).glob("*.json"):
        os.kill(json.loads(state.read_text())["pid"], signal.SIGTERM)
    # Nobody's W&B settings were written, and no key went into a netrc.
    home = Path(environment["HOME"])
    assert not (home / ".netrc").exists()
    assert not Path(environment["NETRC"]).exists()
    assert not (Path(environment["WANDB_CONFIG_DIR"]) / "settings").exists()


@pytest.mark.client
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_as_it_is_written(name: str, tmp_path: Path, shell_environment: dict[str, str]) -> None:
    blocks = _blocks((ROOT / "docs" / name).read_text())
    folder = tmp_path / "empty"
    folder.mkdir()
    # After the page's own lines the sweep is read once more, by its id.
    ending = 'echo "$line" > line; amc-analyze "$sweep" --json > analysis.json\n'
    script = "\n".join(f"{block}echo {number} >> executed" for number, block in enumerate([*blocks, ending]))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=shell_environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (folder / "executed").read_text().split() == [str(number) for number in range(len(blocks) + 1)]
    runs = json.loads((folder / "analysis.json").read_text())["runs"]
    assert [(run["cause"], run["epochs"]) for run in runs] == PAGES[name]
    key = (folder / "server" / "api.key").read_text().strip()
    assert re.fullmatch("amc-[0-9a-f]{40}", key)
    assert key not in (folder / "line").read_text() + done.stdout + done.stderr
    assert {"tutorial.md": "exit code 4\n", "any-script.md": "exit code 75\n"}[name] in done.stdout  # as the page says


@pytest.mark.client
def test_the_demo_can_be_interrupted_and_leaves_no_process(tmp_path: Path, shell_environment: dict[str, str]) -> None:

    folder = tmp_path / "demo"
    command = ["amc-sweep", "demo", "--folder", str(folder), "--sweep", str(ROOT / "sweeps" / "smoke.yaml")]
    # Whoever starts the tests in the background has them ignore Ctrl-C, and a child inherits that.
    command = ["env", "--default-signal=INT", *command]
    output = (tmp_path / "output").open("w")
    demo = subprocess.Popen(command, env=shell_environment, stdout=output, stderr=output, cwd=tmp_path)
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


def _processes_of(folder: Path) -> list[str]:
    """Return the command lines of the processes that a demo in this folder has started."""
    import psutil

    commands = []
    for process in psutil.process_iter():
        try:
            is_started = process.environ().get("AMC_RUNS_DIR", "").startswith(str(folder))
            if is_started and process.status() != psutil.STATUS_ZOMBIE:
                commands.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return commands
