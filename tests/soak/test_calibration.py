"""How often the analysis is right where the truth is known: null sweeps, planted effects, planted defects.

AMC_CALIBRATION_SWEEPS sets another number of sweeps than 2,000; the table then says that it is a short run.
"""

from __future__ import annotations

import os

import pytest
from calibration import Rate, null_counts, power_of_effects, power_of_modes, power_of_rules, wilson_coverage
from results_file import keep

FULL = 2000
SWEEPS = int(os.environ.get("AMC_CALIBRATION_SWEEPS", FULL))


@pytest.mark.timeout(3000)
def test_calibration_and_power() -> None:
    null = null_counts(SWEEPS, forests=SWEEPS // 10)
    effects, modes = power_of_effects(SWEEPS // 5), power_of_modes(SWEEPS // 5)
    rules = power_of_rules(SWEEPS // 10)
    lowest, mean, highest = wilson_coverage()
    figures = {
        "null sweeps (8 to 60 runs; noise, crashes, early stops, cancelled) with a clear effect at 5%": null.clear,
        "parameters with p < 0.05 before the correction": null.clear_uncorrected,
        **{f"95% intervals of means that cover the truth: {what}": rate for what, rate in null.covered.items()},
        "Wilson 95%, exact coverage over n 8..60 and rates 2..98%": f"lowest {lowest:.1%}, mean {mean:.2%}, "
        f"highest {highest:.1%}",
        "null sweeps judged bimodal at 5%": null.bimodal,
        "null sweeps in which the forest was not refused": null.importance,
        **{f"planted 2 noise sd at n = 30, found: {what}": rate for what, rate in effects.items()},
        "two groups of 4 and 8 runs, found with the right gap": modes,
        **{f"{rule}: findings in sweeps without its condition": rate for rule, rate in null.findings.items()},
        **{f"{rule}: found when planted": rate for rule, rate in rules.items()},
    }
    keep("calibration", full=SWEEPS >= FULL, figures={what: _shown(value) for what, value in figures.items()})
    assert null.clear.share <= 0.05 + 2 * null.clear.se(0.05)
    assert all(0.93 <= rate.share <= 0.97 for rate in null.covered.values())
    assert all(rate.share <= 0.01 for rate in null.findings.values())
    assert all(rate.share >= 0.80 for rate in effects.values())
    assert all(rate.share >= 0.95 for rate in (*rules.values(), modes))


def _shown(value: Rate | str) -> str:
    return value if isinstance(value, str) else f"{value.k:,} of {value.n:,}: {value.share:.2%}"
