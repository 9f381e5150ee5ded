"""amc-sweep agent: one plain wandb agent a GPU, and what becomes of their failures."""

from __future__ import annotations

import os
import re
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from amc_agents.fleet.agent_slot import Place, environment_for
from amc_agents.fleet.devices import Device, DeviceError, Lease, choose, load_driver
from amc_agents.fleet.display import Event, open_display
from amc_agents.fleet.loop import Fleet, Outcome, Rules
from amc_agents.fleet.policy import Ended
from amc_agents.fleet.processes import PROCESS_TAG, Guardian, become_subreaper, end_all
from amc_agents.fleet.watch import Sweep, Watch
from amc_agents.trial.reopen import Reopened, ReopenError, reopen_preempted
from amc_agents.trial.signals import SIGTERM_MEANING
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, Refusal, backend_options, connect
from amc_sweeps.backend.references import find_sweep, parse_reference

LAST_GRACE_S = 3.0  # for what is left after agents and trials have ended
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


def _seconds(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """Read a length of time like 7h30m, 45m or 90s; a bare number is seconds."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        raise click.BadParameter(f"{text!r} is no length of time: write it like 7h30m, 45m or 90s")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@click.command("agent")
@click.argument("sweep")
@click.option(
    "--gpus", metavar="all|0,2", help="Which GPUs, as CUDA_VISIBLE_DEVICES names them. [default: all there are]"
)
@click.option("--per-gpu", type=click.IntRange(min=1), default=1, show_default=True, help="Agents on each GPU.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="N agents without a GPU.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Begin N trials in all, then end.")
@click.option(
    "--max-failures",
    type=click.IntRange(min=1),
    metavar="N",
    help="Begin no more once N trials have failed. [default: when the last 6, or 3 a GPU, have all failed]",
)
@click.option(
    "--time-limit",
    callback=_seconds,
    metavar="7h30m",
    help="Begin no trial that, by the median so far, would not end in time; running ones are left to end.",
)
@click.option(
    "--grace",
    metavar="60s",
    callback=_seconds,
    default="60s",
    show_default=True,
    help="How long trials have to end after Ctrl-C or SIGTERM before they are killed.",
)
@click.option(
    "--stagger",
    metavar="2s",
    callback=_seconds,
    default="2s",
    show_default=True,
    help="Time between two agents' starts.",
)
@click.option(
    "--logs",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("agent-logs"),
    show_default=True,
    help="Where each agent's log goes, in a folder of the sweep's id.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout instead of the table.")
@backend_options
def agent_command(
    sweep: str,
    gpus: str | None,
    per_gpu: int,
    workers: int | None,
    count: int | None,
    max_failures: int | None,
    time_limit: float | None,
    grace: float,
    stagger: float,
    logs: Path,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """Run SWEEP on this machine: one plain `wandb agent` a GPU, watched, started again, and no process left behind.

    SWEEP is ID, PROJECT/ID, ENTITY/PROJECT/ID or the URL of the sweep's page.

    \b
    amc-sweep agent 94fqx0gz                      # every GPU of this machine
    amc-sweep agent 94fqx0gz --gpus 0,2 --per-gpu 2
    amc-sweep agent 94fqx0gz --workers 4 --count 20
    amc-sweep agent 94fqx0gz --time-limit 7h30m   # in a job of eight hours

    A device whose trials keep failing while others' do not is taken out, with the reason. Ctrl-C asks the trials to
    end, and they write a checkpoint; a second one kills them. Plain `wandb agent` works as well, without any of this.

    \b
    Exit codes: 0 the sweep is over, or --count or --time-limit was reached; 1 nothing could go on, and why;
    2 refused as given; 75 preempted (SIGUSR1, or SIGTERM with AMC_SIGTERM=preemption); 129, 130, 143 ended by SIGHUP,
    Ctrl-C, SIGTERM.
    """
    driver = load_driver()
    lease = Lease()
    try:
        reference = parse_reference(sweep)
        devices = choose(driver, gpus=gpus, workers=workers)
        lease.take(devices)
        become_subreaper()
    except (BackendError, DeviceError, OSError) as error:
        raise Refusal(str(error)) from error
    tag = uuid.uuid4().hex
    guardian = Guardian(tag, grace)  # before any thread
    try:
        backend = connect(choice.or_at(reference.base_url))
        os.environ[PROCESS_TAG] = tag
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        try:
            api = wandb.Api(overrides={"base_url": backend.base_url}, api_key=backend.api_key)
            path = find_sweep(reference, api, entity=choice.entity, project=choice.project)
            known = Sweep(api, path)
            found = known.look()
        except BackendError as error:
            raise Refusal(str(error)) from error
        except (wandb.Error, ValueError) as error:
            raise click.ClickException(f"{backend.base_url} does not answer as it should: {error}") from error
        if found is None:
            raise Refusal(f"{backend.base_url} knows no sweep {path}")
        metric = _metric(found)
        watch = Watch(known, metric.get("name"), minimise=metric.get("goal", "minimize") == "minimize")
        places = _places(devices, per_gpu, path, logs, tag)
        where = ", ".join(place.name for place in places)
        click.echo(
            f"Sweep {path}, {found['state'].lower()}: agents on {where}; logs in {places[0].log.parent}", err=True
        )
        now_s = time.monotonic()
        rules = Rules(
            count=count,
            max_failures=max_failures,
            deadline_s=None if time_limit is None else now_s + time_limit,
            grace_s=grace,
            stagger_s=stagger,
        )
        display = open_display(as_json=as_json)
        preempts = os.environ.get(SIGTERM_MEANING) == "preemption"
        fleet = Fleet(
            places,
            rules,
            tag=tag,
            watch=watch,
            driver=driver,
            display=display,
            sigterm_preempts=preempts,
            after=lambda ended: _tell_of_a_preemption(path, ended),
        )
        watch.start()
        try:
            outcome = fleet.run()
        finally:
            watch.end()
            display.close()
        display.tell(Event("done", None, _summary(fleet, outcome), {"exit_code": outcome.exit_code}))
    finally:
        if "wandb" in sys.modules:  # before its side process is ended, or it complains at exit
            sys.modules["wandb"].teardown()
        end_all(tag, grace_s=LAST_GRACE_S)
        guardian.dismiss()
    sys.exit(outcome.exit_code)


def _tell_of_a_preemption(sweep_path: str, ended: Ended) -> str | None:
    """Say to W&B in a trial's place that it was preempted, where the client that should have said it died with it."""
    if ended.run is None:
        return None
    folder = Path(os.environ.get("AMC_RUNS_DIR") or "runs") / ended.run
    try:
        outcome = reopen_preempted(f"{sweep_path.rpartition('/')[0]}/{ended.run}", folder)
    except ReopenError as error:
        return f"{error}; amc-sweep resume {ended.run} continues it"
    return f"{ended.run}: W&B has its rows and knows of the preemption now" if outcome is Reopened.MARKED else None


def _metric(sweep: Mapping[str, Any]) -> Mapping[str, Any]:
    config = yaml.safe_load(sweep.get("config") or "") or {}
    metric = config.get("metric") if isinstance(config, dict) else None
    return metric if isinstance(metric, dict) else {}


def _places(devices: list[Device], per_gpu: int, path: str, logs: Path, tag: str) -> list[Place]:
    command = [str(Path(sys.executable).parent / "wandb"), "agent", path]
    base = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    threads = 0 if devices[0].is_gpu else max(1, (os.cpu_count() or 1) // len(devices))
    folder = logs / path.rpartition("/")[2]
    places = []
    for device in devices:
        for k in range(per_gpu if device.is_gpu else 1):
            name = device.name if k == 0 else f"{device.name}.{k}"
            environment = environment_for(name, device, base, tag=tag, threads=threads)
            places.append(Place(name, device, folder / f"{name}.log", command, environment))
    return places


def _summary(fleet: Fleet, outcome: Outcome) -> str:
    failed = sum(ended.is_failure for ended in fleet.ended)
    return f"{outcome.reason}: {len(fleet.ended)} trials ended, {failed} of them failed"
