"""The README's commands run as they are written."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def _section(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ")[0].split("\n### ")[0]


def _lines(text: str) -> list[str]:
    """Return the commands of the bash blocks, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = (re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


@pytest.fixture
def shell_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A newcomer's environment: nothing of W&B's set, but for folders that keep this test's traces together."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "2",
    }
    yield environment
    # Nobody's W&B settings were written, and no key went into a netrc.
    home = Path(environment["HOME"])
    assert not (home / ".netrc").exists()
    assert not Path(environment["NETRC"]).exists()
    assert not (Path(environment["WANDB_CONFIG_DIR"]) / "settings").exists()


@pytest.mark.client
def test_the_loop_by_hand_runs_as_it_is_written(tmp_path: Path, shell_environment: dict[str, str]) -> None:
    synth, export, serve, create, agent, analyze = [
        line for line in _lines(_section("The same by hand")) if not line.startswith(". ")
    ]
    work = tmp_path / "checkout"
    (work / "sweeps").mkdir(parents=True)
    sweep = yaml.safe_load((ROOT / "sweeps" / "smoke.yaml").read_text())
    sweep["run_cap"] = 2
    sweep["parameters"] |= {name: {"value": 2} for name in ("epochs", "patience")}
    sweep["parameters"]["max_lr"] = {"values": [1.0e-3, 5.0e-3]}
    (work / "sweeps" / "smoke.yaml").write_text(yaml.safe_dump(sweep))

    def run(line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line], cwd=work, env=shell_environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run(synth.replace("--frames-per-cell 60", "--frames-per-cell 10"))
    shell_environment["AMC_DATA"] = run(f'{export}; echo -n "$AMC_DATA"')
    server = subprocess.Popen(
        ["bash", "-c", f"exec {serve} --port 0"], cwd=work, env=shell_environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        assert "amc-sweep server at http://127.0.0.1:" in server.stderr.readline()
        line = run(create)
        key = next(Path(shell_environment["HOME"]).rglob("api.key")).read_text().strip()
        assert re.fullmatch("amc-[0-9a-f]{40}", key)
        assert key not in line
        shape = re.escape(agent).replace("8418", r"\d+").replace("KEYFILE", r"\S+").replace("94fqx0gz", r"(\w+)")
        matched = re.fullmatch(shape, line.strip())
        assert matched, line
        run(line)
        sweep_id = matched[1]
        found = json.loads(run(analyze.replace("94fqx0gz", sweep_id) + " --json"))
        assert [row["cause"] for row in found["runs"]] == ["completed", "completed"]
        assert "completed" in run(analyze.replace("94fqx0gz", sweep_id))
        unknown = subprocess.run(
            ["amc-analyze", "nosuch"], env=shell_environment, capture_output=True, text=True, check=False
        )
        assert unknown.returncode == 2
        assert f"local/amc-sweeps/{sweep_id}" in unknown.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
    shutil.rmtree(work)


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
