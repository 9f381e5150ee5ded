"""Names of everything that a trial logs, any of which a sweep may name as its metric (free of torch).

Names use slashes, because W&B reads a dot as a path. Accuracies, F1 scores, shares and weights are fractions in 0..1.
"Combined" counts a frame as right when both its modulation and its SNR level are right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from amc_core.modulations import CLASSES, families_of

# Logged once an epoch by every trial, whatever its classes are.
EPOCH_METRICS: frozenset[str] = frozenset(
    {
        "epoch",  # 1 is the first
        "lr",  # of the epoch's last optimiser step
        "train/loss",  # sum of the two below; kendall's learned variances are not in it
        "train/loss_mod",
        "train/loss_snr",
        "val/loss",
        "val/loss_mod",
        "val/loss_snr",
        "train/combined_acc",
        "train/mod_acc",
        "train/snr_acc",
        "val/combined_acc",
        "val/mod_acc",
        "val/snr_acc",
        "val/mod_acc_mean",  # over SNR levels, each with the same weight, as publications give it
        "val/mod_acc_peak",  # of the best SNR level
        "val/snr_mae_db",
        "gap/combined_acc",  # train minus val: above 0 where the network overfits
        "attractor/share",  # of other levels' frames mistaken for the strongest attractor; 0 without one
        "weight/mod",  # normalised task weights: the two sum to 1
        "weight/snr",
        "grad_norm/mean",  # over the epoch's steps, before clipping
        "grad_norm/max",
        "throughput/frames_per_s",  # of the training phase
        "best/combined_acc",  # running maximum of val/combined_acc
    }
)

# Logged in some epochs only.
OCCASIONAL_METRICS: frozenset[str] = frozenset(
    {
        "attractor/snr_db",  # the strongest attractor; absent without one
        "sigma2/mod",  # learned variances of the tasks; task_weighting kendall only
        "sigma2/snr",
        "train/bad_frames",  # frames with NaN or infinite samples; absent where there are none
        "val/bad_frames",
        "throughput/compile_s",  # with compile=True: before the first step, which the speed leaves out
    }
)

# Written to the summary once, after the test evaluation of the best checkpoint.
FINAL_METRICS: frozenset[str] = frozenset(
    {
        *("test/combined_acc", "test/mod_acc", "test/mod_acc_mean", "test/mod_acc_peak", "test/snr_acc"),
        "test/snr_mae_db",
    }
)

# What the summary has beside them.
FINAL_FACTS: frozenset[str] = frozenset(
    {
        *("end_reason", "best_epoch", "best_loss_epoch", "checkpoint_epoch", "bad_frames"),
        *("test_checkpoint", "test_checkpoint_epoch"),
    }
)

_OF_LEVEL = re.compile(r"(?:f1|acc)/snr/(-?\d+)")


def detail_metrics(modulations: Iterable[str], levels_db: Iterable[int]) -> frozenset[str]:
    """Return the names besides EPOCH_METRICS that a trial with these classes logs once an epoch, all of the val part.

    ``f1/mod/QPSK``, ``f1/family/PSK``, ``f1/snr/12`` and ``acc/snr/12``: the last is the combined accuracy at 12 dB.
    """
    names, levels = set(modulations), list(levels_db)
    return frozenset(
        [
            *(f"f1/mod/{modulation}" for modulation in names),
            *(f"f1/family/{family}" for family in families_of(names).values()),
            *(f"f1/snr/{level}" for level in levels),
            *(f"acc/snr/{level}" for level in levels),
        ]
    )


def is_epoch_metric(name: str) -> bool:
    """Whether some trial logs this name once an epoch, so that a search can use it."""
    return name in EPOCH_METRICS or name in detail_metrics(CLASSES, ()) or level_of(name) is not None


def level_of(name: str) -> int | None:
    """Return the SNR in dB of a metric about one level, None for any other name."""
    match = _OF_LEVEL.fullmatch(name)
    return int(match[1]) if match else None
