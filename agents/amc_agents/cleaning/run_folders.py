"""What can go from the folders of runs. One checkpoint of every run stays, and everything that is not a checkpoint.

A run that is alive is never touched, and one that can be continued only if the user asks for it. Three guards stand
before a removal: W&B's state of the run, the age of its files, and the lock that a trial holds on its folder.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from amc_agents.cleaning.checkpoint_files import is_checkpoint, is_intact
from amc_agents.cleaning.removable import Kind, Removable, remove
from amc_agents.trial.end_and_history import END_FILE, HISTORY_FILE, read_end, read_rows
from amc_agents.trial.evaluations import RUNNING_BEST
from amc_core.files import unused_folder
from amc_sweeps.runs.causes import EndReason
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.values import as_finite

# Names of amc_core.training.checkpoint, which imports torch.
BEST, LAST = "best.pt", "last.pt"
CHECKPOINTS = (LAST, "best_combined_acc.pt", "best_loss.pt", BEST)
_PARTIAL = re.compile(r"\.(?:last|best|best_combined_acc|best_loss)\.pt\.\d+")
_FETCH = re.compile(r"\.fetch-\w+")
_SET_ASIDE = re.compile(r"before_\d+")
# These can be told from the run's own words. After any other end, and after none, the training may go on.
_OVER = frozenset({EndReason.COMPLETED, EndReason.PATIENCE, EndReason.STOPPED, EndReason.DIVERGED})


class Standing(StrEnum):
    """Whether a run's checkpoints may go."""

    ALIVE = "alive"  # never
    RESUMABLE = "can be continued"  # only if the user asks for it
    ENDED = "ended"
    UNKNOWN = "unknown to this W&B"  # never


@dataclass(frozen=True)
class RunAtWandb:
    """What W&B says of a run."""

    state: str
    sweep: str | None
    end_reason: str | None


@dataclass(frozen=True)
class RunFolder:
    """A run's folder on this machine."""

    path: Path
    project: str | None  # ENTITY/PROJECT, as its last trial wrote it
    changed_at: float  # Unix time of the latest change of one of its own files
    checkpoints: tuple[Path, ...]  # in the folder and in before_N

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def kept(self) -> Path | None:
        """The checkpoint that stays: the best one, or the last one where no epoch ended."""
        own = [path for path in self.checkpoints if path.parent == self.path]
        return next((path for name in (BEST, LAST) for path in own if path.name == name), None)


def standing(run: RunAtWandb | None) -> Standing:
    """Return whether the checkpoints of a run may go; a state that is not known counts as alive."""
    if run is None:
        return Standing.UNKNOWN
    if run.state in {RunState.FINISHED, RunState.KILLED} or (run.state == RunState.FAILED and run.end_reason in _OVER):
        return Standing.ENDED
    if run.state in {RunState.FAILED, RunState.CRASHED, RunState.PREEMPTED}:
        return Standing.RESUMABLE
    return Standing.ALIVE


def find_folders(runs_dir: Path) -> list[RunFolder]:
    """Return the folders of runs that this toolkit wrote. Links are not followed."""
    folders = []
    for path in sorted(runs_dir.iterdir()) if runs_dir.is_dir() else ():
        if path.is_symlink() or not path.is_dir() or not (path / HISTORY_FILE).is_file():
            continue
        end = read_end(path)
        project = end.run.rpartition("/")[0] if end and end.run and end.run.endswith(f"/{path.name}") else None
        with contextlib.suppress(OSError):  # removed meanwhile
            folders.append(RunFolder(path, project, _changed_at(path), tuple(_checkpoints(path))))
    return folders


def leftovers(runs_dir: Path, *, now: float, older_than_s: float) -> list[Removable]:
    """Return what killed processes left in the folders of runs: parts of a checkpoint, and downloads."""
    found = []
    for folder in sorted(runs_dir.iterdir()) if runs_dir.is_dir() else ():
        if folder.is_symlink() or not folder.is_dir():
            continue
        for path in folder.glob(".*"):
            is_ours = _PARTIAL.fullmatch(path.name) if path.is_file() else _FETCH.fullmatch(path.name)
            if is_ours and not path.is_symlink() and _is_old(path, now - older_than_s):
                found.append(Removable(Kind.LEFTOVER, path, folder.name))
    return found


def removable_checkpoints(folder: RunFolder, *, keeps_one: bool = True) -> list[Removable]:
    """Return the checkpoints of an ended run that can go.

    Args:
        folder: the run's.
        keeps_one: leave ``RunFolder.kept`` and its further names. Without one to keep nothing goes.
    """
    kept = folder.kept
    if keeps_one and kept is None:
        return []
    own = [path for path in folder.checkpoints if is_checkpoint(path, folder.run_id)]
    return [Removable(Kind.CHECKPOINT, path, folder.run_id) for path in own if not keeps_one or path != kept]


def best_runs(folders: Sequence[RunFolder], runs: Mapping[str, RunAtWandb], most: int) -> set[str]:
    """Return the ids of the best runs of each sweep by the highest val/combined_acc; a run without one is kept, too."""
    by_sweep: dict[str | None, list[tuple[float, str]]] = {}
    kept = set()
    for folder in folders:
        found = (as_finite(row.get(RUNNING_BEST)) for row in read_rows(folder.path))
        values = [value for value in found if value is not None]
        if values and folder.run_id in runs and (sweep := runs[folder.run_id].sweep):
            by_sweep.setdefault(sweep, []).append((max(values), folder.run_id))
        else:
            kept.add(folder.run_id)
    return kept.union(run for ranked in by_sweep.values() for _, run in sorted(ranked, reverse=True)[:most])


def remove_checkpoints(folder: RunFolder, items: Collection[Removable]) -> list[str]:
    """Remove checkpoints of one run; return why some were not removed.

    Nothing is removed where a trial uses the folder, or has changed it since it was looked at. The one that stays is
    read whole first.

    Raises:
        OSError: a file cannot be removed.
    """
    kept = folder.kept
    keeps_one = all(item.path != kept for item in items)
    with unused_folder(folder.path) as is_unused:
        if not is_unused:
            return [f"{folder.path}: a trial uses it now"]
        if _changed_at(folder.path) != folder.changed_at:
            return [f"{folder.path}: it has changed in the meantime"]
        if keeps_one and (kept is None or not is_intact(kept)):
            return [f"{folder.path}: {kept.name if kept else BEST} is damaged, so its other checkpoints stay"]
        for item in sorted(items, key=lambda item: item.path == kept):  # the one that was to stay goes last
            remove(item)
    return []


def _checkpoints(folder: Path) -> Iterator[Path]:
    aside = [path for path in sorted(folder.glob("before_*")) if _SET_ASIDE.fullmatch(path.name)]
    for parent in (folder, *(path for path in aside if path.is_dir() and not path.is_symlink())):
        for name in CHECKPOINTS:
            path = parent / name
            if path.is_file() and not path.is_symlink():
                yield path


def _changed_at(folder: Path) -> float:
    paths = [folder, *_checkpoints(folder), *(folder / name for name in (HISTORY_FILE, END_FILE))]
    times = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            times += [status.st_mtime, status.st_ctime]
    return max(times)


def _is_old(path: Path, limit: float) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return max(status.st_mtime, status.st_ctime) < limit
