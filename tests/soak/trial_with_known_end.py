"""A trial with a chosen end. `own` reports its end reason as amc-train does, `foreign` is a script that does not.

    python trial_with_known_end.py --known_end=patience --flavour=foreign [--values=0.5]

Every run that Hyperband must not stop logs the same values, because ties survive a band.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

import wandb

EPOCHS, PATIENCE = 12, 2
LONGEST_S = 200.0
# The exit codes of amc-train: amc_sweeps.runs.causes.EXIT_CODES.
CODES = {"diverged": 80, "out_of_memory": 81, "preempted": 75}


class Terminated(BaseException):
    """SIGTERM in a script with a handler."""


def main() -> None:
    """Begin a run and end it as asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--known_end", required=True)
    parser.add_argument("--flavour", choices=["own", "foreign"], required=True)
    parser.add_argument("--copy", default="0")
    arguments = parser.parse_args()
    own = arguments.flavour == "own"
    run = wandb.init(config={**vars(arguments), "epochs": EPOCHS, "patience": PATIENCE})
    try:
        reason = _train(run, arguments.known_end, own)
    except Terminated:
        reason = "stopped"
    except KeyboardInterrupt:
        if not own:
            raise
        reason = "stopped"
    if own:
        run.summary["end_reason"] = reason
    code = CODES.get(reason, 0) if own else int(reason == "preempted")
    run.finish(exit_code=code)
    sys.exit(code)


def _train(run: Any, known_end: str, own: bool) -> str:
    if known_end in {"hyperband_stream", "hyperband_agent", "cancelled"}:
        return _until_stopped(run, known_end, own)
    for epoch in range(1, EPOCHS + 1):
        row = {"epoch": epoch, "train/loss": 1 / epoch, "val/acc": good(epoch)}
        if known_end == "patience" and epoch > 4:
            row["val/acc"] = 0.5
        if known_end == "diverged" and epoch > 4:
            row |= {"train/loss": math.nan, "val/acc": math.nan}
        run.log(row)
        if known_end == "patience" and epoch == 4 + PATIENCE:
            return "patience"
        if known_end == "diverged" and epoch == 5:
            if own:
                return "diverged"
            raise ValueError("the loss is nan")
        if known_end == "out_of_memory" and epoch == 2:
            try:
                bytearray(1 << 60)
            except MemoryError:
                if not own:
                    raise
                return "out_of_memory"
        if known_end == "out_of_gpu_memory" and epoch == 2:
            # The message of torch: a test has no GPU whose memory it could fill.
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB")
        if known_end == "preempted" and epoch == 4:
            run.mark_preempting()
            return "preempted"
        if known_end == "lost" and epoch == 5:
            print("LOGGED", flush=True)
            time.sleep(LONGEST_S)
    return "completed"


def _until_stopped(run: Any, known_end: str, own: bool) -> str:
    """Log until the run is stopped. For a stop by the agent it ignores the softer stop by the client."""
    if known_end == "hyperband_agent" and own:
        signal.signal(signal.SIGTERM, _terminated)
    begin, epoch = time.monotonic(), 0
    while time.monotonic() - begin < LONGEST_S:
        try:
            epoch += 1
            run.log({"epoch": epoch, "val/acc": good(epoch) if known_end == "cancelled" else 0.01 * os.getpid() % 1e-3})
            time.sleep(1.0)
        except KeyboardInterrupt:
            if known_end != "hyperband_agent":
                raise
    return "completed"


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def good(epoch: int) -> float:
    """Return the value that every good run logs after an epoch."""
    return 0.5 + 0.01 * min(epoch, EPOCHS)


main()
