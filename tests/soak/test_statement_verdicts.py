"""How often verdicts on statements are right, at the size of the calibration. AMC_CALIBRATION_SWEEPS shortens it."""

from __future__ import annotations

import os

import pytest
from judged_statements import null_rates, planted_rates
from results_file import keep

FULL = 2000
SWEEPS = int(os.environ.get("AMC_CALIBRATION_SWEEPS", FULL))


@pytest.mark.timeout(1200)
def test_verdicts_on_statements() -> None:
    null, planted = null_rates(SWEEPS), planted_rates(SWEEPS // 5)
    figures = {
        **{f"no effect, yet supported: {text}": rate for text, rate in null.items()},
        **{f"2 noise sd at n = 30, supported: {text}": rates[0] for text, rates in planted.items()},
        **{f"2 noise sd at n = 30, its reverse contradicted: {text}": rates[1] for text, rates in planted.items()},
    }
    shown = {name: f"{rate.k:,} of {rate.n:,}: {rate.share:.2%}" for name, rate in figures.items()}
    keep("statements", full=SWEEPS >= FULL, figures=shown)
    assert all(rate.share <= 0.05 + 2 * rate.se(0.05) for rate in null.values())
    assert all(rate.share >= 0.80 for rates in planted.values() for rate in rates)
