"""Names of evaluation files, in a run's folder and with W&B (free of torch)."""

from __future__ import annotations

BEST_FILE = "evaluation/best.json"  # with W&B: a copy of the epoch with the highest val/combined_acc so far


def epoch_file(epoch: int) -> str:
    """Return the file of one epoch's validation, which ``recorders.write_evaluation`` writes."""
    return f"evaluation/epoch_{epoch:04d}.json"
