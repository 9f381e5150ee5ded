"""amc-sweep clean: lists what can go from this machine, and removes it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

import click
from click.core import ParameterSource

from amc_agents.cleaning import client_cache, run_folders
from amc_agents.cleaning.removable import Kind, Removable, freed_bytes, remove
from amc_agents.cleaning.run_folders import RunFolder, Standing
from amc_agents.commands.options import runs_dir_option, seconds
from amc_agents.commands.serve import default_data
from amc_core.command_line import FAILED, refuse
from amc_core.files import is_folder, unused_folder
from amc_sweeps.backend.choose import choose_backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, backend_options
from amc_sweeps.backend.running_servers import running_servers
from amc_sweeps.number_formats import counted, listed

_ADVICE: dict[str, str] = {
    Standing.RESUMABLE: "; --resumable takes these, too",
    Standing.UNKNOWN: "; --project says where else to look for them",
}


@dataclass(frozen=True)
class _Options:
    runs_dir: Path
    data: Path | None
    older_than_s: float
    resumable: bool
    keep_best: int | None
    choice: BackendChoice


@dataclass
class _Plan:
    """What can go now, and what stays and why."""

    items: list[Removable] = field(default_factory=list)
    folders: dict[str, RunFolder] = field(default_factory=dict)  # by run id, of the checkpoints among the items
    left: dict[str, list[Removable]] = field(default_factory=dict)  # by reason
    warnings: list[str] = field(default_factory=list)


@click.command("clean", short_help="Remove checkpoints and copies that nobody needs.")
@runs_dir_option
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The embedded server's data folder.  [default: that of every running server, else ~/.local/share/amc-sweep]",
)
@click.option(
    "--older-than",
    metavar="1d",
    callback=seconds,
    default="1d",
    show_default=True,
    help="Leave what was changed since then.",
)
@click.option("--resumable", is_flag=True, help="Also checkpoints of runs that crashed, failed or were preempted.")
@click.option(
    "--keep-best",
    type=click.IntRange(min=0),
    metavar="N",
    help="Keep a checkpoint only of the N best runs of each sweep on this machine.  [default: of every run]",
)
@click.option("--yes", is_flag=True, help="Remove. Without it, nothing is removed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@backend_options
def clean_command(
    runs_dir: Path,
    data: Path | None,
    older_than: float,
    resumable: bool,
    keep_best: int | None,
    yes: bool,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """Show what can go from this machine and how much room that gives; with --yes, remove it.

    \b
    - of runs that have ended: every checkpoint but best.pt. Histories, evaluations and pictures stay
    - what was left by saves and downloads that were killed
    - copies of our checkpoints in the cache of the wandb client
    - files of the embedded server that no record names

    A run that is alive is never touched, nor one that this W&B does not know, nor any file that this toolkit did not
    write. A run that can be continued keeps everything. With --resumable it keeps best.pt alone, and only a checkpoint
    at W&B can continue it.

    \b
    amc-sweep clean
    amc-sweep clean --older-than 7d --keep-best 5 --yes
    amc-sweep clean --json | jq .bytes

    Exit codes: 0 shown or removed, 1 something could not be read or removed, 2 refused.
    """
    source = click.get_current_context().get_parameter_source("runs_dir")
    if source is not ParameterSource.DEFAULT and not is_folder(runs_dir):
        refuse(f"{runs_dir}: there is no such folder, so nothing was removed")
    options = _Options(runs_dir, data, older_than, resumable, keep_best, choice)
    plan = _plan(options)
    problems = list(plan.warnings)
    gone: list[Removable] = []
    freed = freed_bytes(plan.items)
    if yes and plan.items:
        # Look again: a run may have been continued since.
        again = _plan(options)
        shown = set(plan.items)
        plan = again
        plan.items = [item for item in again.items if item in shown]
        freed = freed_bytes(plan.items)
        problems = [*plan.warnings, *_remove(plan)]
        gone = [item for item in plan.items if not item.path.exists()]
        freed -= freed_bytes(plan.items)  # what could not be removed
    if as_json:
        click.echo(json.dumps(_document(plan, gone, freed, is_removed=yes, problems=problems), indent=2))
    else:
        _show(plan, gone if yes else plan.items, freed, is_removed=yes)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        sys.exit(FAILED)


def _plan(options: _Options) -> _Plan:
    plan, now = _Plan(), time()
    _add_runs(plan, options, now)
    plan.items += run_folders.leftovers(options.runs_dir, now=now, older_than_s=options.older_than_s)
    cache = client_cache.cache_folder()
    plan.items += client_cache.cached_checkpoints(cache, now=now, older_than_s=options.older_than_s)
    _add_blobs(plan, options, now)
    return plan


def _add_runs(plan: _Plan, options: _Options, now: float) -> None:
    folders = [folder for folder in run_folders.find_folders(options.runs_dir) if folder.checkpoints]
    if not folders:
        return
    try:
        runs = _read_runs(folders, options.choice)
    except (BackendError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        plan.warnings.append(
            f"{counted(len(folders), 'folder')} in {options.runs_dir} stay as they are, because W&B does not say "
            f"which of these runs have ended: {text.splitlines()[0]}"
        )
        return
    best = None if options.keep_best is None else run_folders.best_runs(folders, runs, options.keep_best)
    for folder in folders:
        standing = run_folders.standing(runs.get(folder.run_id))
        keeps_one = best is None or folder.run_id in best
        items = run_folders.removable_checkpoints(folder, keeps_one=keeps_one)
        may_go = standing is Standing.ENDED or (standing is Standing.RESUMABLE and options.resumable)
        if not items:
            continue
        if may_go and folder.changed_at < now - options.older_than_s:
            plan.items += items
            plan.folders[folder.run_id] = folder
        else:
            plan.left.setdefault("changed lately" if may_go else str(standing), []).extend(items)


def _read_runs(folders: Sequence[RunFolder], choice: BackendChoice) -> dict[str, run_folders.RunAtWandb]:
    """Ask W&B for the state of every run; a folder without a project is looked for in all projects of the others."""
    from amc_agents.cleaning.states import read_runs
    from amc_analysis.reading.wandb_api import open_api, translate_errors

    backend = choose_backend(base_url=choice.base_url, local=choice.local, cloud=choice.cloud)
    click.echo(backend.announce(), err=True)
    with translate_errors(backend):
        api = open_api(backend)
        projects = {folder.project for folder in folders if folder.project}
        if choice.project:
            projects.add(f"{choice.entity or api.default_entity}/{choice.project}")
        found: dict[str, run_folders.RunAtWandb] = {}
        for project in sorted(projects):
            ids = [folder.run_id for folder in folders if folder.project in (project, None)]
            found |= read_runs(api, project, ids)
    return found


def _add_blobs(plan: _Plan, options: _Options, now: float) -> None:
    from amc_server.store.unreferenced_blobs import UnreadableDataError, unreferenced_blobs

    if options.data is not None:
        data = [options.data]
    else:
        data = [Path(server.data) for server in running_servers()] or [default_data()]
    for folder in data:
        if options.data is None and not (folder / "blobs").is_dir():
            continue
        try:
            blobs = unreferenced_blobs(folder, now=now, older_than_s=options.older_than_s)
        except (UnreadableDataError, OSError) as error:
            plan.warnings.append(f"the files of {folder} stay as they are: {error}")
            continue
        plan.items += [Removable(Kind.BLOB, blob.path) for blob in blobs]


def _remove(plan: _Plan) -> list[str]:
    """Remove what the plan lists; return what could not be removed."""
    problems = []
    for run_id, folder in plan.folders.items():  # before leftovers: a folder that has changed is left alone
        items = [item for item in plan.items if item.kind is Kind.CHECKPOINT and item.run == run_id]
        try:
            problems += run_folders.remove_checkpoints(folder, items)
        except OSError as error:
            problems.append(f"{error.filename or folder.path} cannot be removed: {error.strerror}")
    for item in plan.items:
        if item.kind is Kind.CHECKPOINT:
            continue
        try:
            with unused_folder(item.path.parent) if item.kind is Kind.LEFTOVER else nullcontext(True) as may_go:
                if may_go:
                    remove(item)
        except OSError as error:
            problems.append(f"{item.path} cannot be removed: {error.strerror}")
    return problems


def _show(plan: _Plan, items: Sequence[Removable], freed: int, *, is_removed: bool) -> None:
    for kind in Kind:
        some = [item for item in items if item.kind is kind]
        if some:
            runs = {item.run for item in some if item.run}
            where = f" in {counted(len(runs), 'folder')}" if runs else ""
            room = "" if is_removed else f", {_size(freed_bytes(some))}"
            click.echo(f"{kind}: {counted(len(some), 'file')}{where}{room}")
            click.echo(f"  {listed([str(item.path) for item in some], most=3)}")
    for reason, kept in plan.left.items():
        n_runs = len({item.run for item in kept})
        click.echo(f"left: {counted(n_runs, 'run')} ({reason}), {_size(freed_bytes(kept))}{_ADVICE.get(reason, '')}")
    if is_removed:
        click.echo(f"removed {counted(len(items), 'file')}: {_size(freed)} are free now")
    elif items:
        click.echo(f"nothing was removed: --yes removes these {counted(len(items), 'file')}, {_size(freed)}")
    else:
        click.echo("there is nothing to remove")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"


def _document(
    plan: _Plan, gone: Sequence[Removable], freed: int, *, is_removed: bool, problems: Sequence[str]
) -> Mapping[str, Any]:
    removed = set(gone)
    items = [
        {"kind": item.kind.name.lower(), "path": str(item.path), "run": item.run, "removed": item in removed}
        for item in plan.items
    ]
    left = [
        {"reason": reason, "runs": sorted({str(item.run) for item in kept}), "bytes": freed_bytes(kept)}
        for reason, kept in plan.left.items()
    ]
    document = {"schema": "amc-sweep clean", "version": 1, "removed": is_removed, "bytes": freed}
    return {**document, "items": items, "left": left, "problems": list(problems)}
