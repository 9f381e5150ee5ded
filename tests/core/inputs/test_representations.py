"""Images: their content, equal results of every path, and bad frames."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from reference_images import reference_images
from torch import Tensor

from amc_core.config import OWN_NETWORKS, SIGNAL_NETWORKS, ConfigError, TrialConfig
from amc_core.inputs.representations import CHANNELS, Representation, input_shape
from amc_core.synthesis.frames import Recipe, synthesise_frames

REPRESENTATIONS = ("constellation", "constellation_psd", "synced", "iq", "amplitude_phase")


def config(representation: str = "constellation", **changes: Any) -> TrialConfig:
    model = next((name for name, takes in SIGNAL_NETWORKS.items() if takes == representation), "amc_convnet")
    return TrialConfig.from_mapping({"representation": representation, "model_type": model, **changes})


def noise(n_frames: int, seed: int = 1) -> Tensor:
    return torch.randn(n_frames, 1024, 2, generator=torch.Generator().manual_seed(seed))


def points_moved(images: Tensor, expected: Tensor, n_points: int) -> float:
    """Return the share of points in other bins than expected, from log1p histograms."""
    return float((images.double().expm1() - expected.double().expm1()).abs().sum() / 2 / n_points)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("size", [32, 49, 64, 128, 224])
def test_both_paths_move_at_most_one_point_in_a_hundred_thousand_against_numpy(size: int, compiled: bool) -> None:
    frames = 7.0 * noise(200)
    images = Representation(config(image_size=size), compiled=compiled)(frames)
    expected, _ = reference_images(frames.numpy(), size=size, half_range=2.5)
    assert images.shape == (200, 1, size, size)
    assert points_moved(images[:, 0], torch.from_numpy(expected), 200 * 1024) <= 1e-5


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_auto_range_moves_no_more_points_against_numpy_without_a_range(size: int, compiled: bool) -> None:
    frames = noise(400)
    images = Representation(config(histogram_range="auto", image_size=size), compiled=compiled)(frames)
    expected, _ = reference_images(frames.numpy(), size=size, half_range="auto")
    assert points_moved(images[:, 0], torch.from_numpy(expected), 400 * 1024) <= 1e-5


def test_auto_range_loses_the_scale() -> None:
    frames = noise(20)
    narrow = torch.stack([frames, frames * torch.tensor([0.5, 2.0])])  # the axes are stretched one by one
    same = Representation(config(histogram_range="auto", image_size=32))(narrow.flatten(0, 1))
    torch.testing.assert_close(same[:20], same[20:])


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_the_input_does_not_depend_on_the_receivers_gain(name: str) -> None:
    representation = Representation(config(name, image_size=32))
    torch.testing.assert_close(representation(noise(3)), representation(noise(3) * 8.0), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("compiled", [True, False])
def test_max_normalisation_scales_every_image_to_1(compiled: bool) -> None:
    images = Representation(config(image_size=32, histogram_norm="max"), compiled=compiled)(noise(3))
    torch.testing.assert_close(images.amax(dim=(1, 2, 3)), torch.ones(3))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_bad_frames_give_zeros_are_counted_and_leave_the_others_alone(name: str, compiled: bool) -> None:
    frames = noise(4)
    spoiled = frames.clone()
    spoiled[1, 5, 0] = float("nan")
    spoiled[2, 9, 1] = float("inf")
    spoiled[3] = 0.0  # silent, but finite
    representation = Representation(config(name, image_size=32), compiled=compiled)
    clean, images = representation(frames), representation(spoiled)
    assert int(representation.bad_frames) == 2
    assert not images[1:3].any()
    assert torch.isfinite(images).all()
    assert torch.equal(images[0], clean[0])


@pytest.mark.parametrize(("size", "carrier_range"), [(32, 1 / 1600), (64, 2.5e-3), (100, 1 / 64)])
def test_compiled_code_and_torch_draw_the_same_synced_images(size: int, carrier_range: float) -> None:
    frames = np.concatenate(
        [synthesise_frames(name, 12.0, 16, np.random.default_rng(0)) for name in ("QPSK", "64QAM", "8PSK", "8ASK")]
    )
    frames = torch.from_numpy(frames) * 3.0
    settings = config("synced", image_size=size, carrier_range=carrier_range)
    images = Representation(settings)(frames)
    expected = Representation(settings, compiled=False)(frames)
    for channel, n_points in ((0, 124), (1, 246)):
        assert points_moved(images[:, channel] / 3, expected[:, channel] / 3, len(frames) * n_points) <= 1e-5
    torch.testing.assert_close(images[:, 2], expected[:, 2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(images[:, 3:], expected[:, 3:], atol=1e-4, rtol=1e-4)


def test_synced_shows_the_points_of_a_constellation_and_its_phase_steps() -> None:
    frames = torch.from_numpy(synthesise_frames("QPSK", 30.0, 40, np.random.default_rng(1)))
    quadrant_BHW, polar_BHW, *_ = Representation(config("synced"))(frames).unbind(dim=1)
    # One point of QPSK is left in a quadrant: a line at four times the carrier is positive real after the turn, so that
    # it lies on an axis; halved there, all of it lies in the rows and columns of |z| = 1.
    mean_HW = quadrant_BHW.mean(dim=0)
    peak = divmod(int(mean_HW.argmax()), 64)
    assert sorted(peak)[0] <= 3
    assert abs(sorted(peak)[1] - 32) <= 2
    columns_W = polar_BHW.mean(dim=(0, 1))
    assert columns_W[[0, 16, 32, 48]].min() > 5 * columns_W[[8, 24, 40, 56]].max()  # phase steps of 90 degrees
    rows_H = polar_BHW.mean(dim=(0, 2))
    assert abs(int(rows_H.argmax()) - 29) <= 1  # 1 / 2.2 * 64


@pytest.mark.parametrize("name", REPRESENTATIONS)
@pytest.mark.parametrize("size", [32, 64, 100])
def test_the_input_has_the_shape_of_input_shape(name: str, size: int) -> None:
    input_BX = Representation(config(name, image_size=size))(noise(2))
    assert input_BX.shape == (2, *input_shape(config(name, image_size=size)))
    assert input_BX.shape[1] == CHANNELS[name]


def test_iq_is_the_frame_at_unit_power_with_the_channels_first() -> None:
    input_BCT = Representation(config("iq"))(5.0 * noise(3))
    torch.testing.assert_close(input_BCT.square().sum(dim=(1, 2)), torch.full((3,), 1024.0))
    torch.testing.assert_close(
        input_BCT[:, 1] / input_BCT[:, 0], noise(3)[..., 1] / noise(3)[..., 0], rtol=1e-4, atol=0
    )


def test_amplitudes_have_norm_1_and_phases_are_divided_by_pi() -> None:
    frames = 5.0 * noise(3)
    amplitude_BT, phase_BT = Representation(config("amplitude_phase"))(frames).unbind(dim=1)
    expected = np.asarray(torch.view_as_complex(frames))
    np.testing.assert_allclose(
        amplitude_BT, np.abs(expected) / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6
    )
    np.testing.assert_allclose(phase_BT, np.angle(expected) / np.pi, atol=1e-6)


def test_compiled_code_and_torch_give_the_same_amplitudes_and_phases() -> None:
    frames = 7.0 * noise(64)
    frames[0, :4] = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])
    compiled = Representation(config("amplitude_phase"))(frames)
    expected = Representation(config("amplitude_phase"), compiled=False)(frames)
    torch.testing.assert_close(compiled, expected, atol=1e-6, rtol=1e-5)
    assert compiled[0, 1, :4].tolist() == pytest.approx([0.0, 0.0, 1.0, -0.5])


@pytest.mark.parametrize("model_type", OWN_NETWORKS)
@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_a_network_takes_its_representation_and_a_wrong_one_is_refused_with_the_right_one(
    model_type: str, representation: str
) -> None:
    given = {"representation": representation, "model_type": model_type}
    takes = SIGNAL_NETWORKS.get(model_type)
    is_image = representation not in SIGNAL_NETWORKS.values()
    if takes == representation or (takes is None and is_image):
        assert TrialConfig.from_mapping(given).model_type == model_type
        return
    right = f"{model_type} takes {takes}; write representation: {takes}"
    if takes is None:
        right = "networks that take it: " + ("lstm2" if representation == "amplitude_phase" else "iq_convnet, gru2, ")
    with pytest.raises(ConfigError, match=right):
        TrialConfig.from_mapping(given)


def test_samples_given_to_a_default_or_timm_network_are_refused() -> None:
    for given in ({"representation": "iq"}, {"representation": "iq", "model_type": "vit"}):
        with pytest.raises(ConfigError, match="takes images, but representation iq gives samples"):
            TrialConfig.from_mapping(given)
    with pytest.raises(ConfigError, match=r"representation: constellation was given, .* write representation: iq"):
        TrialConfig.from_mapping({"model_type": "iq_convnet"})


def test_a_setting_that_a_representation_ignores_is_refused() -> None:
    for given in ({"histogram_norm": "max"}, {"histogram_range": "auto"}, {"histogram_range": 2.0}):
        with pytest.raises(ConfigError, match=r"has no meaning for representation synced"):
            config("synced", **given)
    assert config("synced", histogram_norm="none", histogram_range=2.5).representation == "synced"
    with pytest.raises(ConfigError, match=r"carrier_range: 0\.002 has no meaning for representation iq"):
        config("iq", carrier_range=2e-3)


def test_a_wider_carrier_range_keeps_the_points_of_a_far_carrier_together() -> None:
    recipe = Recipe(cfo_sd=1e-3)
    frames = torch.from_numpy(synthesise_frames("QPSK", 20.0, 60, np.random.default_rng(1), recipe))
    sharpness = {}
    for carrier_range in (1 / 1600, 5e-3):
        quadrant_BHW = Representation(config("synced", carrier_range=carrier_range))(frames)[:, 0].expm1()
        sharpness[carrier_range] = (quadrant_BHW.amax(dim=(1, 2)) / quadrant_BHW.sum(dim=(1, 2))).median()
    assert sharpness[5e-3] > 2 * sharpness[1 / 1600]


def test_numba_is_imported_when_it_is_needed_and_not_before() -> None:
    program = (
        "import sys, torch\n"
        "from amc_core.config import TrialConfig\n"
        "from amc_core.inputs.representations import Representation\n"
        "representation = Representation(TrialConfig(image_size=32))\n"
        "assert 'numba' not in sys.modules\n"
        "representation(torch.zeros(1, 1024, 2))\n"
        "assert 'numba' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_numba_torch_draws_the_images() -> None:
    program = (
        "import sys, torch\n"
        "sys.modules['numba'] = None\n"  # an import of it fails now
        "from amc_core.config import TrialConfig\n"
        "from amc_core.inputs.representations import Representation\n"
        "for name in ('constellation', 'synced', 'amplitude_phase'):\n"
        "    config = TrialConfig(representation=name, image_size=32)\n"
        "    assert Representation(config)(torch.randn(2, 1024, 2)).any()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_cuda_gives_the_inputs_of_the_cpu_without_waiting(name: str) -> None:
    frames = noise(64, seed=3)
    on_cuda = Representation(config(name)).cuda()
    expected = Representation(config(name))(frames)
    moved = frames.cuda()
    on_cuda(moved)  # cuFFT makes its plan in the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        images = on_cuda(moved)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    images = images.cpu()
    n_points = math.prod(frames.shape[:2])
    if name.startswith("constellation"):
        assert points_moved(images[:, 0], expected[:, 0], n_points) <= 1e-5
        images, expected = images[:, 1:], expected[:, 1:]
    torch.testing.assert_close(images, expected, atol=1e-3, rtol=1e-3)
