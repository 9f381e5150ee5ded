"""amc-sweep demo: the whole loop on this machine, with the commands that a user would run, and a ``kill -9``."""

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
from pathlib import Path
from typing import Any

import click
import psutil

from amc_agents.fleet.processes import PROCESS_TAG, end_all
from amc_analysis.reading.wandb_api import open_api
from amc_sweeps.backend.choose import choose_backend
from amc_sweeps.backend.options import Refusal
from amc_sweeps.backend.running_servers import running_servers
from amc_sweeps.grammar.trial_program import is_trial_program

MARKER = ".amc-demo"  # a file in the folder: a demo made it, and the next one may empty it
SEED = 11  # of the search: the second configuration of smoke.yaml diverges
POLL_S = 2.0
LIMIT_S = 600.0  # for the agents, on a machine that is busy with other work
CRASHED_WITHIN_S = 90.0  # the server calls a silent run crashed in this time
GRACE_S = 5
KILL_AFTER_EPOCHS = 8  # of 10: late enough to be a hidden gem
KILL_ANY_AFTER_RUNS = 6
LEAST_RUNS = 8


@click.command("demo")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder of everything that the demo writes; each demo empties it first.",
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

    Writes synthetic RadioML frames, starts an embedded W&B server, registers a sweep, runs it with two `wandb agent`
    processes, and analyses it by peak. One trial diverges, the demo kills one, and Hyperband stops others. Ctrl-C ends
    the demo and everything that it started.

    \b
    amc-sweep demo
    amc-sweep demo --folder elsewhere

    Exit codes: 0 it showed all it should, 1 it did not, 2 refused, 130 interrupted.
    """
    if not sweep_file.is_file():
        raise Refusal(f"{sweep_file}: no such file; run the demo in the checkout, or name a sweep file with --sweep")
    folder = folder.resolve()
    _empty(folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tag = uuid.uuid4().hex
    foreign = [name for name in os.environ if name.startswith(("WANDB_", "AMC_"))]
    for name in foreign:
        del os.environ[name]
    os.environ.update(_environment(folder), **{PROCESS_TAG: tag})
    try:
        _run(folder, sweep_file)
    except KeyboardInterrupt:
        click.echo("\ninterrupted: ending everything that was started", err=True)
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the clean-up
        if "wandb" in sys.modules:  # before its side process is ended, or it complains at exit
            sys.modules["wandb"].teardown()
        for server in running_servers():
            os.kill(server.pid, signal.SIGTERM)
        end_all(tag, grace_s=6 * GRACE_S)


def _empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise Refusal(f"{folder} has files that no demo has written: name another folder with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "wandb").mkdir(parents=True)
        (folder / MARKER).write_text("Made by amc-sweep demo; the next demo empties this folder.\n")
    except OSError as error:
        raise Refusal(f"{folder} cannot be written: {error.strerror}; name another folder with --folder") from error


def _environment(folder: Path) -> dict[str, str]:
    """Return variables that keep this process and its children away from the user's own W&B."""
    wandb = str(folder / "wandb")
    return {
        **{f"WANDB_{name}": wandb for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "DIR")},
        "NETRC": f"{wandb}/netrc",
        "AMC_STATE_DIR": str(folder / "state"),
        "AMC_RUNS_DIR": str(folder / "runs"),
        "AMC_DATA": str(folder / "synthetic.hdf5"),
        # Hyperband can stop a trial only between two posts. The client's default of 15 s is longer than a trial.
        "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "2",
    }


def _run(folder: Path, sweep_file: Path) -> None:
    """Run the story, chapter by chapter."""
    _chapter("1. Synthetic frames in RadioML's layout: 17 modulations x 16 SNR levels x 30")
    _command("amc-data", "synth", os.environ["AMC_DATA"], "--frames-per-cell", "30", "--snr", "0:30:2", "--seed", "1")
    _chapter("2. The embedded W&B server, on a free port of this machine")
    data = str(folder / "server")
    _command("amc-sweep", "serve", "--background", "--port", "0", "--data", data, "--seed", str(SEED))
    _chapter("3. Check the sweep file, register the sweep")
    sweep = json.loads(_command("amc-sweep", "create", str(sweep_file), "--json", capture=True))
    _chapter("4. Two `wandb agent` processes run it, in the care of amc-sweep agent")
    missing = _run_agents(folder, sweep)
    _chapter("5. Which run is best, and how each run ended")
    report = folder / "report.html"
    _command("amc-analyze", sweep["path"], "--html", str(report), "--markdown", str(report.with_suffix(".md")))
    _chapter("Where to look")
    click.echo(f"  {_shown(report):24} the report, in a browser; report.md is the same as Markdown")
    click.echo(f"  {_shown(folder / 'agent-logs'):24} the output of agents and trials")
    click.echo(f"  {_shown(folder / 'runs'):24} checkpoints, one folder a run")
    click.echo(f"  amc-sweep serve --data {_shown(data)}   serves these runs again, with their pages")
    if missing:
        raise click.ClickException(f"the sweep ended, but the demo did not show: {', '.join(missing)}")


def _run_agents(folder: Path, sweep: Mapping[str, Any]) -> list[str]:
    """Run the agents to the end of the sweep and kill one trial; return what did not happen."""
    backend = choose_backend()
    os.environ.update(backend.environment())
    api = open_api(backend)
    command = ["agent", sweep["path"], "--workers", "2", "--grace", f"{GRACE_S}s", "--logs", str(folder / "agent-logs")]
    _show("amc-sweep", *command)
    environment = {**os.environ, "TTY_COMPATIBLE": "0"}  # lines instead of a live table, which our lines would disturb
    fleet = subprocess.Popen([_program("amc-sweep"), *command], env=environment, start_new_session=True)
    killed = None
    deadline_s = time.monotonic() + LIMIT_S
    while fleet.poll() is None:
        if time.monotonic() > deadline_s:
            raise click.ClickException(f"the agents did not end in time; see {_shown(folder / 'agent-logs')}")
        time.sleep(POLL_S)
        if killed is None:
            killed = _kill_leader(_runs(api, sweep))
    _event("the agents have ended; the server waits for the killed run before it calls it crashed")
    deadline_s = time.monotonic() + CRASHED_WITHIN_S
    while any(run.state == "running" for run in _runs(api, sweep)) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    runs = _runs(api, sweep)
    reasons = [run.summary.get("end_reason") for run in runs]
    happened = {
        f"{LEAST_RUNS} runs": len(runs) >= LEAST_RUNS,
        "a diverged run": "diverged" in reasons,
        "a run stopped by Hyperband": "stopped" in reasons,
        "a killed run that counts as crashed": any(run.id == killed and run.state == "crashed" for run in runs),
    }
    return [what for what, true in happened.items() if not true]


def _runs(api: Any, sweep: Mapping[str, Any]) -> list[Any]:
    api.flush()
    project = f"{sweep['entity']}/{sweep['project']}"
    return list(api.runs(project, filters={"sweep": sweep["sweep_id"]}, order="+created_at", lazy=False))


def _kill_leader(runs: list[Any]) -> str | None:
    """Kill a trial late in its training, the best one so far or any one after some runs; return its run's id."""
    best = max(map(_peak, runs), default=0.0)
    for run in runs:
        is_late = run.state == "running" and run.summary.get("epoch", 0) >= KILL_AFTER_EPOCHS
        if is_late and (_peak(run) == best or len(runs) >= KILL_ANY_AFTER_RUNS) and (trial := _trial(run.id)):
            trial.kill()
            _event(f"the demo kills {run.id} with kill -9, like a power cut, at peak {_peak(run):.2%}")
            return str(run.id)
    return None


def _peak(run: Any) -> float:
    return float(run.summary.get("best/combined_acc", 0.0))


def _trial(run_id: str) -> psutil.Process | None:
    """Return the amc-train process of a run."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("WANDB_RUN_ID") == run_id and any(map(is_trial_program, process.cmdline()[:3])):
                return process
    return None


def _command(name: str, *arguments: str, capture: bool = False) -> str:
    """Show and run a command; return its stdout if it is captured."""
    _show(name, *arguments)
    done = subprocess.run(
        [_program(name), *arguments], stdout=subprocess.PIPE if capture else None, text=True, check=False
    )
    if done.returncode != 0:
        raise click.ClickException(f"{name} {arguments[0]} ended with exit code {done.returncode}")
    return done.stdout or ""


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _chapter(title: str) -> None:
    click.secho(f"\n{title}", bold=True)


def _show(*command: str) -> None:
    click.echo(f"$ {' '.join(map(_shown, command))}")


def _event(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {text}")


def _shown(path: str | Path) -> str:
    """Return a path relative to the current folder, as a person would type it."""
    return str(path).replace(f"{Path.cwd()}{os.sep}", "")
