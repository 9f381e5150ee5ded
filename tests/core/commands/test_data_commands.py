"""amc-data as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from amc_core.commands import main
from amc_core.commands.show import first_row
from amc_core.data.radioml import RadioMLFile
from amc_core.modulations import CLASSES
from amc_core.synthesis.file import write_file


def data(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


def synth(*arguments: str) -> Result:
    return data("synth", *arguments)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "frames.hdf5"
    write_file(path, modulations=CLASSES, levels_db=[0, 20], frames_per_cell=12, seed=0)
    return path


def test_synth_writes_a_file_that_the_reader_takes(tmp_path: Path) -> None:
    out = tmp_path / "frames.hdf5"
    result = synth(str(out), "--frames-per-cell", "2", "--snr", "0:10:5", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert "102 frames, 17 classes x 3 SNR levels" in result.stdout
    assert "writing" in result.stderr
    with RadioMLFile(out) as data:
        assert data.is_memory_mapped
        assert data.n_frames == 102
        assert sorted(set(data.snr_db_N.tolist())) == [0, 5, 10]


def test_an_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    out = tmp_path / "frames.hdf5"
    out.write_text("precious")
    arguments = (str(out), "--frames-per-cell", "1", "--snr", "0,20", "--classes", "QPSK,BPSK")
    refused = synth(*arguments)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert out.read_text() == "precious"
    assert synth(*arguments, "--force").exit_code == 0
    with RadioMLFile(out) as data:
        assert data.n_frames == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--classes", "QPSKK"), "unknown: QPSKK"),
        (("--fading", "fog"), "'fog' is not one of 'none', 'rayleigh', 'rician'"),
        (("--gain-db", "-3"), "gain_db: -3.0 lies outside 0..60 dB"),
        (("--roll-off", "0.5:0.1", "--half-span", "1:9"), "half_span: (1, 9) is not a range within 1..8 symbols"),
        (("--roll-off", "wide"), "write LOW:HIGH"),
        (("--rings", "16APSK"), "16APSK=2.6"),
        (("--rings", "QPSK=2"), "QPSK: has no rings"),
        (("--processes", "0"), "processes"),
        (("--snr", "30:0:2"), "has no level"),
        (("--snr", "loud"), "0:30:2"),
        (("--snr", "0:40:2"), "-20..30 dB"),
        (("--snr", "0:999999999999:1"), "-20..30 dB"),
        (("--frames-per-cell", "0"), "frames-per-cell"),
    ],
)
def test_a_wrong_flag_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = synth(str(tmp_path / "frames.hdf5"), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "frames.hdf5").exists()


def test_one_missing_folder_is_made_and_named(tmp_path: Path) -> None:
    result = synth(str(tmp_path / "new" / "frames.hdf5"), "--frames-per-cell", "1")
    assert result.exit_code == 0
    assert f"made the folder {tmp_path / 'new'}" in result.stderr
    for mistyped in ("neww/deep/frames.hdf5", "new/frames.hdf5/below a file/frames.hdf5"):
        refused = synth(str(tmp_path / mistyped))
        assert refused.exit_code == 2
        assert "is no folder, so nothing was written" in refused.stderr
    assert not (tmp_path / "neww").exists()


def test_every_choice_of_the_generator_is_a_flag_and_is_kept_in_the_file(tmp_path: Path) -> None:
    choices = ["--fading", "rician", "--gain-db", "10", "--roll-off", "0.2:0.3", "--half-span", "6", "--cfo-sd", "0"]
    choices += ["--rings", "16APSK=2.6", "--rings", "64APSK=8+16+20+20"]
    out = tmp_path / "frames.hdf5"
    result = synth(str(out), "--classes", "all24", "--snr", "10", "--frames-per-cell", "1", "--seed", "5", *choices)
    assert result.exit_code == 0, result.output
    assert "24 frames, 24 classes x 1 SNR level, " in result.stdout
    with h5py.File(out) as file:
        recipe = json.loads(file.attrs["synthesis"])
    assert recipe["fading"] == "rician"
    assert (recipe["gain_db"], recipe["cfo_sd"], recipe["seed"]) == (10, 0, 5)
    assert (recipe["roll_off"], recipe["half_span"]) == ([0.2, 0.3], [6, 6])
    assert recipe["radii"]["16APSK"] == [1.0, 2.6]
    assert recipe["radii"]["64APSK"] == "8+16+20+20"
    assert recipe["radii"]["32APSK"] == [1.0, 2.84, 5.27]


def test_how_to_train_on_few_classes_is_said_when_they_are_written(tmp_path: Path) -> None:
    def written(name: str, classes: str) -> str:
        result = synth(str(tmp_path / name), "--frames-per-cell", "1", "--snr", "10", "--classes", classes)
        assert result.exit_code == 0
        return result.stderr

    few = written("few.hdf5", "QPSK,BPSK")
    assert f"to train on these classes: amc-train --data={tmp_path / 'few.hdf5'} --label_set=BPSK,QPSK" in few
    assert "no trial can train on 1 class" in written("one.hdf5", "BPSK")
    assert "to train" not in written("all.hdf5", "all24")


def test_split_takes_a_list_of_classes_and_check_takes_them_from_the_manifest(frames: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    assert data("split", str(frames), str(path), "--classes", "8PSK,BPSK").exit_code == 0
    facts = json.loads(path.read_text())
    assert (facts["label_set"], facts["modulations"]) == ("BPSK,8PSK", ["BPSK", "8PSK"])
    assert data("split", str(frames), str(path), "--label-set", "BPSK, 8PSK").exit_code == 0  # the same split
    assert data("split", str(frames), str(path), "--check").exit_code == 0
    assert data("split", str(frames), str(path), "--classes", "BPSK,QPSK").exit_code == 2
    everything = [data("split", str(frames), str(tmp_path / name), "--classes", name) for name in ("file", "all24")]
    assert everything[0].stdout == everything[1].stdout
    unknown = data("split", str(frames), str(tmp_path / "no.json"), "--classes", "BPSK,QPKS")
    assert unknown.exit_code == 1
    assert "QPKS (did you mean QPSK?)" in unknown.stderr


def test_split_says_which_heldout_frames_are_training_frames(tmp_path: Path) -> None:
    path = tmp_path / "frames.hdf5"
    write_file(path, modulations=CLASSES, levels_db=[10], frames_per_cell=10, seed=0)
    assert "training frames" not in data("split", str(path), str(tmp_path / "a.json")).stderr
    with h5py.File(path, "r+") as raw:
        raw["X"][::2] = raw["X"][1::2]
    warned = data("split", str(path), str(tmp_path / "b.json"))
    assert warned.exit_code == 0
    assert "of 34 validation and test frames are training frames, too" in warned.stderr


def test_audit_gives_a_verdict_a_line_and_fails_by_exit_code(frames: Path, tmp_path: Path) -> None:
    good = data("audit", str(frames))
    assert good.exit_code == 0, good.output
    assert [line.split()[0] for line in good.stdout.splitlines()] == ["pass"] * 12
    assert "reading frames.hdf5" in good.stderr
    bad = data("audit", str(tmp_path / "nowhere.hdf5"), "--json")
    assert bad.exit_code == 1
    assert bad.stderr == ""  # no progress of what was never opened
    facts = json.loads(bad.stdout)
    assert facts["passed"] is False
    assert facts["checks"][0]["verdict"] == "fail"
    assert "no such file" in facts["checks"][0]["message"]
    facts = json.loads(data("audit", str(frames), "--json").stdout)
    assert facts["passed"] is True
    assert {check["name"] for check in facts["checks"]} >= {"label order", "SNR labels", "synced"}


def test_show_draws_the_chosen_frame(frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "frame.png"
    result = data("show", str(frames), str(out), "--modulation", "8PSK", "--snr-db", "20", "--image-size", "32")
    assert result.exit_code == 0, result.output
    assert "8PSK at 20 dB" in result.stdout
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 50
    none = data("show", str(frames), str(out), "--modulation", "8PSK", "--snr-db", "10")
    assert none.exit_code == 1
    assert "no frame with --modulation 8PSK --snr-db 10; the file has 576 rows, SNR levels [0, 20] dB" in none.stderr
    nothing = data("show", str(frames), str(tmp_path / "frame.nothing"), "--row", "3")
    assert nothing.exit_code == 2
    assert "its name must end in .png" in nothing.stderr
    assert "QPSK at 20 dB" in data("show", str(frames), str(out), "--modulation", " qpsk", "--snr-db", "20").stdout
    assert data("show", str(frames), str(out), "--row", "576").exit_code == 1


def test_a_frame_is_found_among_millions_without_a_text_for_each() -> None:
    n_frames = 2_000_000
    large: Any = SimpleNamespace(
        classes=CLASSES, column_N=np.arange(n_frames, dtype=np.int32) // 100_000, snr_db_N=np.zeros(n_frames, np.int16)
    )
    tracemalloc.start()
    assert first_row(large, None, CLASSES[7], 0) == 700_000
    assert first_row(large, 1_900_001, CLASSES[19], None) == 1_900_001
    assert first_row(large, 5, CLASSES[19], None) is None
    assert first_row(large, None, "no class", None) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * n_frames


def test_a_name_that_no_file_can_have_is_a_missing_file(frames: Path, tmp_path: Path) -> None:
    long = str(tmp_path / ("x" * 300))
    for arguments in (
        ("show", long, str(tmp_path / "a.png")),
        ("split", long, str(tmp_path / "a.json")),
        ("split", str(frames), long),
        ("audit", long),
        ("evaluate", long),
        ("synth", long, "--frames-per-cell", "1"),
        ("synth", f"{long}/a.hdf5", "--frames-per-cell", "1"),
    ):
        ended = data(*arguments)
        assert ended.exit_code in {1, 2}, arguments
        assert isinstance(ended.exception, SystemExit), arguments


def test_split_writes_a_manifest_that_another_machine_can_check(frames: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "split.json"
    written = data("split", str(frames), str(manifest), "--snr-min-db", "20", "--split", "0.5,0.25,0.25", "--rows")
    assert written.exit_code == 0, written.output
    facts = json.loads(manifest.read_text())
    assert facts["levels_db"] == [20]
    assert len(facts["parts"]["train"]["rows"]) == facts["parts"]["train"]["frames"] == 102
    moved = tmp_path / "elsewhere.hdf5"
    moved.write_bytes(frames.read_bytes())
    checked = data("split", str(moved), str(manifest), "--check")
    assert checked.exit_code == 0, checked.output
    assert facts["split_fingerprint"] in checked.stdout
    manifest.write_text(json.dumps(facts | {"split_seed": 0.0}))  # as some JSON writers put whole numbers
    assert data("split", str(moved), str(manifest), "--check").exit_code == 0
    other = tmp_path / "other.hdf5"
    write_file(other, modulations=CLASSES, levels_db=[0, 20], frames_per_cell=12, seed=1)
    refused = data("split", str(other), str(manifest), "--check")
    assert refused.exit_code == 1
    assert "data_fingerprint" in refused.stderr
    own_values = data("split", str(moved), str(manifest), "--check", "--split-seed", "3")
    assert own_values.exit_code == 2
    assert "leave out --split_seed" in own_values.stderr


def test_a_manifest_is_replaced_only_by_one_of_the_same_split_or_with_force(frames: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "split.json"
    assert data("split", str(frames), str(manifest)).exit_code == 0
    assert data("split", str(frames), str(manifest), "--rows").exit_code == 0, "the same split"
    before = manifest.read_text()
    refused = data("split", str(frames), str(manifest), "--split-seed", "3")
    assert (refused.exit_code, manifest.read_text()) == (2, before)
    assert "use --force to replace it" in refused.stderr
    assert data("split", str(frames), str(manifest), "--split-seed", "3", "--force").exit_code == 0
    assert manifest.read_text() != before


def test_a_data_file_is_not_replaced_by_its_own_manifest(tmp_path: Path) -> None:
    path = tmp_path / "frames.hdf5"
    path.write_bytes(b"frames")
    refused = data("split", str(path), str(path), "--force")
    assert (refused.exit_code, path.read_bytes()) == (2, b"frames")
    assert "would destroy the other content" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("--split", "0.5,0.5,0.5"), 2, "sum to 1.5"),
        (("--label-set", "digital"), 2, "digital17"),
        (("--snr-min-db", "8", "--snr-max-db", "10"), 1, "holds the SNR levels [0, 20]"),
        (("--check",), 2, "amc-data split writes one"),
    ],
)
def test_an_impossible_split_is_refused(
    frames: Path, tmp_path: Path, arguments: tuple[str, ...], exit_code: int, message: str
) -> None:
    result = data("split", str(frames), str(tmp_path / "split.json"), *arguments)
    assert result.exit_code == exit_code
    assert message in result.stderr
    assert not (tmp_path / "split.json").exists()


@pytest.mark.parametrize("content", [b"\x89HDF\r\n", b"{" * 100_000, b'{"a":' * 100_000, b"[]", b"", b"\xff\xfe{"])
def test_a_file_that_is_no_manifest_is_refused_and_not_replaced(frames: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(content)
    for arguments in (("--check",), ()):
        refused = data("split", str(frames), str(path), *arguments)
        assert refused.exit_code == 2
        assert isinstance(refused.exception, SystemExit)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"levels_db": ["a"]}, "levels_db: ['a'] is not a list of SNR levels in dB"),
        ({"levels_db": [0, True]}, "levels_db: [0, True] is not a list"),
        ({"levels_db": []}, "levels_db: [] is not a list of SNR levels in dB"),
        ({"split": 3}, "split: 3 is not allowed"),
        ({"split_seed": "0"}, "split_seed: '0' is not allowed"),
        ({"label_set": ["digital17"], "split": [1]}, "label_set: ['digital17'] is not allowed"),
        ({"parts": [1]}, "parts: not an object of objects"),
        ({"parts": {"train": 5}}, "parts: not an object of objects"),
    ],
)
def test_a_manifest_with_a_damaged_value_is_refused_by_name_and_not_called_another_split(
    frames: Path, tmp_path: Path, damage: dict[str, object], message: str
) -> None:
    path = tmp_path / "split.json"
    assert data("split", str(frames), str(path), "--label-set", "all24").exit_code == 0
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    result = data("split", str(frames), str(path), "--check")
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_that_is_no_manifest_is_refused(frames: Path, tmp_path: Path) -> None:
    for content in ("{}", "[]", "hello", '{"label_set": "x", "levels_db": [0], "split": [1], "split_seed": 0}'):
        (tmp_path / "split.json").write_text(content)
        result = data("split", str(frames), str(tmp_path / "split.json"), "--check")
        assert result.exit_code == 2
        assert "not a manifest" in result.stderr


def test_ceiling_prints_a_table_and_json() -> None:
    table = data("ceiling", "--snr", "0,20", "--frames", "34", "--classes", "BPSK,QPSK")
    assert table.exit_code == 0, table.output
    assert table.stdout.splitlines()[1].split() == ["SNR", "dB", "modulation", "SNR"]
    assert table.stdout.splitlines()[2].split() == ["0", "100.0%", "+-", "0.0%", "100.0%", "+-", "0.0%"]
    assert table.stdout.splitlines()[-1].split() == ["mean", "100.0%", "100.0%"]
    facts = json.loads(data("ceiling", "--snr", "20", "--frames", "4", "--classes", "BPSK,QPSK", "--json").stdout)
    assert facts["levels"][0]["modulation"] == 1.0
    rings = data("ceiling", "--rings", "16APSK=1,2,3")
    assert rings.exit_code == 2
    assert "16APSK: [1.0, 2.0, 3.0] does not fit its 2 rings" in rings.stderr
    refused = data("ceiling", "--classes", "FM,QPSK")
    assert refused.exit_code == 2
    assert "FM: no likelihood bound" in refused.stderr


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from amc_core.commands import main; "
        "assert CliRunner().invoke(main, ['synth', '--help']).exit_code == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
