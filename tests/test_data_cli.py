"""amc-data synth as a user types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from amc_core.cli import main
from amc_core.radioml import RadioMLFile


def synth(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["synth", *arguments])


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
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert out.read_text() == "precious"
    assert synth(*arguments, "--force").exit_code == 0
    with RadioMLFile(out) as data:
        assert data.n_frames == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--classes", "OOK,QPSK"), "planned but not built yet: OOK"),
        (("--classes", "all24"), "AM-SSB-WC"),
        (("--classes", "QPSKK"), "unknown: QPSKK"),
        (("--fading", "rayleigh"), "rayleigh is planned but not built yet"),
        (("--fading", "fog"), "unknown"),
        (("--snr", "30:0:2"), "names no level"),
        (("--snr", "loud"), "0:30:2"),
        (("--snr", "0:40:2"), "-20..30 dB"),
        (("--frames-per-cell", "0"), "frames-per-cell"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = synth(str(tmp_path / "frames.hdf5"), *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "frames.hdf5").exists()


def test_a_folder_is_made_and_one_that_cannot_be_is_said(tmp_path: Path) -> None:
    assert synth(str(tmp_path / "new" / "frames.hdf5")).exit_code == 0
    result = synth(str(tmp_path / "new" / "frames.hdf5" / "below a file" / "frames.hdf5"))
    assert result.exit_code == 1
    assert "Not a directory" in result.stderr
    assert "nothing was written" in result.stderr


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from amc_core.cli import main; "
        "assert CliRunner().invoke(main, ['synth', '--help']).exit_code == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
