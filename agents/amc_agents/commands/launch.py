"""amc-sweep launch: the agents of a sweep as the tasks of one Slurm array."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import click

from amc_agents.commands.options import seconds
from amc_agents.open_target import open_target
from amc_agents.slurm.script import ArrayOfAgents, ScriptError, script_text
from amc_agents.slurm.submit import SubmitError, cluster_nodes, submit, unreachable, write_key
from amc_agents.sweep_control import NoSuchSweepError, query_sweep
from amc_analysis.reading.wandb_api import translate_errors
from amc_core.command_line import Refusal
from amc_core.files import write_whole
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.options import BackendChoice, backend_options
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.run_states import SweepState, state_word


@click.command("launch", short_help="Start a sweep's agents on a cluster.")
@click.argument("cluster", type=click.Choice(["slurm"]))
@click.argument("sweep")
@click.option(
    "--agents", type=click.IntRange(1), required=True, metavar="N", help="Tasks of the array, one agent each."
)
@click.option("--time", "time_limit", required=True, metavar="08:00:00", help="Time limit of each job, as for sbatch.")
@click.option("--gres", metavar="gpu:1", help="What each job gets; its agents work on its GPUs. [default: no GPU]")
@click.option("--partition", metavar="NAME", help="As for sbatch.")
@click.option("--account", metavar="NAME", help="As for sbatch.")
@click.option("--exclude", metavar="NODES", help="Nodes to leave out; amc-sweep status proposes some.")
@click.option("--requeue", is_flag=True, help="Queue a job again that was preempted or whose time was too short.")
@click.option("--array-limit", type=click.IntRange(1), metavar="N", help="Most tasks at a time.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Trials of one job. [default: as many as fit]")
@click.option(
    "--idle-limit",
    default="10m",
    callback=seconds,
    metavar="10m",
    show_default=True,
    help="A job ends when its agents have waited for a trial for so long: the sweep is paused, or others do the rest.",
)
@click.option(
    "--setup",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Lines of bash for the start of each job: module load, activate ...",
)
@click.option("--sbatch", "more", multiple=True, metavar="--mem=32G", help="Another option of sbatch; may come often.")
@click.option("--node-url", metavar="URL", help="The W&B's address for the nodes, if it is another one than here.")
@click.option(
    "--logs",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("slurm-logs"),
    show_default=True,
    help="Folder of script, key and logs, in a subfolder named after the sweep. The nodes must see it.",
)
@click.option("--dry-run", is_flag=True, help="Print the script; write and submit nothing.")
@backend_options
def launch_command(
    cluster: str,
    sweep: str,
    agents: int,
    time_limit: str,
    gres: str | None,
    partition: str | None,
    account: str | None,
    exclude: str | None,
    requeue: bool,
    array_limit: int | None,
    count: int | None,
    idle_limit: float,
    setup: Path | None,
    more: tuple[str, ...],
    node_url: str | None,
    logs: Path,
    dry_run: bool,
    choice: BackendChoice,
) -> None:
    """Submit an array of N jobs for SWEEP to Slurm. Each job runs `amc-sweep agent` on its own GPU.

    \b
    amc-sweep launch slurm 94fqx0gz --agents 8 --gres gpu:1 --time 08:00:00
    amc-sweep launch slurm 94fqx0gz --agents 40 --array-limit 8 --gres gpu:1 --time 4:00:00 --requeue
    amc-sweep launch slurm 94fqx0gz --agents 8 --time 1-0 --setup env.sh --sbatch=--mem=32G --dry-run

    Slurm warns a job before its time limit: its trials save, and their runs are handed out again. A job that is
    cancelled or preempted does the same. No trial begins that would not end in time, and no process outlives its job. A
    job leaves when the sweep is over. The server's key travels in a file that only you can read.

    Exit codes: 0 submitted, 1 the server or Slurm does not answer, 2 refused, 130 interrupted.
    """
    target = open_target(sweep, choice, "sweep")
    with translate_errors(target.backend):
        try:
            state = query_sweep(target.api, target.path, "state")["state"]
        except NoSuchSweepError as error:
            raise Refusal(str(error)) from error
    if state in {SweepState.FINISHED, SweepState.CANCELED}:
        raise Refusal(f"sweep {target.path} is {state_word(state)}: it hands out no runs")
    backend = _as_nodes_see_it(target.backend, node_url, dry_run=dry_run)
    folder = (logs / target.path.rpartition("/")[2]).resolve()
    job = ArrayOfAgents(
        sweep=target.path,
        agents=agents,
        time=time_limit,
        folder=folder,
        working_folder=Path.cwd(),
        amc_sweep=_own_command(),
        base_url=backend.base_url,
        key_file=folder / "key" if backend.api_key is not None else None,
        gres=gres,
        partition=partition,
        account=account,
        exclude=exclude,
        requeue=requeue,
        array_limit=array_limit,
        count=count,
        idle_limit_s=idle_limit,
        setup=setup.read_text() if setup is not None else "",
        more=more,
    )
    try:
        text = script_text(job)
    except ScriptError as error:
        raise Refusal(str(error)) from error
    if dry_run:
        click.echo(text, nl=False)
        return
    script = folder / "array.sh"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_key(backend, folder)
        write_whole(script, text, mode=0o700)
        job_id = submit(script)
    except (OSError, SubmitError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Slurm job {job_id}: an array of {counted(agents, 'agent')} for {target.path}")
    click.echo(f"  {script}; logs beside it\n  amc-sweep status {job.sweep}", err=True)


def _own_command() -> Path:
    """Return amc-sweep of this environment, which the nodes see."""
    own = Path(sys.executable).with_name("amc-sweep")
    other = shutil.which("amc-sweep")
    if not own.exists() and other is None:
        raise Refusal(f"{own} does not exist, and PATH has no amc-sweep: a job could not start it. Install the package")
    return own if own.exists() or other is None else Path(other)


def _as_nodes_see_it(backend: Backend, node_url: str | None, *, dry_run: bool) -> Backend:
    if node_url is not None:
        return replace(backend, base_url=node_url.rstrip("/"))
    problem = unreachable(backend, cluster_nodes())
    if problem is not None and not dry_run:
        raise Refusal(problem)
    if problem is not None:
        click.echo(problem, err=True)
    return backend
