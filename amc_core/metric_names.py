"""The names of everything that a trial logs: what a sweep may name as its metric (free of torch).

Names use slashes, because W&B reads a dot as a path. Accuracies and weights are fractions in 0..1; "combined" counts a
frame as right when its modulation and its SNR level both are.
"""

from __future__ import annotations

__all__ = ["EPOCH_METRICS", "FINAL_METRICS", "is_epoch_metric"]

# Logged once an epoch, exactly these.
EPOCH_METRICS: frozenset[str] = frozenset(
    {
        "epoch",  # 1 is the first
        "lr",  # of the epoch's last optimiser step
        "train/loss",
        "val/loss",
        "train/combined_acc",
        "train/mod_acc",
        "train/snr_acc",
        "val/combined_acc",
        "val/mod_acc",
        "val/snr_acc",
        "val/snr_mae_db",
        "weight/mod",  # normalised task weights: the two sum to 1
        "weight/snr",
        "throughput/frames_per_s",  # of the training phase
        "best/combined_acc",  # running maximum of val/combined_acc
    }
)

# Written to the summary once, after the test evaluation of the best checkpoint.
FINAL_METRICS: frozenset[str] = frozenset({"test/combined_acc", "test/mod_acc", "test/snr_acc", "test/snr_mae_db"})


def is_epoch_metric(name: str) -> bool:
    """Whether every trial logs this name once an epoch, so that a search may steer by it."""
    return name in EPOCH_METRICS
