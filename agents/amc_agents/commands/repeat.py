"""amc-sweep repeat: train a run's configuration again, with the same seed or with others."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from amc_agents.open_target import OpenTarget, open_target
from amc_agents.repeats.queue_runs import queue_delay, queue_problem, queue_run, queued_name, trial_values
from amc_analysis.reading.wandb_api import translate_errors
from amc_core.command_line import Refusal, refuse
from amc_sweeps.backend.options import BackendChoice, backend_options
from amc_sweeps.number_formats import percent, points
from amc_sweeps.values import as_finite

if TYPE_CHECKING:
    from amc_agents.trial.relaunch import TrialCommand

METRIC = "best/combined_acc"
STDERR = 2  # for the trials' lines: standard output is for --json
_INTERRUPTED_CODES = (128 + signal.SIGINT, 75)  # interrupted, preempted: start no further trial


@dataclass(frozen=True)
class Repeat:
    """One trial of the configuration, and its result."""

    run: str
    seed: int
    exit_code: int | None  # None for the original run
    peak: float | None  # best/combined_acc


@click.command("repeat")
@click.argument("run")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Seed of weights, shuffling and dropout, instead of the run's own."
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    help="Number of trials, one after the other, each with a new seed, for an estimate of the noise.",
)
@click.option("--in-sweep", is_flag=True, help="Queue it in the run's sweep for the next agent; start nothing here.")
@click.option("--data", metavar="FILE", help="The run's data file here (default: AMC_DATA, else the recorded path).")
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
    """Train the configuration of RUN again with its seed; on a CPU the numbers are identical to the last bit.

    The trial is a new run in the same project, outside any sweep. Its config (repeat_of) and its tags name the
    original run. It runs here, in the foreground. --count N trains with N new seeds, from --seed or from the
    run's seed + 1 on, and reports the standard deviation of the peaks at the end.

    \b
    amc-sweep repeat kx81m2ab
    amc-sweep repeat kx81m2ab --count 3               # is the difference between two runs more than chance?
    amc-sweep repeat kx81m2ab --in-sweep --seed 7     # on the next machine that asks for a run

    Exit codes: 0 done, 1 the server does not answer, 2 refused, otherwise that of the first trial that failed.
    """
    original = open_target(run, choice, "run")
    if in_sweep and original.backend.kind != "embedded":
        _refuse_queueing(original, seed, count)
    trials = _prepare_trials(original, seed, count, data, check_data=not in_sweep)
    if in_sweep:
        _queue(original, list(trials), only_print=only_print)
    elif only_print:
        click.echo("\n".join(trial.shell_line(original.backend) for trial in trials.values()))
    else:
        repeats = _train(original, trials)
        with translate_errors(original.backend):
            repeats = [replace(repeat, peak=_read_peak(original, repeat.run)) for repeat in repeats]
        _report(original, repeats, as_json=as_json)
        if exit_code := next((repeat.exit_code for repeat in repeats if repeat.exit_code), 0):
            sys.exit(exit_code)


def _prepare_trials(
    original: OpenTarget, seed: int | None, count: int | None, data: str | None, *, check_data: bool
) -> dict[int, TrialCommand]:
    from amc_agents.trial import relaunch

    entity, project, run_id = original.path.split("/")
    config = dict(original.api_object.config)
    try:
        settings = relaunch.recorded_settings(config)
        settings["data"] = relaunch.choose_data_file(settings["data"], data)
        if check_data:
            relaunch.require_same_frames(settings["data"], config)
    except relaunch.RelaunchError as error:
        raise Refusal(f"{original.path} cannot be repeated: {error}") from error
    environment = {"WANDB_ENTITY": entity, "WANDB_PROJECT": project, "WANDB_TAGS": f"repeat-of-{run_id}"}
    trials = {}
    for trial_seed in seeds(int(settings["seed"]), seed, count):
        flags = (*relaunch.as_flags({**settings, "seed": trial_seed}), f"--repeat_of={run_id}")
        trials[trial_seed] = relaunch.TrialCommand(flags, environment)
    return trials


def seeds(recorded: int, choice: int | None, count: int | None) -> list[int]:
    """Return the seeds to train with: the run's own, or new ones."""
    if count is None:
        return [recorded if choice is None else choice]
    first = recorded + 1 if choice is None else choice
    return list(range(first, first + count))


def _refuse_queueing(original: OpenTarget, seed: int | None, count: int | None) -> NoReturn:
    project, _, run_id = original.path.rpartition("/")
    options = "".join(f" --{name} {value}" for name, value in (("seed", seed), ("count", count)) if value is not None)
    promotion = ""
    if (sweep := original.api_object.sweep_name) is not None:
        promotion = (
            "\nThis makes a new sweep of it, for agents:\n"
            f"  amc-sweep promote {project}/{sweep} --run {run_id} --seeds {count or 1}"
        )
    refuse(
        f"--in-sweep: {original.backend.base_url} queues no runs in a sweep, so nothing was queued. This trains the "
        f"configuration here, outside of the sweep:\n  amc-sweep repeat {original.path}{options}{promotion}"
    )


def _queue(original: OpenTarget, trial_seeds: Sequence[int], *, only_print: bool) -> None:
    """Queue the configuration in the run's sweep: agents get it before the configurations of the search."""
    from amc_analysis.reading.wandb_private import attributes

    project_path, _, run_id = original.path.rpartition("/")
    sweep_id = original.api_object.sweep_name
    if sweep_id is None:
        refuse(f"{original.path} is in no sweep: leave --in-sweep out")
    with translate_errors(original.backend):
        path = f"{project_path}/{sweep_id}"
        sweep = original.api.sweep(path)
        if problem := queue_problem(sweep.state, path):
            refuse(problem)
        for number, seed in enumerate(trial_seeds):
            parameters = sweep.config.get("parameters", {})
            values = trial_values(dict(original.api_object.config), parameters, seed, run_id)
            if only_print:
                click.echo(json.dumps(values))
                continue
            with _naming_the_rest(original, trial_seeds[number:], waiting=number):
                queued = queue_run(original.api, attributes(sweep)["id"], queued_name(run_id, seed), values)
            click.echo(f"run {queued} with seed {seed} waits in sweep {sweep_id} for the next agent", err=True)
        if not only_print and (delay := queue_delay(sweep.state, path)):
            click.echo(delay, err=True)


@contextmanager
def _naming_the_rest(original: OpenTarget, seeds: Sequence[int], *, waiting: int) -> Iterator[None]:
    """Say after a failure which runs wait already: the same command would queue them again."""
    try:
        with translate_errors(original.backend):
            yield
    except click.ClickException as error:
        if not waiting:
            raise
        raise click.ClickException(
            f"{error.message}. "
            f"{waiting} of {waiting + len(seeds)} runs wait in the sweep already; this queues the others:\n"
            f"  amc-sweep repeat {original.path} --in-sweep --seed {seeds[0]} --count {len(seeds)}"
        ) from error


def _train(original: OpenTarget, trials: dict[int, TrialCommand]) -> list[Repeat]:
    """Run the trials one after the other until one is interrupted; pass signals on to the running trial."""
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        if process is not None:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGUSR1, forward)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the trial as well, which then ends
    repeats: list[Repeat] = []
    for number, (seed, trial) in enumerate(trials.items(), start=1):
        run_id = uuid.uuid4().hex[:8]
        click.echo(f"repeat {number} of {len(trials)} of {original.path}: run {run_id}, seed {seed}", err=True)
        environment = {**trial.process_environment(original.backend), "WANDB_RUN_ID": run_id}
        process = subprocess.Popen(trial.command(), env=environment, restore_signals=True, stdout=STDERR)
        exit_code = process.wait()
        repeats.append(Repeat(run_id, seed, exit_code, None))
        if exit_code in _INTERRUPTED_CODES or exit_code < 0:
            break
    return repeats


def _read_peak(original: OpenTarget, run_id: str) -> float | None:
    run = original.api.run(f"{original.path.rpartition('/')[0]}/{run_id}")
    return as_finite(run.summary_metrics.get(METRIC))


def spread(repeats: Sequence[Repeat]) -> tuple[float, float] | None:
    """Return the mean and the standard deviation of peaks over seeds; None for fewer than two seeds with a peak."""
    peaks = {repeat.seed: repeat.peak for repeat in repeats if repeat.peak is not None}
    if len(peaks) < 2:
        return None
    return statistics.mean(peaks.values()), statistics.stdev(peaks.values())


def _report(original: OpenTarget, repeats: Sequence[Repeat], *, as_json: bool) -> None:
    config, summary = original.api_object.config, original.api_object.summary_metrics
    first = Repeat(original.path.split("/")[2], int(config["seed"]), None, summary.get(METRIC))
    noise = spread([first, *repeats])
    for repeat in (first, *repeats):
        peak = "none" if repeat.peak is None else percent(repeat.peak, 2)
        end = "" if repeat.exit_code is None else f", exit code {repeat.exit_code}"
        click.echo(f"  {repeat.run}  seed {repeat.seed}  peak {peak}{end}", err=True)
    if noise is not None:
        click.echo(f"  mean peak {percent(noise[0], 2)}, standard deviation over seeds {points(noise[1])}", err=True)
    if as_json:
        document = [{"run": r.run, "seed": r.seed, "exit_code": r.exit_code, "peak": r.peak} for r in repeats]
        source = {"run": first.run, "seed": first.seed, "peak": first.peak}
        click.echo(json.dumps({"of": source, "repeats": document, "standard_deviation": noise and noise[1]}, indent=2))
