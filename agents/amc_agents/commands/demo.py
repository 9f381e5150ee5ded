"""amc-sweep demo: the whole loop on this machine, with the commands that a user would run, and a ``kill -9``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import click
import psutil

from amc_agents.fleet.processes import PROCESS_TAG, end_all
from amc_core.command_line import Refusal
from amc_sweeps.backend.running_servers import running_servers
from amc_sweeps.grammar.trial_program import is_trial_program
from amc_sweeps.number_formats import counted

MARKER = ".amc-demo"  # a file in the folder: a demo made it, and the next one may empty it
SEED = 11  # of the search: the second configuration of smoke.yaml diverges
POLL_S = 1.0
LIMIT_S = 600.0  # for the agents, on a machine that is busy with other work
CRASHED_WITHIN_S = 90.0  # the server calls a silent run crashed in this time
GRACE_S = 5
KILL_AFTER_EPOCHS = 8  # of 10: late enough to be a hidden gem
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

    Exit codes: 0 everything was shown, 1 something was not, 2 refused, 130 interrupted.
    """
    if not sweep_file.is_file():
        raise Refusal(f"{sweep_file}: no such file; run the demo in the checkout, or name a sweep file with --sweep")
    folder = folder.resolve()
    _empty(folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tag = uuid.uuid4().hex
    _set_environment(folder, tag)
    try:
        _run(folder, sweep_file)
    except KeyboardInterrupt:
        click.echo("\ninterrupted: ending everything that was started", err=True)
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the clean-up
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


def _set_environment(folder: Path, tag: str) -> None:
    for name in [name for name in os.environ if name.startswith(("WANDB_", "AMC_"))]:
        del os.environ[name]
    os.environ.update({f"WANDB_{name}": f"{folder}/wandb" for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "DIR")})
    os.environ["NETRC"] = f"{folder}/wandb/netrc"
    os.environ["AMC_STATE_DIR"] = f"{folder}/state"
    os.environ["AMC_RUNS_DIR"] = f"{folder}/runs"
    os.environ["AMC_DATA"] = f"{folder}/synthetic.hdf5"
    os.environ[PROCESS_TAG] = tag
    # Hyperband can stop a trial only between two posts. The client's default of 15 s is longer than a trial.
    os.environ["WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL"] = "2"


def _run(folder: Path, sweep_file: Path) -> None:
    _chapter("1. Synthetic frames in RadioML's layout: 17 modulations x 16 SNR levels x 30")
    _command("amc-data", "synth", os.environ["AMC_DATA"], "--frames-per-cell", "30", "--snr", "0:30:2", "--seed", "1")
    _chapter("2. The embedded W&B server, on a free port of this machine")
    _command("amc-sweep", "serve", "--background", "--port", "0", "--data", f"{folder}/server", "--seed", str(SEED))
    _chapter("3. Check the sweep file, register the sweep")
    sweep = json.loads(_command("amc-sweep", "create", str(sweep_file), "--json", capture=True))["path"]
    _chapter("4. amc-sweep agent runs the sweep with two `wandb agent` processes")
    _run_agents(folder, sweep)
    _chapter("5. Which run is best, and how each run ended")
    _command("amc-analyze", sweep, "--html", f"{folder}/report.html", "--markdown", f"{folder}/report.md")
    _chapter("Where to look")
    click.echo(
        f"  {_short_path(folder / 'report.html'):24} the report, in a browser; report.md is the same as Markdown"
    )
    click.echo(f"  {_short_path(folder / 'agent-logs'):24} the output of agents and trials")
    click.echo(f"  {_short_path(folder / 'runs'):24} checkpoints, one folder a run")
    click.echo(f"  amc-sweep serve --data {_short_path(folder / 'server')}   serves these runs again, with their pages")
    runs = _runs(sweep)
    expected = {
        f"{LEAST_RUNS} runs": sum(runs["by_state"].values()) >= LEAST_RUNS,
        "a diverged run": "diverged" in runs["by_cause"],
        "a run stopped by Hyperband": "early_stopped" in runs["by_cause"],
        "a killed run that counts as crashed": "crashed" in runs["by_state"],
    }
    if missing := [name for name, was_shown in expected.items() if not was_shown]:
        raise click.ClickException(f"the sweep ended, but the demo did not show: {', '.join(missing)}")


def _run_agents(folder: Path, sweep: str) -> None:
    options = ("--workers", "2", "--grace", f"{GRACE_S}s", "--logs", f"{folder}/agent-logs")
    _show("amc-sweep", "agent", sweep, *options)
    environment = {**os.environ, "TTY_COMPATIBLE": "0"}  # lines instead of a live table, which our lines would disturb
    fleet = subprocess.Popen([_program("amc-sweep"), "agent", sweep, *options], env=environment, start_new_session=True)
    is_killed = False
    deadline_s = time.monotonic() + LIMIT_S
    while fleet.poll() is None:
        if time.monotonic() > deadline_s:
            raise click.ClickException(f"the agents did not end in time; see {_short_path(folder / 'agent-logs')}")
        time.sleep(POLL_S)
        is_killed = is_killed or _kill_late_trial(folder / "runs")
    _event("the agents have ended; waiting until the server calls the killed run crashed")
    deadline_s = time.monotonic() + CRASHED_WITHIN_S
    while "running" in _runs(sweep)["by_state"] and time.monotonic() < deadline_s:
        time.sleep(POLL_S)


def _runs(sweep: str) -> dict[str, dict[str, int]]:
    command = [_program("amc-sweep"), "status", sweep, "--json"]
    return dict(json.loads(subprocess.check_output(command, stderr=subprocess.DEVNULL))["runs"])


def _kill_late_trial(runs: Path) -> bool:
    epochs = {history.parent.name: history.read_text().count("\n") for history in runs.glob("*/history.jsonl")}
    for process in psutil.process_iter(["cmdline", "environ"]):
        run_id = (process.info["environ"] or {}).get("WANDB_RUN_ID", "")
        is_late = epochs.get(run_id, 0) >= KILL_AFTER_EPOCHS
        if is_late and any(map(is_trial_program, (process.info["cmdline"] or [])[:3])):
            process.kill()
            _event(f"the demo kills {run_id} after {counted(epochs[run_id], 'epoch')} with kill -9, like a power cut")
            return True
    return False


def _command(name: str, *arguments: str, capture: bool = False) -> str:
    """Show and run a command; return its stdout if it is captured."""
    _show(name, *arguments)
    command, stdout = [_program(name), *arguments], subprocess.PIPE if capture else None
    process = subprocess.run(command, stdout=stdout, text=True, check=False)
    if process.returncode != 0:
        raise click.ClickException(f"{name} {arguments[0]} ended with exit code {process.returncode}")
    return process.stdout or ""


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _show(*command: str) -> None:
    click.echo(f"$ {' '.join(map(_short_path, command))}")


def _chapter(title: str) -> None:
    click.secho(f"\n{title}", bold=True)


def _event(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {text}")


def _short_path(path: str | Path) -> str:
    return str(path).replace(f"{Path.cwd()}{os.sep}", "")
