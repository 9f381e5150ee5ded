"""The folder of a run as a trial leaves it, with checkpoints that hold random bytes."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

from amc_agents.trial.end_and_history import append_row, write_end
from amc_sweeps.runs.causes import EndReason


def checkpoint(path: Path, run_id: str, size: int = 10_000) -> Path:
    """Write a file with the parts of a checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = {"run": run_id, "split_fingerprint": "s", "trained_on": [], "steps_done": 0}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", pickle.dumps(words, protocol=2))
        archive.writestr(f"{path.stem}/data/0", os.urandom(size))
    return path


def run_folder(
    runs: Path,
    run_id: str,
    *,
    reason: EndReason | None = EndReason.COMPLETED,
    best: float = 0.5,
    project: str = "local/demo",
) -> Path:
    """Write the folder of a run of two epochs; the first one is the best."""
    folder = runs / run_id
    checkpoint(folder / "best.pt", run_id)
    (folder / "best_combined_acc.pt").hardlink_to(folder / "best.pt")
    checkpoint(folder / "best_loss.pt", run_id)
    checkpoint(folder / "last.pt", run_id)
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "epoch_0002.json").write_text("{}")
    append_row(folder, {"epoch": 1, "best/combined_acc": best})
    if reason is not None:
        write_end(folder, reason, run=f"{project}/{run_id}")
    return folder
