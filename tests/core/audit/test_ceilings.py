"""The ceilings against theory and known values."""

from __future__ import annotations

import numpy as np
import pytest

from amc_core.audit.ceilings import ceilings, estimate_snr_db, likelihood_bound, psd_snr_accuracy, standard_error
from amc_core.modulations import CLASSES, DIGITAL17
from amc_core.synthesis.frames import Recipe, synthesise_frames

DIGITAL = [CLASSES[column] for column in DIGITAL17]


@pytest.mark.parametrize(("snr_db", "expected"), [(-10, 0.228), (0, 0.665), (6, 0.944), (10, 1.0)])
def test_the_bound_of_the_digital_modulations_is_the_known_one(snr_db: int, expected: float) -> None:
    bound = likelihood_bound(DIGITAL, snr_db, 50, np.random.default_rng(1))
    assert bound == pytest.approx(expected, abs=0.045)  # three standard errors of 850 frames


def test_the_bound_uses_the_given_rings() -> None:
    # With rings of nearly one size, 16APSK lies farther from 16QAM than with an inner and an outer one.
    names = ["16APSK", "16QAM"]
    expected, one_size = (
        likelihood_bound(names, -6, 200, np.random.default_rng(6), radii={"16APSK": (1.0, ratio)})
        for ratio in (2.85, 1.05)
    )
    assert one_size > expected + 3 * standard_error(expected, 400)


def test_the_bound_of_two_constellations_agrees_with_theory() -> None:
    # BPSK against QPSK in strong noise is a test of one variance against another. With N = 128 symbols at Es/N0 = g the
    # detector sum(I^2 - Q^2) has the deflection sqrt(N) g: an error of Phi(-sqrt(N) g / 2) at equal odds.
    from math import erfc, sqrt

    snr_db = -20.0
    g = 8 * 10 ** (snr_db / 10)
    expected = 1 - 0.5 * erfc(sqrt(128) * g / 2 / sqrt(2))
    assert likelihood_bound(["BPSK", "QPSK"], snr_db, 3000, np.random.default_rng(2)) == pytest.approx(
        expected, abs=0.025
    )


def test_oqpsk_differs_from_qpsk_by_its_instants_only() -> None:
    assert likelihood_bound(["QPSK", "OQPSK"], 0, 100, np.random.default_rng(3)) > 0.99
    assert likelihood_bound(["QPSK", "OQPSK"], -25, 400, np.random.default_rng(3)) < 0.6


def test_a_modulation_without_symbols_has_no_bound() -> None:
    with pytest.raises(ValueError, match="FM, GMSK: no likelihood bound"):
        likelihood_bound(["QPSK", "FM", "GMSK"], 0, 1, np.random.default_rng(0))


def test_the_spectrum_gives_the_snr_of_nearly_every_frame() -> None:
    levels = range(0, 31, 2)
    share = [psd_snr_accuracy(DIGITAL, level, levels, 25, np.random.default_rng([4, level])) for level in levels]
    assert np.mean(share) >= 0.97
    assert min(share) > 0.85


@pytest.mark.parametrize("modulation", ["QPSK", "256QAM", "GMSK", "FM", "AM-DSB-SC"])
def test_the_estimate_is_unbiased_whatever_the_gain(modulation: str) -> None:
    for snr_db in (-5, 10, 25):
        frames = synthesise_frames(modulation, snr_db, 100, np.random.default_rng(5), Recipe(gain_db=10))
        assert np.median(estimate_snr_db(frames)) == pytest.approx(snr_db, abs=0.25)


def test_frames_of_noise_and_frames_of_zeros_have_an_estimate() -> None:
    noise = np.random.default_rng(0).normal(size=(20, 1024, 2)).astype(np.float32)
    assert (estimate_snr_db(noise) < -5).all()
    assert np.isfinite(estimate_snr_db(np.zeros((1, 1024, 2), np.float32))).all()


def test_a_table_has_a_line_a_level_and_depends_on_its_seed_alone() -> None:
    reported: list[int] = []
    facts = {"frames_per_level": 30, "seed": 1}
    rows = ceilings(["BPSK", "8PSK"], [-4, 20], advance=reported.append, **facts)
    assert rows == ceilings(["BPSK", "8PSK"], [-4, 20], **facts)
    assert [row.snr_db for row in rows] == reported == [-4, 20]
    assert rows[0].n_modulation == 30
    assert rows[1].modulation == 1.0
