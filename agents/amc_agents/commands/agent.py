"""amc-sweep agent: one wandb agent per GPU, with restarts and a rule for failures."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from amc_agents.commands.options import seconds
from amc_agents.fleet.agent_slot import AgentSlot, agent_environment
from amc_agents.fleet.devices import Device, DeviceError, Driver, choose_devices, load_driver, lock_devices
from amc_agents.fleet.display import Display, Event, NotifyingDisplay, open_display
from amc_agents.fleet.loop import Fleet
from amc_agents.fleet.policy import TOO_LATE, EndedTrial, Outcome, Rules
from amc_agents.fleet.processes import PROCESS_TAG, Descendants, Guardian, become_subreaper, end_all
from amc_agents.fleet.watch import SweepReader, Watcher
from amc_agents.notify import Notifier, notify_option
from amc_agents.open_target import open_target
from amc_agents.trial.reopen import Reopened, ReopenError, reopen_preempted
from amc_agents.trial.signals import SIGTERM_MEANING
from amc_analysis.reading.wandb_api import open_api, translate_errors
from amc_core.command_line import Refusal
from amc_sweeps.backend.options import BackendChoice, backend_options
from amc_sweeps.backend.patience import be_patient
from amc_sweeps.bounded_texts import TextError, read_yaml
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.run_states import SweepState

LAST_GRACE_S = 3.0  # for the processes that are left after agents and trials have ended
WATCH_TIMEOUT_S = 19.0  # the next poll asks again, and the display says that no answer comes


@click.command("agent")
@click.argument("sweep")
@click.option("--gpus", metavar="all|0,2", help="Which GPUs, written as in CUDA_VISIBLE_DEVICES. [default: all]")
@click.option("--per-gpu", type=click.IntRange(min=1), default=1, show_default=True, help="Agents per GPU.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Run N agents on the CPU.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N trials in all.")
@click.option(
    "--max-failures",
    type=click.IntRange(min=1),
    metavar="N",
    help="End after N failed trials. [default: when the last 6, or 3 per GPU, have all failed]",
)
@click.option(
    "--time-limit",
    callback=seconds,
    metavar="7h30m",
    help="Begin no trial that would end later than this, by the median so far; running trials continue.",
)
@click.option(
    "--late-exit-code",
    type=click.IntRange(0, 255),
    default=0,
    show_default=True,
    metavar="N",
    help="Exit code after --time-limit, for a launcher that starts the command again.",
)
@click.option(
    "--idle-limit",
    callback=seconds,
    metavar="10m",
    help="End when all agents have waited for a trial for so long: the sweep is paused, or others do its last runs.",
)
@click.option(
    "--grace",
    metavar="60s",
    callback=seconds,
    default="60s",
    show_default=True,
    help="Time for trials to end after Ctrl-C or SIGTERM, before they are killed.",
)
@click.option(
    "--stagger",
    metavar="2s",
    callback=seconds,
    default="2s",
    show_default=True,
    help="Time between the starts of two agents.",
)
@click.option(
    "--logs",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("agent-logs"),
    show_default=True,
    help="Folder of the agents' logs; they go into a subfolder named after the sweep. A second fleet gets NAME-2.log.",
)
@notify_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines on stdout instead of the table.")
@backend_options
def agent_command(
    sweep: str,
    gpus: str | None,
    per_gpu: int,
    workers: int | None,
    count: int | None,
    max_failures: int | None,
    time_limit: float | None,
    late_exit_code: int,
    idle_limit: float | None,
    grace: float,
    stagger: float,
    logs: Path,
    notify_url: str | None,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """Run SWEEP on this machine, with one plain `wandb agent` per GPU. Agents that die are restarted.

    SWEEP is ID, PROJECT/ID, ENTITY/PROJECT/ID or the URL of the sweep's page.

    \b
    amc-sweep agent 94fqx0gz                      # every GPU of this machine
    amc-sweep agent 94fqx0gz --gpus 0,2 --per-gpu 2
    amc-sweep agent 94fqx0gz --workers 4 --count 20
    amc-sweep agent 94fqx0gz --time-limit 7h30m   # in a job of eight hours

    A device whose trials keep failing, while trials on other devices do not, gets no more trials. Ctrl-C asks the
    trials to end, and they write a checkpoint; a second Ctrl-C kills them. No process is left behind.

    \b
    Exit codes: 0 the sweep is over, or --count, --time-limit or --idle-limit was reached; 1 the fleet could not
    continue; 2 refused; 75 preempted (SIGUSR1, or SIGTERM with AMC_SIGTERM=preemption); 129, 130, 143 ended by SIGHUP,
    Ctrl-C, SIGTERM.
    """
    driver = load_driver()
    try:
        devices = choose_devices(driver, gpus=gpus, workers=workers)
        locks = lock_devices(devices)
        become_subreaper()
    except (DeviceError, OSError) as error:
        raise Refusal(str(error)) from error
    tag = uuid.uuid4().hex
    guardian = Guardian(tag, grace)  # before any thread
    descendants = Descendants(os.getpid())
    os.environ[PROCESS_TAG] = tag

    def run() -> Outcome:
        path, watcher = _find(sweep, choice)
        rules = Rules(
            count=count,
            max_failures=max_failures,
            deadline_s=None if time_limit is None else time.monotonic() + time_limit,
            grace_s=grace,
            stagger_s=stagger,
            idle_limit_s=idle_limit,
        )
        slots = _slots(devices, per_gpu, path, logs, tag)
        display = open_display(as_json=as_json)
        if notify_url is None:
            return _run(path, slots, rules, tag, watcher, driver, display)
        with contextlib.closing(Notifier(notify_url, path)) as notifier:
            display = NotifyingDisplay(display, notifier, Path.cwd(), minimise=watcher.minimise)
            return _run(path, slots, rules, tag, watcher, driver, display)

    try:
        outcome = run()
    finally:
        # After run(), which has freed the client's objects, and before end_all() kills its side process: else the
        # client prints a traceback.
        if "wandb" in sys.modules:
            sys.modules["wandb"].teardown()
        end_all(tag, descendants, grace_s=LAST_GRACE_S)
        guardian.dismiss()
        locks.close()
    sys.exit(late_exit_code if outcome.reason == TOO_LATE else outcome.exit_code)


def _find(sweep: str, choice: BackendChoice) -> tuple[str, Watcher]:
    target = open_target(sweep, choice, "sweep")
    with translate_errors(target.backend):
        facts = SweepReader(target.api, target.path).sweep()
        watching = open_api(target.backend, timeout_s=WATCH_TIMEOUT_S, tell=lambda _line: None)
    if target.backend.kind != "embedded":
        be_patient(os.environ)  # of agents and trials: W&B limits requests
    if facts is None:
        raise Refusal(f"{target.backend.base_url} has no sweep {target.path}")
    click.echo(f"Sweep {target.path}: {facts['state'].lower()}", err=True)
    metric = _metric(facts)
    minimise = metric.get("goal", "minimize") == "minimize"
    watcher = Watcher(SweepReader(watching, target.path), metric.get("name"), minimise=minimise)
    watcher.is_paused = facts["state"] == SweepState.PAUSED
    return target.path, watcher


def _metric(sweep: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        config, _ = read_yaml(sweep.get("config") or "")
    except (yaml.YAMLError, TextError):
        config = None
    metric = config.get("metric") if isinstance(config, dict) else None
    return metric if isinstance(metric, dict) else {}


def _slots(devices: list[Device], per_gpu: int, path: str, logs: Path, tag: str) -> list[AgentSlot]:
    command = [str(Path(sys.executable).parent / "wandb"), "agent", path]
    base = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    threads = 0 if devices[0].is_gpu else max(1, (os.cpu_count() or 1) // len(devices))
    folder = logs / path.rpartition("/")[2]
    slots = []
    for device in devices:
        for k in range(per_gpu if device.is_gpu else 1):
            name = device.name if k == 0 else f"{device.name}.{k}"
            environment = agent_environment(name, device, base, tag=tag, threads=threads)
            try:
                slots.append(AgentSlot(name, device, folder / f"{name}.log", command, environment))
            except OSError as error:
                raise Refusal(f"{folder} cannot be written ({error.strerror}): name another with --logs") from error
    return slots


def _run(
    path: str, slots: list[AgentSlot], rules: Rules, tag: str, watcher: Watcher, driver: Driver, display: Display
) -> Outcome:
    click.echo(f"Agents: {', '.join(slot.name for slot in slots)}; logs in {slots[0].log.parent}", err=True)
    fleet = Fleet(
        slots,
        rules,
        tag=tag,
        watcher=watcher,
        driver=driver,
        display=display,
        sigterm_preempts=os.environ.get(SIGTERM_MEANING) == "preemption",
        after_trial=lambda trial: _report_preemption(path, trial),
    )
    watcher.start()
    try:
        outcome = fleet.run()
    finally:
        watcher.end()
        display.close()
    trials = fleet.endings.trials
    failed = sum(trial.is_failure for trial in trials)
    text = f"{outcome.reason}: {counted(len(trials), 'trial')} ended, {failed} of them failed"
    display.report(Event("done", None, text, {"exit_code": outcome.exit_code}))
    return outcome


def _report_preemption(sweep_path: str, trial: EndedTrial) -> str | None:
    """Tell W&B that a trial was preempted if its client was killed before it could; return what to report."""
    if trial.run is None:
        return None
    folder = Path(os.environ.get("AMC_RUNS_DIR") or "runs") / trial.run
    try:
        outcome = reopen_preempted(f"{sweep_path.rpartition('/')[0]}/{trial.run}", folder)
    except ReopenError as error:
        return f"{error}; amc-sweep resume {trial.run} continues it"
    return f"{trial.run}: its rows and its preemption were reported to W&B" if outcome is Reopened.MARKED else None
