"""W&B's engine as a process: reads JSON lines, answers with configurations. It runs under its own Python."""

import json
import random
import sys
import warnings

import numpy as np

import sweeps

warnings.simplefilter("ignore")


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
            runs.append(
                sweeps.SweepRun(
                    name=str(len(runs)),
                    state=message["state"],
                    config={name: {"value": value} for name, value in message["tell"].items()},
                    history=[{"acc": value} for value in curve],
                    summary_metrics={"acc": curve[-1]},
                )
            )
        else:
            run = sweeps.next_run(config, runs)
            print(json.dumps({name: entry["value"] for name, entry in run.config.items()}), flush=True)


main()
