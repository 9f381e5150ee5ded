"""The next sweep on 100 simulated sweeps of 30 to 60 runs, for several families of seeds and of crashes.

AMC_SOAK_SWEEPS (default 100) sets the number of sweeps of each row.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor

import pytest
from next_sweep_trials import follow_all, median
from results_file import keep
from training_surface import Crashes

SWEEPS = int(os.environ.get("AMC_SOAK_SWEEPS", "100"))
ROWS = {
    "mixed crashes (machine .35, learning rate .9)": (0, Crashes(0.35, 0.9)),
    "mixed crashes, other seeds": (10_000, Crashes(0.35, 0.9)),
    "mixed crashes, other seeds again": (20_000, Crashes(0.35, 0.9)),
    "crashes by the learning rate only": (30_000, Crashes(0.0, 0.9)),
    "crashes by the machine only (.70)": (40_000, Crashes(0.7, 0.0)),
    "no crashes": (50_000, Crashes(0.0, 0.0)),
}


@pytest.mark.timeout(3000)
def test_the_next_sweep_keeps_the_optimum_and_shrinks_the_space() -> None:
    figures: dict[str, object] = {}
    seeds, crashes = zip(*ROWS.values(), strict=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(ROWS, pool.map(follow_all, seeds, [SWEEPS] * len(ROWS), crashes), strict=True))
    for name, trials in found.items():
        inside = sum(trial.inside for trial in trials)
        shares = ", ".join(
            f"{parameter} {median(trial.shares[parameter] for trial in trials):.0%}" for parameter in trials[0].shares
        )
        shrinks = median(trial.shrinks for trial in trials)
        figures[name] = (
            f"optimum inside {inside} of {len(trials)}; space {shrinks:.1f} times smaller (median); {shares}"
        )
    keep("next_sweep", full=SWEEPS >= 100, figures=figures)
    for name, trials in found.items():
        assert sum(trial.inside for trial in trials) >= 0.95 * len(trials), name
    for name in list(ROWS)[:3]:
        assert median(trial.shrinks for trial in found[name]) >= 4, name
