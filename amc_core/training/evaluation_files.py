"""What evaluations are called, in a run's folder and among the files that W&B keeps of the run (free of torch)."""

from __future__ import annotations

BEST_FILE = "evaluation/best.json"  # a copy of the one with the highest val/combined_acc so far; W&B's only


def epoch_file(epoch: int) -> str:
    """Return the file of one epoch's validation, as ``recorders.write_evaluation`` writes it."""
    return f"evaluation/epoch_{epoch:04d}.json"
