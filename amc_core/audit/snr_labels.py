"""Whether the SNR labels are those of single frames, from the noise out of band.

In names: L levels, B frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from amc_core.audit.check import Check, judged
from amc_core.data.radioml import FRAME_LENGTH
from amc_core.synthesis.pulses import SAMPLES_PER_SYMBOL
from amc_core.verdicts import Verdict
from amc_sweeps.number_formats import percent

LOWEST_MEASURED_DB = -10  # below this, the SNR measured from the noise floor is too inexact
FRAMES_PER_LEVEL = 256

_LOWEST_SPREAD_DB = 0  # below this, the measurement of one frame is too inexact
_LEAST_FRAMES = 16  # of a level, for its spread
_TOLERANCE_DB = 1.0  # half the distance of two levels
_LEAST_ACCURACY = 0.9

Estimates = npt.NDArray[np.float64]


def snr_labels(by_level: Mapping[int, Estimates]) -> Check:
    """Compare the SNR measured in single frames with their label.

    The median of a level says whether its label is right; the spread of its frames says how far single frames are from
    it. Labels of a mean SNR, set before a fading channel, are right in the median only.

    Args:
        by_level: the SNR measured in frames of every level, in dB.
    """
    if not by_level:
        return Check("SNR labels", Verdict.SKIP, f"no usable frame at {LOWEST_MEASURED_DB} dB or more")
    medians = {level: float(np.median(estimate_B)) for level, estimate_B in by_level.items()}
    differences = {level: median - level for level, median in medians.items()}
    worst = max(differences, key=lambda level: abs(differences[level]))
    shift = float(np.median(list(differences.values())))
    spreads = {
        level: _spread(estimate_B)
        for level, estimate_B in by_level.items()
        if level >= _LOWEST_SPREAD_DB and len(estimate_B) >= _LEAST_FRAMES
    }
    accuracies = _accuracies(by_level, medians, spreads)
    accuracy = float(np.mean(list(accuracies.values()))) if accuracies else None
    in_median = abs(differences[worst]) <= _TOLERANCE_DB
    exact = accuracy is None or accuracy >= _LEAST_ACCURACY
    texts = [
        f"SNR measured out of band differs from the label by at most {abs(differences[worst]):.1f} dB in the median of "
        f"a level (at {worst} dB)"
    ]
    if spreads:
        texts.append(_spread_text(spreads, accuracy, exact=exact))
    if not in_median:
        is_shift = exact and max(abs(value - shift) for value in differences.values()) <= _TOLERANCE_DB
        symbol_db = 10 * math.log10(SAMPLES_PER_SYMBOL)
        texts.append(
            f"all levels are shifted by {shift:+.1f} dB (labels of Es/N0 would be shifted by {-symbol_db:+.1f})"
            if is_shift
            else "the labels are not the SNR per sample over the full band"
        )
    measured = {
        "measured_db": {str(level): round(value, 3) for level, value in medians.items()},
        "spread_db": {str(level): round(value, 3) for level, value in spreads.items()},
        "accuracy_allowed": accuracy,
        "accuracy_allowed_by_level": {str(level): round(value, 4) for level, value in accuracies.items()},
    }
    return judged("SNR labels", in_median and exact, "; ".join(texts), measured)


def _spread_text(spreads: Mapping[int, float], accuracy: float | None, *, exact: bool) -> str:
    level = max(spreads, key=lambda level: spreads[level] - exact_spread_db(level))
    text = (
        f"single frames at {level} dB lie within {spreads[level]:.1f} dB of that median (68% of them; "
        f"{exact_spread_db(level):.1f} dB where labels are exact)"
    )
    if accuracy is None:
        return text
    text += f", which allows an SNR accuracy of about {percent(accuracy)} at {_LOWEST_SPREAD_DB} dB and above"
    if exact:
        return text
    return text + ": the labels are not the SNR of single frames, but, for example, a mean before a fading channel"


def _spread(estimate_B: Estimates) -> float:
    """Return half the width of the middle 68%: one standard deviation of a normal distribution."""
    low, high = np.quantile(estimate_B, [0.1587, 0.8413])
    return float(high - low) / 2


def exact_spread_db(level_db: float) -> float:
    """Return the spread of the SNR measured in single frames whose labels are exact, in dB.

    The estimate is ``P / N - 1``: N, the noise, from the bins out of band, and P, the power, from all T samples. With
    a ratio rho of signal to noise, and in units of the noise, P has the variance (1 + 2 rho) / T. Its covariance with N
    is 1 / T, because both see the same noise. To first order the estimate has the variance
    (1 + rho)^2 var(N) + (1 + 2 rho) / T - 2 (1 + rho) / T, and so has the ratio over rho^2.
    """
    rho = 10 ** (level_db / 10)
    variance = ((1 + rho) ** 2 * NOISE_VARIANCE - 1 / FRAME_LENGTH) / rho**2
    return 10 / math.log(10) * math.sqrt(variance)


# Of the mean power of the 511 bins beyond 0.25 cycles per sample, in units of the noise. Neighbouring bins are
# correlated by the Blackman window, so 511 of them are worth 511 / 2.347 independent ones: of Gaussian values, the
# covariance of two powers is the squared covariance of the values (L. Isserlis, Biometrika 12, 1918). The test derives
# the number from the window, and compares the spread with that of simulated frames.
NOISE_VARIANCE = 2.347 / 511


def _accuracies(
    by_level: Mapping[int, Estimates], medians: Mapping[int, float], spreads: Mapping[int, float]
) -> dict[int, float]:
    """Return, for every level with a spread, the share of frames whose measured SNR is nearest to their own level.

    The share is divided by what exact labels reach with this measurement. Levels are placed where their medians are,
    because a network learns a shift.
    """
    levels = sorted(by_level)
    if len(levels) < 2:
        return {}
    place_L = np.array([medians[level] for level in levels])
    accuracies = {}
    for level in spreads:
        own = levels.index(level)
        nearest_B = np.abs(by_level[level][:, None] - place_L[None, :]).argmin(axis=1)
        below = (level - levels[own - 1]) / 2 if own > 0 else math.inf
        above = (levels[own + 1] - level) / 2 if own + 1 < len(levels) else math.inf
        measurement = NormalDist(0, exact_spread_db(level))
        reachable = measurement.cdf(above) - measurement.cdf(-below)
        accuracies[level] = min(1.0, float((nearest_B == own).mean()) / reachable)
    return accuracies
