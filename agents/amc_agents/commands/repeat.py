"""amc-sweep repeat: a run's configuration again, as it was, or with other seeds."""

from __future__ import annotations

import json
import math
import signal
import statistics
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from amc_agents.commands.targets import open_target
from amc_analysis.reading.wandb_api import translate_errors
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.options import BackendChoice, Refusal, backend_options, refuse
from amc_sweeps.backend.references import Target

if TYPE_CHECKING:
    from amc_agents.trial.relaunch import TrialCommand

METRIC = "best/combined_acc"
_ENDED_BY_US = (128 + signal.SIGINT, 75)  # interrupted, preempted: no further trial


@dataclass(frozen=True)
class Repeat:
    """What came of one trial."""

    run: str
    seed: int
    exit_code: int | None  # None for the run that is repeated
    peak: float | None  # best/combined_acc


@click.command("repeat")
@click.argument("run")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Another seed (of weights, shuffling, dropout) than the run's."
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    help="So many trials, one after the other, each with a new seed, for an estimate of the noise.",
)
@click.option(
    "--in-sweep", is_flag=True, help="Queue it in the run's sweep, for the next agent that asks; start nothing here."
)
@click.option("--data", metavar="FILE", help="Where the run's frames are here (default: AMC_DATA, or as recorded).")
@click.option("--print", "only_print", is_flag=True, help="Print the commands; start nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout at the end.")
@backend_options
def repeat_command(
    run: str,
    seed: int | None,
    count: int | None,
    in_sweep: bool,
    data: str | None,
    only_print: bool,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """Train the configuration of RUN again, with its seed: on a CPU the same numbers, to the last bit.

    The trial is a new run of its own in the same project, outside any sweep; its config names the run that it repeats
    (repeat_of), and its tags do. It runs here, in the foreground. --count N takes N new seeds, beginning after the
    run's, and says at the end how far peaks lie apart.

    \b
    amc-sweep repeat kx81m2ab
    amc-sweep repeat kx81m2ab --count 3               # is the difference between two runs more than luck?
    amc-sweep repeat kx81m2ab --in-sweep --seed 7     # on whichever machine asks next

    Exit codes: 0 done, 2 refused, otherwise that of the first trial that failed.
    """
    backend, api, found = open_target(run, choice, kinds=("run",))
    trials = _prepared(found, seed, count, data, check_data=not in_sweep)
    if in_sweep:
        _queue(api, found, trials, only_print=only_print, backend=backend)
        return
    if only_print:
        for _, trial in trials:
            click.echo(trial.shell_line(backend))
        return
    done = _train(found, trials, backend)
    with translate_errors(backend):
        done = [replace(each, peak=_peak_of(api, found, each.run)) for each in done]
    _report(found, done, as_json=as_json)
    sys.exit(next((each.exit_code for each in done if each.exit_code), 0))


def _prepared(
    target: Target, seed: int | None, count: int | None, data: str | None, *, check_data: bool
) -> list[tuple[int, TrialCommand]]:
    """Return every seed and its trial."""
    from amc_agents.trial import relaunch

    entity, project, run_id = target.path.split("/")
    config = dict(target.api_object.config)
    try:
        settings = relaunch.settings_of(config)
        settings["data"] = relaunch.data_here(settings["data"], data)
        if check_data:
            relaunch.require_same_frames(settings["data"], config)
    except relaunch.RelaunchError as error:
        raise Refusal(f"{target.path} cannot be repeated: {error}") from error
    environment = {"WANDB_ENTITY": entity, "WANDB_PROJECT": project, "WANDB_TAGS": f"repeat-of-{run_id}"}
    return [
        (
            each,
            relaunch.TrialCommand(
                (*relaunch.as_flags({**settings, "seed": each}), f"--repeat_of={run_id}"), environment
            ),
        )
        for each in seeds(int(settings["seed"]), seed, count)
    ]


def seeds(recorded: int, given: int | None, count: int | None) -> list[int]:
    """Return the seeds to train with: the run's own, or new ones."""
    if count is None:
        return [recorded if given is None else given]
    first = recorded + 1 if given is None else given
    return list(range(first, first + count))


def _queue(
    api: Any, target: Target, trials: Sequence[tuple[int, TrialCommand]], *, only_print: bool, backend: Backend
) -> None:
    """Put the configuration before all that the sweep's search proposes."""
    from amc_agents.trial import relaunch

    entity, project, _ = target.path.split("/")
    sweep_id = target.api_object.sweep_name
    if sweep_id is None:
        refuse(f"{target.path} is in no sweep: leave --in-sweep out")
    with translate_errors(backend):
        sweep = api.sweep(f"{entity}/{project}/{sweep_id}")
        settings = relaunch.settings_of(dict(target.api_object.config))
        if "data" not in sweep.config.get("parameters", {}):
            del settings["data"]  # it is whatever the next machine says
        for seed, _ in trials:
            config = {name: value for name, value in {**settings, "seed": seed}.items() if value is not None}
            if only_print:
                click.echo(json.dumps(config))
                continue
            queued = sweep.enqueue_run({name: {"value": value} for name, value in config.items()})
            click.echo(
                f"run {queued} with seed {seed} waits in sweep {sweep_id} for the next agent that asks", err=True
            )


def _train(target: Target, trials: Sequence[tuple[int, TrialCommand]], backend: Backend) -> list[Repeat]:
    """Run the trials one after the other, until one is interrupted."""
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        if child is not None:
            child.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGUSR1, forward)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the trial as well, which ends in peace
    done: list[Repeat] = []
    for number, (seed, trial) in enumerate(trials, start=1):
        run_id = uuid.uuid4().hex[:8]
        click.echo(f"repeat {number} of {len(trials)} of {target.path}: run {run_id}, seed {seed}", err=True)
        environment = {**trial.process_environment(backend), "WANDB_RUN_ID": run_id}
        child = subprocess.Popen(trial.command(), env=environment, restore_signals=True)
        done.append(Repeat(run_id, seed, child.wait(), None))
        if done[-1].exit_code in _ENDED_BY_US or (done[-1].exit_code or 0) < 0:
            break
    return done


def _peak_of(api: Any, target: Target, run_id: str) -> float | None:
    value = api.run(f"{'/'.join(target.path.split('/')[:2])}/{run_id}").summary_metrics.get(METRIC)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def spread(repeats: Sequence[Repeat]) -> tuple[float, float] | None:
    """Return the mean and the standard deviation of peaks over seeds; None where fewer than two seeds have one."""
    peaks = {each.seed: each.peak for each in repeats if each.peak is not None}
    if len(peaks) < 2:
        return None
    return statistics.mean(peaks.values()), statistics.stdev(peaks.values())


def _report(target: Target, done: Sequence[Repeat], *, as_json: bool) -> None:
    config, summary = target.api_object.config, target.api_object.summary_metrics
    whole = Repeat(target.path.split("/")[2], int(config["seed"]), None, summary.get(METRIC))
    noise = spread([whole, *done])
    for each in (whole, *done):
        peak = "none" if each.peak is None else f"{each.peak:.2%}"
        ended = "" if each.exit_code is None else f", exit code {each.exit_code}"
        click.echo(f"  {each.run}  seed {each.seed}  peak {peak}{ended}", err=True)
    if noise is not None:
        click.echo(f"  mean peak {noise[0]:.2%}, standard deviation over seeds {100 * noise[1]:.2f} points", err=True)
    if as_json:
        repeats = [{"run": r.run, "seed": r.seed, "exit_code": r.exit_code, "peak": r.peak} for r in done]
        original = {"run": whole.run, "seed": whole.seed, "peak": whole.peak}
        click.echo(json.dumps({"of": original, "repeats": repeats, "standard_deviation": noise and noise[1]}, indent=2))
