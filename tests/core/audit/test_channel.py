"""The audit tells a channel about a symbol long, under which every label is right, from wrong labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from amc_core.audit.check import Check
from amc_core.audit.label_order import PUBLISHED_ORDER, channel, label_order
from amc_core.modulations import CLASSES
from amc_core.synthesis.frames import Recipe, synthesise_frames

Frames = npt.NDArray[np.float32]
N_FRAMES = 24
SNR_DB = 25

# Delays in samples (a symbol has 8), powers of the taps, and whether they are drawn for every frame.
CHANNELS = {
    "two equal taps": ((0, 8), (0.5, 0.5), True),
    "decaying": ((0, 4, 8), (0.6, 0.3, 0.1), True),
    "two symbols": ((0, 8, 16), (0.5, 0.3, 0.2), True),
    "the same for all frames": ((0, 8), (0.6, 0.4), False),
}


def through(frames_BTC: Frames, name: str, rng: np.random.Generator) -> Frames:
    """Return frames after a channel, with noise."""
    delays, powers, drawn = CHANNELS[name]
    signal_BT = frames_BTC.view(np.complex64)[..., 0]
    shape = (len(signal_BT) if drawn else 1, len(delays))
    taps_BD = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * np.sqrt(np.array(powers) / 2)
    if not drawn:
        taps_BD = np.sqrt(powers)[None, :] * np.array([1, 1j])
    faded_BT = sum(taps_BD[:, place, None] * np.roll(signal_BT, delay, axis=1) for place, delay in enumerate(delays))
    faded_BT /= np.sqrt((np.abs(faded_BT) ** 2).mean(axis=1, keepdims=True))
    noise_BT = rng.standard_normal(faded_BT.shape) + 1j * rng.standard_normal(faded_BT.shape)
    faded_BT = faded_BT + noise_BT * np.sqrt(10 ** (-SNR_DB / 10) / 2)
    return np.ascontiguousarray(faded_BT.astype(np.complex64)).view(np.float32).reshape(frames_BTC.shape)


@pytest.fixture(scope="module")
def clean() -> dict[int, Frames]:
    """Return frames of every class without noise."""
    rng = np.random.default_rng(0)
    return {column: synthesise_frames(name, 60, N_FRAMES, rng) for column, name in enumerate(CLASSES)}


@pytest.fixture(scope="module", params=CHANNELS)
def faded(request: pytest.FixtureRequest, clean: dict[int, Frames]) -> dict[int, Frames]:
    rng = np.random.default_rng(1)
    return {column: through(frames_BTC, request.param, rng) for column, frames_BTC in clean.items()}


def judged(by_column: dict[int, Frames]) -> Check:
    found = channel(by_column, CLASSES)
    return label_order(by_column, CLASSES, through_channel=found.verdict == "warn")


def test_right_labels_behind_a_channel_are_not_called_wrong(faded: dict[int, Frames]) -> None:
    assert channel(faded, CLASSES).verdict == "warn"
    order = judged(faded)
    assert order.verdict in {"pass", "skip"}, order.text
    assert "neither" not in order.text
    assert order.measured["blurred_by_channel"] != []


def test_wrong_labels_behind_a_channel_are_still_found(faded: dict[int, Frames]) -> None:
    shuffled = np.random.default_rng(3).permutation(24).tolist()
    assert judged({column: faded[other] for column, other in enumerate(shuffled)}).verdict == "fail"
    exchanged = {**faded, 0: faded[4], 4: faded[0]}  # OOK, which has a carrier, and QPSK
    assert judged(exchanged).verdict == "fail"
    published = judged({PUBLISHED_ORDER.index(CLASSES[column]): faded[column] for column in faded})
    assert published.verdict == "fail"
    assert "follow classes.txt" in published.text


@pytest.mark.parametrize("fading", ["none", "rayleigh", "rician"])
def test_the_short_channels_of_synth_are_no_channel(fading: str) -> None:
    rng = np.random.default_rng(0)
    recipe = Recipe(fading=fading)
    frames = {column: synthesise_frames(name, SNR_DB, N_FRAMES, rng, recipe) for column, name in enumerate(CLASSES)}
    assert channel(frames, CLASSES).verdict == "pass"
    assert judged(frames).verdict == "pass"


def test_random_labels_are_wrong_and_no_channel(clean: dict[int, Frames]) -> None:
    frames = np.concatenate(list(clean.values()))[np.random.default_rng(0).permutation(24 * N_FRAMES)]
    random = {column: frames[column * N_FRAMES : (column + 1) * N_FRAMES] for column in range(24)}
    order = judged(random)
    assert order.verdict == "fail"
    assert "columns follow neither" in order.text
