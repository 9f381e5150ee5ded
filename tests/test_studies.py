"""Studies go on where they were ended, and frames of GNU Radio have the labels that they should have."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from amc_core.modulations import CLASSES

BENCHMARKS = Path(__file__).parent / "benchmarks"
GNURADIO = Path("/usr/lib/python3/dist-packages/gnuradio")  # where Debian's package puts it


@pytest.fixture(scope="module")
def studies() -> dict[str, ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        names = ("finished", "small_network", "gnuradio_frames", "study_gnuradio", "study_networks", "study_validation")
        return {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.pop(0)


def options_of(folder: Path, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    importlib.import_module("finished").add_folder_options(parser)
    return parser.parse_args(["--folder", str(folder), *arguments])


def square(number: int) -> dict[int, int]:
    if number < 0:
        raise ValueError(number)
    return {number: number**2}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_study_does_only_the_jobs_that_are_not_finished(
    studies: dict[str, ModuleType], tmp_path: Path, processes: str
) -> None:
    finished_jobs, shown = studies["finished"].finished_jobs, list[tuple[str, Any]]()
    options, threads = options_of(tmp_path / "new", "--processes", processes), torch.get_num_threads()
    try:
        jobs = {"two": partial(square, 2), "bad": partial(square, -1)}
        with pytest.raises(ValueError, match="-1"):
            finished_jobs(options_of(tmp_path / "new"), jobs, lambda *_: None)
        (kept,) = (tmp_path / "new" / "finished.jsonl").read_text().splitlines()
        assert json.loads(kept) == ["two", {"2": 4}]
        jobs = {"three": partial(square, 3), "two": partial(square, 2)}
        results = finished_jobs(options, jobs, lambda *each: shown.append(each))
        assert list(results.items()) == [("three", {"3": 9}), ("two", {"2": 4})]
        assert sorted(shown) == [("three", {"3": 9}), ("two", {"2": 4})]
        # Nothing is done again: this job would raise.
        again = {"two": partial(square, -1), "four": partial(square, 4)}
        only = options_of(tmp_path / "new", "--finished-only")
        results = finished_jobs(only, again, lambda *_: None)
        assert results == {"two": {"2": 4}}
        assert studies["finished"].not_done(again, results) == " 1 of this study's 2 trainings are not done."
    finally:
        torch.set_num_threads(threads)


def test_a_cycle_that_was_read_again_has_the_epochs_as_numbers(studies: dict[str, ModuleType]) -> None:
    validation = studies["study_validation"]
    cycle = validation.Cycle(lagging={2: 0.1}, reference={2: 0.2}, averaged={2: 0.3}, averaged_reference={2: 0.4})
    cycle.renewed[256][2] = 0.5
    assert validation.cycle_of(json.loads(json.dumps(asdict(cycle)))) == cycle


def test_scores_are_counted_by_level_and_class(studies: dict[str, ModuleType]) -> None:
    small = studies["small_network"]
    modulation, snr = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    frames = small.Frames(torch.zeros(4, 1024, 2), modulation, snr)
    network = small.Network(None, torch.nn.Identity(), None, [])
    guesses = torch.eye(2)[torch.tensor([0, 1, 1, 1])], torch.eye(2)[torch.tensor([0, 1, 1, 1])]
    network.represent = torch.nn.Identity()
    network.model = type("Model", (torch.nn.Module,), {"forward": lambda *_: guesses})()
    outcome = small.score(network, frames, n_classes=2, n_levels=2)
    assert (outcome.modulation, outcome.snr, outcome.joint) == (75.0, 75.0, 50.0)
    assert outcome.joint_by_level == (50.0, 50.0)
    assert outcome.joint_by_class == (50.0, 50.0)
    assert outcome.modulation_by_class == (50.0, 100.0)


def test_the_small_network_sees_every_frame_once_an_epoch(studies: dict[str, ModuleType]) -> None:
    small = studies["small_network"]
    number = torch.arange(2 * small.BATCH)
    frames = small.Frames(number[:, None, None].float(), number, number)
    batches = frames.batches(seed=0)
    first, second = ([next(batches) for _ in range(2)] for _ in range(2))
    for epoch in (first, second):
        assert sorted(torch.cat([modulation for _, modulation, _ in epoch]).tolist()) == number.tolist()
        assert all(torch.equal(iq.flatten().long(), modulation) for iq, modulation, _ in epoch)
    assert not torch.equal(first[0][1], second[0][1])


@pytest.mark.parametrize("nominal", [False, True])
def test_noise_gives_each_frame_its_own_snr_or_the_nominal_one(studies: dict[str, ModuleType], nominal: bool) -> None:
    rng = np.random.default_rng(0)
    noise_NT, phase_NT = rng.standard_normal((2, 3, 4096, 2)).view(np.complex128)[..., 0]
    signal_NT = np.sqrt([[1.0], [4.0], [1.0]]) * np.exp(1j * phase_NT.real)  # mean power 2
    level_N = np.array([0, 10, 30])
    received_NT, snr_N = studies["gnuradio_frames"].add_noise(signal_NT, 3 * noise_NT, level_N, nominal=nominal)
    assert np.mean(np.abs(received_NT) ** 2, axis=1) == pytest.approx(1, abs=1e-5)
    own_N = level_N + 10 * np.log10([0.5, 2, 0.5]) if nominal else level_N
    assert snr_N == pytest.approx(own_N)
    # Measured on the frame: what is left beside the signal.
    share_N = np.abs(np.mean(received_NT * signal_NT.conj(), axis=1)) ** 2 / np.mean(np.abs(signal_NT) ** 2, axis=1)
    assert 10 * np.log10(share_N / (1 - share_N)) == pytest.approx(own_N, abs=0.3)


@pytest.mark.skipif(not GNURADIO.is_dir(), reason="GNU Radio is not installed: apt-get install gnuradio")
def test_frames_of_gnuradio_have_their_labels(tmp_path: Path) -> None:
    command = [
        "/usr/bin/python3",
        str(BENCHMARKS / "gnuradio_frames.py"),
        str(tmp_path),
        "--classes",
        ",".join(CLASSES),
    ]
    subprocess.run([*command, "--levels", "0,20", "--frames-per-cell", "3", "--fading"], check=True, timeout=200)
    frames_NT = np.load(tmp_path / "X.npy").view(np.complex64)[..., 0]
    assert np.load(tmp_path / "Y.npy").argmax(axis=1).tolist() == np.repeat(range(24), 6).tolist()
    level_N = np.load(tmp_path / "Z.npy")[:, 0]
    assert level_N.tolist() == [0, 0, 0, 20, 20, 20] * 24
    assert np.mean(np.abs(frames_NT) ** 2, axis=1) == pytest.approx(1, abs=1e-4)
    # No signal reaches a quarter of the sample rate: the noise there is all that there is.
    power_NF = np.abs(np.fft.fft(frames_NT)) ** 2 / 1024**2
    noise_N = power_NF[:, 256:768].mean(axis=1) * 1024
    assert 10 * np.log10((1 - noise_N) / noise_N) == pytest.approx(level_N, abs=1.6)
