"""Commands of which nobody reads the output go on, and end with their own exit code, as after ``2>&1 | head``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from amc_core.data.radioml import RadioMLFile

PROGRAM = "from amc_core.commands import main; main()"


def unread(*arguments: str, program: str = PROGRAM) -> int:
    """Run a command whose standard output and standard error nobody reads; return its exit code."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, stdout=writer, stderr=writer, check=False, timeout=120).returncode
    finally:
        os.close(writer)


def test_a_file_is_written_whole_and_a_failed_check_is_told(tmp_path: Path) -> None:
    path = tmp_path / "new" / "frames.hdf5"  # "made the folder" comes first
    assert unread("synth", str(path), "--frames-per-cell", "1", "--snr", "0,10", "--classes", "BPSK,QPSK") == 0
    with RadioMLFile(path) as data:
        assert data.n_frames == 4
    assert unread("audit", str(tmp_path / "nowhere.hdf5")) == 1


def test_what_is_written_after_the_reader_has_gone_is_dropped_and_noticed() -> None:
    program = (
        "import sys; from amc_core.unread_output import drop_unread_output, is_unread\n"
        "drop_unread_output(); assert not is_unread()\n"
        "for stream in (sys.stdout, sys.stderr):\n    print('x' * 100_000, file=stream, flush=True)\n"
        "assert is_unread(); print('later'); sys.exit(7)"
    )
    assert unread(program=program) == 7


def test_output_that_is_read_is_the_same() -> None:
    program = (
        "import sys; from amc_core.unread_output import drop_unread_output, is_unread\n"
        "print('one'); drop_unread_output(); print('two'); print('three', file=sys.stderr); assert not is_unread()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("one\ntwo\n", "three\n")


def test_a_letter_that_the_terminal_lacks_is_written_as_an_escape() -> None:
    program = "from amc_core.unread_output import drop_unread_output; drop_unread_output(); print('\\xe9\\udcff')"
    for encoding, expected in (("ascii", b"\\xe9\\udcff\n"), ("utf-8", b"\xc3\xa9\\udcff\n")):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True)
        assert done.stdout == expected


def test_closed_streams_are_open_for_everything_that_prints(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys; from amc_core.unread_output import drop_unread_output, is_unread\n"
        "drop_unread_output(); print('text'); print('text', file=sys.stderr)\n"
        "assert not (sys.stdin.isatty() or sys.stdout.isatty() or sys.stderr.isatty() or is_unread())\n"
        f"with open({str(tmp_path / 'file')!r}, 'w') as file:\n"
        "    sys.exit(file.fileno() > 2 and 7 + subprocess.call(['sh', '-c', 'echo text && echo text >&2']))"
    )
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    assert subprocess.run([*closed, sys.executable, "-c", program], check=False, timeout=60).returncode == 7
    assert (tmp_path / "file").read_text() == ""
