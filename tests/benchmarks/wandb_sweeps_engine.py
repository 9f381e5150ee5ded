"""W&B's engine as a process: reads JSON lines, answers with configurations. It runs under its own Python."""

import json
import os
import random
import sys
import warnings

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: of matrices as small as these, threads only wait

import numpy as np

import sweeps
from sweeps import bayes_search

warnings.simplefilter("ignore")


def random_sample(bounds, count):
    """Draw what the package's own function draws, from the same random numbers, without its loops."""
    low, high = np.array(bounds, float).T
    return np.random.uniform(size=(count, len(bounds))) * (high - low) + low


bayes_search.random_sample = random_sample


def main():
    config, runs = None, []
    for line in sys.stdin:
        message = json.loads(line)
        if "config" in message:
            config = message["config"]
            random.seed(message["seed"])
            np.random.seed(message["seed"] % 2**32)
        elif "tell" in message:
            curve = message["curve"]
            # The engine reads the lowest, the highest and the last value of a run, and looks at every one it gets.
            values = [min(curve), max(curve), curve[-1]] if curve else []
            runs.append(
                sweeps.SweepRun(
                    name=str(len(runs)),
                    state=message["state"],
                    config={name: {"value": value} for name, value in message["tell"].items()},
                    history=[{"acc": value} for value in values],
                    summary_metrics={"acc": curve[-1]} if curve else {},
                )
            )
        else:
            run = sweeps.next_run(config, runs)
            print(json.dumps({name: entry["value"] for name, entry in run.config.items()}), flush=True)


main()
