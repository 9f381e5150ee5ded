"""amc-sweep demo: the whole loop on this machine, told as it happens.

Everything runs as a user would run it: our commands, the embedded server and two plain ``wandb agent`` processes, each
as a process of its own. This module only starts them, watches the runs through W&B's public API, does the one piece of
sabotage that it announces, and cleans up.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import click
import psutil
import yaml

from amc_sweeps.backend.choose import choose_backend
from amc_sweeps.backend.options import Refusal
from amc_sweeps.backend.running_servers import running_servers

AGENTS = 2
FRAMES_PER_CELL = 30  # 17 modulations x 16 SNR levels x 30 = 8,160 frames
DATA_FILE = "synthetic.hdf5"
MARKER = ".amc-demo"  # in the folder: it was made by a demo and may be emptied by the next
PROCESS_TAG = "AMC_DEMO_ID"  # in the environment of every process that the demo starts, however deep
POLL_S = 2.0
KILL_AFTER_RUNS = 2
KILL_AFTER_EPOCHS = 8  # late enough to be a hidden gem
SEED = 11  # of the search: the same configurations in every demo, though not the same luck in time
DIVERGE_BY_RUN = 6
LEAST_RUNS = 8
SHOWN = ("max_lr", "snr_layer", "representation")  # the searched parameters, in the order of a line
LIMIT_S = 600.0  # a machine that others use too may need it
SETTLE_S = 90.0
END_GRACE_S = 8.0
SERVER_START_S = 30.0


_Process = subprocess.Popen[bytes]


@click.command("demo")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where everything goes; emptied at the start of each demo.",
)
@click.option(
    "--sweep",
    "sweep_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("sweeps/smoke.yaml"),
    show_default=True,
    help="The sweep file.",
)
def demo_command(folder: Path, sweep_file: Path) -> None:
    """Show the whole loop in five minutes: no account, no internet, no GPU.

    Writes synthetic RadioML frames, starts an embedded W&B server, registers a sweep, lets two plain `wandb agent`
    processes run it (one trial diverges, one is killed on purpose, Hyperband stops others), and analyses it by peak.
    Ctrl-C ends it and everything that it started.

    \b
    amc-sweep demo
    amc-sweep demo --folder elsewhere

    Exit codes: 0 it showed all it should, 1 it did not, 2 refused, 130 interrupted.
    """
    if not sweep_file.is_file():
        raise Refusal(f"{sweep_file}: no such file; run the demo in the checkout, or name a sweep file with --sweep")
    _empty(folder)
    signal.signal(signal.SIGTERM, _interrupt)
    tag = uuid.uuid4().hex
    os.environ.clear()
    os.environ.update(_environment(folder.resolve(), tag))
    try:
        _tell(_Stage(folder=folder.resolve()), sweep_file)
    except KeyboardInterrupt:
        click.echo("\ninterrupted: ending everything that was started", err=True)
        raise SystemExit(130) from None
    finally:
        if "wandb" in sys.modules:  # before its side process is ended, or it complains at exit
            sys.modules["wandb"].teardown()
        _end_processes(tag)


def _environment(folder: Path, tag: str) -> dict[str, str]:
    """Return an environment with nothing of the user's W&B in it, for this process and all that it starts."""
    foreign = ("WANDB_", "AMC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    settings = folder / "wandb"
    settings.mkdir()
    return {
        **kept,
        **{f"WANDB_{name}": str(settings) for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "DIR")},
        PROCESS_TAG: tag,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "NETRC": str(settings / "netrc"),
        "AMC_STATE_DIR": str(folder / "state"),
        "AMC_RUNS_DIR": str(folder / "runs"),
        "AMC_DATA": str(folder / DATA_FILE),
        # A trial shorter than the client's 15 s between posts could never be stopped early.
        "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "2",
        # Trials fail on purpose here: an agent must not give up after three of them in its first minute.
        "WANDB_AGENT_DISABLE_FLAPPING": "true",
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // AGENTS)),
        "PYTHONUNBUFFERED": "1",
    }


def _end_processes(tag: str) -> None:
    """End whatever the demo started and is still there; found by its tag, since orphans have no parent to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of them behind
    left = [process for process in psutil.process_iter() if _has_tag(process, tag)]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=END_GRACE_S)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=END_GRACE_S)


def _has_tag(process: psutil.Process, tag: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(PROCESS_TAG) == tag
    except (psutil.Error, OSError):
        return False


def _interrupt(_number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _empty(folder: Path) -> None:
    """Make the folder an empty one that a demo owns."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise Refusal(f"{folder} holds files that no demo has written: name another folder with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        (folder / MARKER).write_text("Made by amc-sweep demo; the next demo empties this folder.\n")
    except OSError as error:
        raise Refusal(f"{folder} cannot be written: {error.strerror}; name another folder with --folder") from error


@dataclass
class _Stage:
    """The demo's folder and clock, and how it shows and starts things."""

    folder: Path
    started_s: float = field(default_factory=time.monotonic)

    def chapter(self, title: str) -> None:
        click.secho(f"\n{title}", bold=True)

    def say(self, text: str) -> None:
        click.echo(f"  {text}")

    def event(self, text: str) -> None:
        click.echo(f"  [{time.monotonic() - self.started_s:4.0f} s] {text}")

    def command(self, name: str, *arguments: str, capture: bool = False) -> str:
        """Run one of our commands as a user would, its output shown; return its stdout where it is captured."""
        self.say("$ " + " ".join([name, *map(_shown, arguments)]))
        done = subprocess.run(
            [_executable(name), *arguments], stdout=subprocess.PIPE if capture else None, text=True, check=False
        )
        if done.returncode != 0:
            raise click.ClickException(f"{name} {arguments[0]} ended with exit code {done.returncode}")
        return done.stdout or ""

    def start(self, log: str, name: str, *arguments: str, extra: Mapping[str, str] | None = None) -> _Process:
        """Start a process in a session of its own, so that a Ctrl-C reaches this process alone."""
        with (self.folder / log).open("wb") as file:
            return subprocess.Popen(
                [_executable(name), *arguments],
                env={**os.environ, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _tell(stage: _Stage, sweep_file: Path) -> None:
    """The story, chapter by chapter."""
    stage.chapter(f"1. Synthetic frames in RadioML's layout: 17 modulations x 16 SNR levels x {FRAMES_PER_CELL}")
    data = str(stage.folder / DATA_FILE)
    stage.command(
        "amc-data", "synth", data, "--frames-per-cell", str(FRAMES_PER_CELL), "--snr", "0:30:2", "--seed", "1"
    )
    stage.chapter("2. The embedded W&B server, on a free port of this machine")
    _start_server(stage)
    stage.chapter("3. Check the sweep file, register the sweep")
    sweep = json.loads(stage.command("amc-sweep", "create", str(sweep_file), "--json", capture=True))
    stage.chapter(f"4. {AGENTS} plain `wandb agent` processes run it")
    outcome = _run_agents(stage, sweep, yaml.safe_load(sweep_file.read_text())["parameters"])
    stage.chapter("5. Who really won, and how each run ended")
    page, report = str(stage.folder / "report.html"), str(stage.folder / "report.md")
    stage.command("amc-analyze", sweep["path"], "--html", page, "--markdown", report)
    stage.chapter("Where to look")
    for name, what in (
        ("report.html", "the report, in a browser"),
        ("report.md", "the same as Markdown, to paste into a log"),
        ("agent-1.log", "what an agent and its trials said"),
        ("runs", "checkpoints, one folder a run"),
    ):
        stage.say(f"{_shown(str(stage.folder / name)):24} {what}")
    stage.say(
        f"amc-sweep serve --data {_shown(str(stage.folder / 'server'))}   serves these runs again, pages included"
    )
    if missing := outcome.missing():
        raise click.ClickException(f"the sweep ran, but did not show what it should: {missing}")


def _start_server(stage: _Stage) -> None:
    folder = str(stage.folder / "server")
    arguments = ["serve", "--port", "0", "--data", folder, "--seed", str(SEED)]
    stage.say("$ " + " ".join(["amc-sweep", *map(_shown, arguments)]))
    process = stage.start("server.log", "amc-sweep", *arguments)
    deadline = time.monotonic() + SERVER_START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := running_servers():
            stage.say(f"listening at {found[0].base_url}")
            return
        time.sleep(0.2)
    raise click.ClickException(f"the server did not start:\n{(stage.folder / 'server.log').read_text()}")


def _run_agents(stage: _Stage, sweep: Mapping[str, Any], parameters: Mapping[str, Any]) -> _Outcome:
    """Run the agents until they end by themselves, and say what happens to the runs meanwhile."""
    backend = choose_backend()
    os.environ.update(backend.environment())  # for the agents, and for the public API here
    stage.say(f"$ {_shown(sweep['agent_command'])}")
    agents = [stage.start(f"agent-{n}.log", "wandb", "agent", sweep["path"]) for n in range(1, AGENTS + 1)]
    watcher = _Watcher(stage, sweep, diverging_lr=max(parameters["max_lr"]["values"]))
    deadline = time.monotonic() + LIMIT_S
    while any(agent.poll() is None for agent in agents):
        watcher.look()
        if time.monotonic() > deadline:
            raise click.ClickException(f"the agents did not end in time; see {_shown(str(stage.folder))}/agent-*.log")
        time.sleep(POLL_S)
    if any(run.state == "running" for run in watcher.look()):
        stage.event("the agents are done; waiting for the server to miss the heartbeat of the killed run")
    deadline = time.monotonic() + SETTLE_S
    while any(run.state == "running" for run in watcher.look()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return watcher.outcome()


class _Watcher:
    """Reads the runs through W&B's public API, tells what is new, kills one trial, provokes one divergence."""

    def __init__(self, stage: _Stage, sweep: Mapping[str, Any], diverging_lr: float) -> None:
        import wandb

        self._stage = stage
        self._api = wandb.Api()
        self._sweep = sweep
        self._diverging_lr = diverging_lr
        self._states: dict[str, str] = {}
        self._peak = 0.0  # of all runs so far
        self._enqueued = False
        self._killed: str | None = None
        self._runs: list[Any] = []

    def look(self) -> list[Any]:
        """Read all runs, tell what changed, and intervene where the story wants it."""
        self._api.flush()
        project = f"{self._sweep['entity']}/{self._sweep['project']}"
        runs = self._api.runs(project, filters={"sweep": self._sweep["sweep_id"]}, order="+created_at", lazy=False)
        self._runs = list(runs)
        self._peak = max([_peak(run) for run in self._runs], default=0.0)
        for number, run in enumerate(self._runs, start=1):
            before, self._states[run.id] = self._states.get(run.id), run.state
            if run.state == before:
                continue
            if run.state == "running":
                self._stage.event(f"run {number} {run.name} starts: {_choices(run.config)}")
            elif run.state != "pending":
                said = run.summary.get("end_reason")
                reason = f", says {said}" if said else ", says nothing"
                self._stage.event(f"run {number} {run.name} is {run.state}{reason}; {_progress(run)}")
        self._provoke_divergence()
        self._kill_one()
        return self._runs

    def _provoke_divergence(self) -> None:
        if self._enqueued or len(self._runs) < DIVERGE_BY_RUN:
            return
        self._enqueued = True
        if any(run.config.get("max_lr") == self._diverging_lr for run in self._runs):
            return
        chosen = {name: value for name, value in self._runs[0].config.items() if name in SHOWN}
        self._api.sweep(self._sweep["path"]).enqueue_run({**chosen, "max_lr": self._diverging_lr})
        self._stage.event(f"the search has not drawn max_lr = {self._diverging_lr:g}: the demo enqueues it")

    def _kill_one(self) -> None:
        if self._killed is not None or len(self._runs) < KILL_AFTER_RUNS:
            return
        alive = [run for run in self._runs if run.state == "running" and _epoch(run) >= KILL_AFTER_EPOCHS]
        for run in sorted(alive, key=_peak, reverse=True):
            if _peak(run) < self._peak and len(self._runs) < DIVERGE_BY_RUN:
                continue  # wait for a leader to cut short, though not for ever
            process = _trial_of(run.id)
            if process is not None:
                process.kill()
                self._killed = run.id
                self._stage.event(f"the demo kills {run.name} with kill -9, as a power cut would; {_progress(run)}")
                return

    def outcome(self) -> _Outcome:
        """Count what the story promised."""
        return _Outcome(
            runs=len(self._runs),
            diverged=sum(run.summary.get("end_reason") == "diverged" for run in self._runs),
            stopped=sum(run.summary.get("end_reason") == "stopped" for run in self._runs),
            killed=sum(run.id == self._killed and run.state == "crashed" for run in self._runs),
        )


@dataclass(frozen=True)
class _Outcome:
    runs: int
    diverged: int
    stopped: int
    killed: int

    def missing(self) -> str:
        """Name what was promised and did not happen."""
        promised = {
            f"{LEAST_RUNS} runs": self.runs >= LEAST_RUNS,
            "a diverged run": self.diverged > 0,
            "a run stopped by Hyperband": self.stopped > 0,
            "a killed run that counts as crashed": self.killed > 0,
        }
        return ", ".join(what for what, happened in promised.items() if not happened)


def _trial_of(run_id: str) -> psutil.Process | None:
    """Find the process of a run: the amc-train that an agent started under this run's id."""
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("WANDB_RUN_ID") == run_id
            if mine and any(Path(part).name == "amc-train" for part in process.cmdline()[:3]):
                return process
        except (psutil.Error, OSError):
            continue
    return None


def _choices(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(config[name])}" for name in SHOWN if name in config)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _epoch(run: Any) -> int:
    return int(run.summary.get("epoch", 0))


def _peak(run: Any) -> float:
    return float(run.summary.get("best/combined_acc", 0.0))


def _progress(run: Any) -> str:
    return f"epoch {_epoch(run)}, peak so far {_peak(run):.1%}" if _epoch(run) else "before its first epoch was over"


def _executable(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _shown(text: str) -> str:
    """Shorten paths below the current folder, as a person would type them."""
    return text.replace(f"{Path.cwd()}{os.sep}", "")
