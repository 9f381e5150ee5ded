"""Every frame is in exactly one part, and the parts are the same on every machine."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amc_core.data.radioml import DataError, Selection
from amc_core.data.splits import manifest, manifest_differences, split_fingerprint, stratified_split
from amc_core.modulations import CLASSES


def cells(n_modulations: int, n_levels: int, n_frames: int, first_row: int = 0) -> Selection:
    count = n_modulations * n_levels * n_frames
    return Selection(
        label_set="some",
        modulations=CLASSES[:n_modulations],
        levels_db=tuple(range(0, 2 * n_levels, 2)),
        rows=np.arange(first_row, first_row + count),
        modulation=np.repeat(np.arange(n_modulations), n_levels * n_frames),
        snr=np.tile(np.repeat(np.arange(n_levels), n_frames), n_modulations),
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(10, 40), st.integers(0, 2**32), st.floats(0.05, 0.45))
def test_parts_are_disjoint_complete_and_stratified(
    n_modulations: int, n_levels: int, n_frames: int, seed: int, held_out: float
) -> None:
    selection = cells(n_modulations, n_levels, n_frames)
    fractions = (1 - 2 * held_out, held_out, held_out)
    try:
        split = stratified_split(selection, fractions, seed)
    except DataError:
        assert len(selection.rows) * held_out < 2
        return
    everything = np.concatenate([split.train, split.val, split.test])
    assert np.array_equal(np.sort(everything), np.arange(len(selection.rows)))
    cell = selection.modulation * n_levels + selection.snr
    for part, fraction in zip((split.train, split.val, split.test), fractions, strict=True):
        counts = np.bincount(cell[part], minlength=n_modulations * n_levels)
        assert np.abs(counts - fraction * n_frames).max() < 2
        assert abs(len(part) - fraction * len(everything)) < 1 + 1e-3


def test_the_original_file_divides_into_the_published_numbers() -> None:
    split = stratified_split(cells(17, 16, 4096), (0.8, 0.1, 0.1), seed=0)
    assert (len(split.train), len(split.val), len(split.test)) == (891_289, 111_411, 111_412)


def test_the_split_depends_on_the_seed_only() -> None:
    one, again, other = (stratified_split(cells(3, 2, 50), (0.8, 0.1, 0.1), seed) for seed in (1, 1, 2))
    assert np.array_equal(one.test, again.test)
    assert not np.array_equal(one.test, other.test)
    # Golden positions: another platform or library version must not move a frame.
    assert stratified_split(cells(1, 1, 20), (0.8, 0.1, 0.1), seed=0).test.tolist() == [6, 7]


def test_held_out_frames_are_spread_over_the_cell() -> None:
    test = stratified_split(cells(1, 1, 4000), (0.8, 0.1, 0.1), seed=0).test
    assert 1700 < test.mean() < 2300
    assert len(np.unique(np.diff(test))) > 10


def test_a_part_without_frames_is_refused() -> None:
    with pytest.raises(DataError, match="4 / 0 / 1"):
        stratified_split(cells(1, 1, 5), (0.8, 0.1, 0.1), seed=0)


def test_the_fingerprint_depends_on_everything_that_decides_the_split() -> None:
    selection = cells(2, 3, 10)
    fingerprint = split_fingerprint("data", selection, (0.8, 0.1, 0.1), 0)
    assert fingerprint == split_fingerprint("data", selection, (0.8, 0.1, 0.1), 0)
    others = [
        split_fingerprint("other", selection, (0.8, 0.1, 0.1), 0),
        split_fingerprint("data", dataclasses.replace(selection, label_set="all24"), (0.8, 0.1, 0.1), 0),
        split_fingerprint("data", cells(2, 2, 10), (0.8, 0.1, 0.1), 0),
        split_fingerprint("data", selection, (0.7, 0.2, 0.1), 0),
        split_fingerprint("data", selection, (0.8, 0.1, 0.1), 1),
    ]
    assert len({fingerprint, *others}) == 6


def test_a_manifest_survives_json_and_names_the_rows_of_every_part() -> None:
    selection = cells(2, 3, 20, first_row=100)
    facts = manifest("data", selection, (0.8, 0.1, 0.1), 3, with_rows=True)
    again = manifest("data", selection, (0.8, 0.1, 0.1), 3)
    assert manifest_differences(json.loads(json.dumps(facts)), again) == []
    assert facts["split_fingerprint"] == split_fingerprint("data", selection, (0.8, 0.1, 0.1), 3)
    assert facts["modulations"] == ["OOK", "4ASK"]
    split = stratified_split(selection, (0.8, 0.1, 0.1), 3)
    assert facts["parts"]["test"]["rows"] == (split.test + 100).tolist()
    assert sum(part["frames"] for part in facts["parts"].values()) == 120
    assert "rows" not in again["parts"]["test"]
    # Golden: another platform or library version must write the same manifest.
    assert again["split_fingerprint"] == "1ee59185c4839a54"
    assert again["parts"]["val"]["sha256"].startswith("2041d83e4d460d93")


def test_the_differences_of_another_manifest_are_named() -> None:
    selection = cells(2, 3, 20)
    given = manifest("data", selection, (0.8, 0.1, 0.1), 0)
    assert any(
        "split_seed: 0" in difference
        for difference in manifest_differences(given, manifest("data", selection, (0.8, 0.1, 0.1), 1))
    )
    assert any(
        difference.startswith("data_fingerprint: 'data' in the manifest")
        for difference in manifest_differences(given, manifest("other", selection, (0.8, 0.1, 0.1), 0))
    )
    damaged = {**given, "parts": {**given["parts"], "val": {"frames": 12, "sha256": "0"}}}
    assert [difference.split(":")[0] for difference in manifest_differences(damaged, given)] == ["val, sha256"]
