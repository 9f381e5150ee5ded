"""The lines that a trial prints: one at its start, one an epoch, one at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amc_core.config import TrialConfig
from amc_core.training.progress import Progress
from amc_sweeps.number_formats import counted, duration, listed, percent


def start_line(facts: Mapping[str, Any]) -> str:
    """Write the facts of a run: frames, SNR levels, network, device."""
    levels_db, missing_db = facts["levels_db"], facts["missing_levels_db"]
    missing = f" (the file has none at {listed([str(db) for db in missing_db], most=8)} dB)" if missing_db else ""
    return (
        f"{facts['n_train']:,} / {facts['n_val']:,} / {facts['n_test']:,} frames (train / val / test) from "
        f"{facts['frames_in']}, {counted(len(levels_db), 'SNR level')}, {levels_db[0]}..{levels_db[-1]} dB{missing}, "
        f"{facts['n_parameters']:,} parameters, "
        f"{counted(facts['micro_batch_frames'], 'frame')} per forward pass, on {facts['device_name']}"
    )


def epoch_line(metrics: Mapping[str, float], config: TrialConfig, progress: Progress, epoch_s: float) -> str:
    """Write an epoch: learning rate, loss, accuracies, the best epoch so far, and the time that is left at most.

    Args:
        metrics: of the epoch; train, val and best are the shares of frames with both labels right.
        config: the trial's.
        progress: after the epoch.
        epoch_s: mean duration of an epoch, validation included.
    """
    best = progress.combined_acc
    left = config.epochs - progress.epoch
    return "  ".join(
        [
            f"epoch {progress.epoch}/{config.epochs}",
            f"lr {metrics['lr']:.2e}",
            f"val loss {metrics['val/loss']:.4f}",
            f"train {percent(metrics['train/combined_acc'], 2)}",
            f"val {percent(metrics['val/combined_acc'], 2)}",
            f"(mod {percent(metrics['val/mod_acc'], 2)}, snr {percent(metrics['val/snr_acc'], 2)})",
            f"best {percent(best.value or 0.0, 2)} (epoch {best.epoch})",
            f"{duration(left * epoch_s)} left" if left else "last epoch",
        ]
    )


def test_line(metrics: Mapping[str, float], epoch: int) -> str:
    """Write the test of the chosen checkpoint."""
    accuracies = f"(mod {percent(metrics['test/mod_acc'], 2)}, snr {percent(metrics['test/snr_acc'], 2)})"
    return f"test {percent(metrics['test/combined_acc'], 2)}  {accuracies}  checkpoint of epoch {epoch}"
