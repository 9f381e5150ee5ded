"""How commands end, and the types of the arguments that name what they write."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from amc_core.command_line import ExplainingCommand, OutputFile, OutputFolder

PRINTS = """
import sys, click
from amc_core.command_line import ExplainingCommand
@click.command(cls=ExplainingCommand)
def main():
    click.echo("x" * 100_000)
    click.echo("the end", err=True)
    if len(sys.argv[0]) > 2:
        sys.exit(7)
main([])
"""


@click.command(cls=ExplainingCommand)
@click.option("--out", type=OutputFile(allow_dash=True))
@click.option("--csv", type=OutputFile())
@click.option("--folder", type=OutputFolder())
def works(out: Path | None, csv: Path | None, folder: Path | None) -> None:
    """Say what was given."""
    click.echo(f"worked with {out or csv or folder}")


@pytest.mark.parametrize("option", ["--out", "--csv", "--folder"])
def test_what_cannot_be_written_is_refused_before_the_work(option: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / "file"
    file.write_text("old")
    wrong = [file / "a", Path("/proc/a")]
    wrong += [file] if option == "--folder" else [folder, folder / "no" / "a", folder / ("x" * 300)]
    for path in wrong:
        ended = CliRunner().invoke(works, [option, str(path)])
        assert (ended.exit_code, ended.stdout) == (2, ""), path
    assert [file] == list(folder.iterdir())
    assert file.read_text() == "old"
    right = [folder, folder / "new" / "newer"] if option == "--folder" else [file, folder / "new", "/dev/null"]
    for path in [*right, *(["-"] if option == "--out" else [])]:
        ended = CliRunner().invoke(works, [option, str(path)])
        assert (ended.exit_code, ended.stdout) == (0, f"worked with {path}\n")
    assert [file] == list(folder.iterdir())


@pytest.mark.parametrize(
    ("raised", "exit_code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.csv"), 1, "Error: a.csv: No space left on device\n"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a"), 2, "Error: a: File name too long\n"),
    ],
)
def test_an_end_from_outside_is_one_line(raised: BaseException, exit_code: int, message: str) -> None:
    @click.command(cls=ExplainingCommand)
    def ends() -> None:
        raise raised

    ended = CliRunner().invoke(ends, [])
    assert (ended.exit_code, ended.stderr) == (exit_code, message)


def test_output_that_a_full_disk_lost_is_an_error_and_no_traceback() -> None:
    for name, exit_code in (("x", 1), ("ends-itself", 7)):
        program = f"import sys; sys.argv = [{name!r}]\n{PRINTS}"
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, check=False)
        lines = ended.stderr.decode().splitlines()
        assert (ended.returncode, lines[0]) == (exit_code, "the end"), "it goes on"
        lost = ["Error: a part of the output is lost: standard output: No space left on device"]
        assert lines[1:] == (lost if exit_code == 1 else [])


def test_output_that_nobody_reads_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = f"import sys; sys.argv = ['x']\n{PRINTS}"
    ended = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"the end\n")


def test_a_command_that_is_ended_leaves_no_half_written_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    program = "from amc_core.commands import main; main()"
    arguments = ["synth", str(folder / "frames.hdf5"), "--frames-per-cell", "1000", "--classes", "BPSK,QPSK"]
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list(folder.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert list(folder.iterdir()) == []
