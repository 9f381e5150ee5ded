"""The next sweep on simulated sweeps of 24 to 60 runs, for several families of seeds, crashes and truths.

AMC_SOAK_SWEEPS (default 100) sets the number of sweeps of each row; rows with inert parameters have four times as many.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor

import pytest
from next_sweep_trials import follow_all, follow_inert, median
from results_file import keep
from training_surface import Crashes

from amc_analysis.next_sweep.narrowing import ERROR, LEAST_TO_DROP

SWEEPS = int(os.environ.get("AMC_SOAK_SWEEPS", "100"))
PROCESSES = min(2, os.cpu_count() or 1)
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
    with ProcessPoolExecutor(PROCESSES) as pool:
        found = dict(zip(ROWS, pool.map(follow_all, seeds, [SWEEPS] * len(ROWS), crashes), strict=True))
        inert = list(pool.map(follow_inert, range(4 * SWEEPS), chunksize=4))
    for name, trials in found.items():
        inside = sum(trial.inside for trial in trials)
        shares = ", ".join(
            f"{parameter} {median(trial.shares[parameter] for trial in trials):.0%}" for parameter in trials[0].shares
        )
        shrinks = median(trial.shrinks for trial in trials)
        figures[name] = (
            f"optimum inside {inside} of {len(trials)}; space {shrinks:.1f} times smaller (median); {shares}"
        )
    parts = [share for trial in inert for share in trial.dropped.values()]
    inside, told = sum(trial.inside for trial in inert), [trial for trial in inert if trial.told is not None]
    lost = sum(any(trial.dropped.values()) for trial in inert)
    figures |= {
        "values and ranges as good as the best: dropped": f"{sum(parts):.1f} of {len(parts):,}, "
        f"{sum(parts) / len(parts):.2%}; the file says at most {ERROR:.0%}",
        "inert parameters, identical values, noise, both kinds of crashes": f"optimum inside {inside} of {len(inert)}; "
        f"{lost} lost some of what is as good as the best; fewest runs of anything dropped: "
        f"{min(trial.fewest for trial in inert)}; where any parameter matters, space "
        f"{median(trial.shrinks for trial in inert if trial.matters):.1f} times smaller (median)",
        "the same, told what is inert": f"space {median(trial.told or 1 for trial in told):.1f} times smaller; "
        f"not told {median(trial.shrinks for trial in told):.1f} ({len(told)} sweeps)",
    }
    keep("next_sweep", full=SWEEPS >= 100, figures=figures)
    for name, trials in found.items():
        assert sum(trial.inside for trial in trials) >= 0.95 * len(trials), name
    for name in list(ROWS)[:3]:
        assert median(trial.shrinks for trial in found[name]) >= 4, name
    assert inside >= 0.95 * len(inert)
    assert sum(parts) <= ERROR * len(parts)
    assert min(trial.fewest for trial in inert) >= LEAST_TO_DROP
    assert not any(trial.unclear for trial in inert)
