"""amc-sweep promote: run the best configurations of a sweep again with other seeds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from amc_agents.commands.create import register_sweep, where_to_run
from amc_agents.commands.list_ import query_sweeps
from amc_agents.open_target import OpenTarget, open_target
from amc_agents.repeats.promotion import (
    Promotion,
    PromotionError,
    finalists_name,
    finalists_sweep,
    promotions,
    settings_key,
)
from amc_agents.repeats.queue_runs import queue_delay, queue_problem, queue_run, queued_name, trial_values
from amc_agents.sweep_control import query_sweep
from amc_analysis.reading.wandb_api import translate_errors
from amc_core.command_line import Refusal, refuse
from amc_core.config import ConfigError, TrialConfig
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, backend_options
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.grammar.sweep_config import Choice, Constant
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.commands import agent_command, is_trial_run

if TYPE_CHECKING:
    from amc_analysis.results.analysed_sweep import AnalysedSweep


@click.command("promote", short_help="Run the best configurations again with other seeds.")
@click.argument("sweep")
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="Number of finalists.")
@click.option("--run", "runs", multiple=True, metavar="RUN", help="A run whose configuration is a finalist, not --top.")
@click.option(
    "--seeds",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Seeds of each finalist, besides that of the run that was chosen.",
)
@click.option("--dry-run", is_flag=True, help="Show the finalists and their seeds; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of the agent command.")
@backend_options
def promote_command(
    sweep: str, top: int, runs: tuple[str, ...], seeds: int, dry_run: bool, as_json: bool, choice: BackendChoice
) -> None:
    """Run the best configurations of SWEEP again with other seeds, because one seed may be luck.

    Finalists are the configurations with the best peaks, excluded runs left out. The embedded server queues their
    runs in SWEEP, before the configurations of the search. A finished sweep goes on until they have ended, and
    Hyperband does not stop them. Other W&B servers queue no runs: there a new sweep of amc-train gets them. amc-analyze
    then ranks the finalists by their means. The same command again adds only the runs that are missing.

    \b
    amc-sweep promote 94fqx0gz --dry-run
    amc-sweep promote 94fqx0gz --top 5 --seeds 3
    amc-sweep promote 94fqx0gz --run kx81m2ab --run 7h3jifit --seeds 8    # these two, until they have 8 seeds each

    Exit codes: 0 queued (or nothing is missing), 1 the server does not answer, 2 refused.
    """
    target = open_target(sweep, choice, "sweep")
    analysed = _analyse(target)
    is_embedded = target.backend.kind == "embedded"
    with translate_errors(target.backend):
        existing = None if is_embedded else _finalists_sweeps(target)
        planned = [pair for _, config in existing or [] for pair in planned_trials(config)]
        try:
            finalists = promotions(analysed, top=top, runs=runs, seeds=seeds, planned=planned)
        except PromotionError as error:
            raise Refusal(f"{target.path} has no finalists: {error}") from error
        if any(promotion.missing for promotion in finalists):
            _require_trials(target, analysed, finalists, queues=is_embedded)
        into, started = target.path, {}
        missing = sum(len(promotion.missing) for promotion in finalists)
        if is_embedded and missing and (problem := queue_problem(analysed.record.state, target.path)):
            refuse(problem)
        for promotion in finalists:
            click.echo(_line(promotion, analysed), err=True)
        if dry_run or not missing:
            into = existing[-1][0] if existing else into
            click.echo(f"{counted(missing, 'run')} would be added" if missing else "no run is missing", err=True)
        elif is_embedded:
            started = {promotion.run_id: _queue(target, analysed, promotion) for promotion in finalists}
        else:
            into = _register(target, finalists_sweep(analysed, finalists))
    agent = f"{target.backend.shell_prefix()}wandb agent {shlex.quote(into)}"
    if as_json:
        click.echo(json.dumps(_document(target, into, finalists, started, agent), indent=2))
    elif missing and not dry_run:
        click.echo(f"Once they have ended, amc-analyze {into} ranks the finalists by their means.", err=True)
        if is_embedded and (delay := queue_delay(analysed.record.state, target.path)):
            click.echo(delay, err=True)
        click.echo(where_to_run(target.backend), err=True)
        click.echo(agent)


def _analyse(target: OpenTarget) -> AnalysedSweep:
    """Return the sweep with its runs ranked, and those excluded that saw held-out frames."""
    from amc_analysis.analyse import add_findings, rank_runs
    from amc_analysis.reading.reader import read
    from amc_analysis.reading.server import ServerSource
    from amc_analysis.reading.sources import Selection
    from amc_analysis.runs.records import SweepUnreadableError
    from amc_sweeps.runs.records import MetricError

    entity, project, sweep_id = target.path.split("/")
    with translate_errors(target.backend):
        try:
            record = read(ServerSource(target.backend), Selection(entity, project, sweep_id))
        except (BackendError, MetricError) as error:
            raise Refusal(str(error)) from error
        except SweepUnreadableError as error:
            raise click.ClickException(str(error)) from error
    return add_findings(rank_runs(record))


def _line(promotion: Promotion, analysed: AnalysedSweep) -> str:
    had = f"has {counted(len(promotion.present), 'other seed')}" if promotion.present else "has no other seed"
    new = ", ".join(map(str, promotion.missing))
    gets = f"; gets {counted(len(promotion.missing), 'seed')}: {new}" if promotion.missing else ""
    peak = analysed.scale.text(promotion.entry.peak)
    return f"  {promotion.run_id}  {analysed.peak_name} {peak}, {had}{gets}"


def _require_trials(
    target: OpenTarget, analysed: AnalysedSweep, finalists: Sequence[Promotion], *, queues: bool
) -> None:
    """Refuse a sweep whose runs cannot be started again here, with the commands to paste."""
    record = analysed.record
    if all(is_trial_run(record, promotion.entry.run) for promotion in finalists):
        return
    names, parameters = {promotion.seed_name for promotion in finalists}, record.config.get("parameters") or {}
    if queues and names <= set(parameters):
        return
    commands = [
        command if promotion.seed_name in parameters else f"{command} --{promotion.seed_name}={seed}"
        for promotion in finalists
        for seed in promotion.missing
        if (command := agent_command(record, {**promotion.entry.run.config, promotion.seed_name: seed})) is not None
    ]
    why = (
        f"its file has no parameter {', '.join(sorted(names))}, so its program may not take one"
        if queues
        else f"{target.backend.base_url} queues no runs, and the sweep is not one of amc-train"
    )
    paste = "\n  ".join(["; these commands start them:", *commands]) if commands else ""
    refuse(f"the finalists of {target.path} cannot be run again: {why}; nothing was changed{paste}")


def _queue(target: OpenTarget, analysed: AnalysedSweep, promotion: Promotion) -> list[str]:
    """Queue the missing runs of a finalist in the sweep, and return their ids."""
    from amc_analysis.reading.wandb_private import attributes

    run, parameters = promotion.entry.run, analysed.config.get("parameters") or {}
    ids = []
    for seed in promotion.missing:
        if is_trial_run(analysed.record, run):
            values = trial_values(run.config, parameters, seed, run.run_id)
        else:
            values = {name: run.config[name] for name in parameters if name in run.config}
            values[promotion.seed_name] = seed
        sweep_id = attributes(target.api_object)["id"]
        ids.append(queue_run(target.api, sweep_id, queued_name(run.run_id, seed), values))
    return ids


def _finalists_sweeps(target: OpenTarget) -> list[tuple[str, str]]:
    """Return path and config of the sweeps that earlier promotions of this one have made, oldest first."""
    entity, project, sweep_id = target.path.split("/")
    sweeps = query_sweeps(target.api, entity, project)
    made = [sweep for sweep in sweeps if sweep["displayName"] == finalists_name(sweep_id)]
    paths = [f"{entity}/{project}/{sweep['name']}" for sweep in sorted(made, key=lambda each: str(each["createdAt"]))]
    return [(path, str(query_sweep(target.api, path, "config")["config"])) for path in paths]


def planned_trials(config: str) -> list[tuple[str, int]]:
    """Return settings_key and seed of every trial of a sweep of finalists."""
    sweep, _ = parse_leniently(config, is_new=False)
    variants = sweep.parameters.get("variant") if sweep else None
    if sweep is None or not isinstance(variants, Choice):
        return []
    constants = {name: leaf.value for name, leaf in sweep.parameters.items() if isinstance(leaf, Constant)}
    trials = []
    for variant in variants.values:
        try:
            settings = TrialConfig.from_mapping({**constants, "variant": variant}).to_mapping()
        except ConfigError:
            continue  # somebody else's sweep of that name
        trials.append((settings_key(settings), int(settings["seed"])))
    return trials


def _register(target: OpenTarget, sweep: dict[str, Any]) -> str:
    """Register a sweep beside the other one, and return its path."""
    entity, project, _ = target.path.split("/")
    registered = register_sweep(sweep, target.backend, entity, project, {})
    click.echo(f"Sweep {registered['path']}\n  page   {registered['url']}", err=True)
    return registered["path"]


def _document(
    target: OpenTarget, into: str, finalists: Sequence[Promotion], started: dict[str, list[str]], agent: str
) -> dict[str, Any]:
    return {
        "sweep": target.path,
        "into": into,
        "finalists": [
            {
                "run": promotion.run_id,
                "peak": promotion.entry.peak,
                "seeds": list(promotion.present),
                "new_seeds": list(promotion.missing),
                "queued": started.get(promotion.run_id, []),
            }
            for promotion in finalists
        ],
        "agent_command": agent,
    }
