"""A reader finds the old file or the new one; a lock names its holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amc_core.files import (
    LockedError,
    append_durably,
    link_whole,
    lock_file,
    own_file,
    unused_folder,
    use_folder,
    whole_file,
    why_not_writable,
    write_whole,
)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def interrupted() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert _files(tmp_path) == [path]


def test_an_error_names_the_file_that_was_meant(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "a.csv", tmp_path / ("x" * 254), Path("/proc/a.csv")):
        with pytest.raises(OSError, match="Errno") as caught:
            write_whole(path, "text")
        assert str(caught.value.filename) == str(path)
    path = tmp_path / "a.csv"
    with pytest.raises(OSError, match="No space") as caught, whole_file(path):
        raise OSError(28, "No space left on device")  # as the close of a file does
    assert caught.value.filename == str(path)


@pytest.mark.parametrize("durable", [False, True])
def test_text_and_bytes_replace_what_was_there(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "ä", durable=durable)
    assert path.read_bytes() == "ä".encode()
    write_whole(path, b"\0", durable=durable, mode=0o600)
    assert path.read_bytes() == b"\0"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_not_overwritten_where_that_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "mine", replace=False)
    with pytest.raises(FileExistsError):
        write_whole(path, "yours", replace=False)
    assert path.read_text() == "mine"
    assert _files(tmp_path) == [path]


def test_a_second_name_keeps_its_content(tmp_path: Path) -> None:
    path, other = tmp_path / "last", tmp_path / "best"
    write_whole(path, "one")
    link_whole(path, other)
    write_whole(path, "two")
    assert (path.read_text(), other.read_text()) == ("two", "one")
    link_whole(path, other)
    assert other.read_text() == "two"
    assert _files(tmp_path) == [other, path]


def test_a_lock_is_refused_to_another_process_with_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = f"from pathlib import Path\nfrom amc_core.files import lock_file\nlock_file(Path({str(path)!r}))"
    with lock_file(path):
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert f"locked by process {os.getpid()}" in other.stderr
        with pytest.raises(LockedError) as refused:
            lock_file(path)
        assert refused.value.holder == str(os.getpid())
    with lock_file(path):
        assert path.read_text() == str(os.getpid())


def test_each_of_two_owners_gets_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "cpu.log"
    first, held = own_file(path)
    second, held_too = own_file(path)
    assert (first, second) == (path, tmp_path / "logs" / "cpu-2.log")
    os.close(held)
    third, again = own_file(path)
    assert third == path, "its owner has ended"
    os.close(held_too)
    os.close(again)


def test_lines_are_added_after_one_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_durably(path, [b"one", b"two"])
    path.write_bytes(path.read_bytes() + b"cut o")
    append_durably(path, [b"three"])
    append_durably(path, [])
    assert path.read_bytes().split(b"\n") == [b"one", b"two", b"cut o", b"three", b""]


def test_a_folder_is_used_by_any_number_of_processes_and_free_when_they_have_ended(tmp_path: Path) -> None:
    users = [use_folder(tmp_path) for _ in range(2)]
    for user in users:
        assert user is not None
        with unused_folder(tmp_path) as is_unused:
            assert not is_unused
        os.close(user)
    with unused_folder(tmp_path) as is_unused:
        assert is_unused
    assert use_folder(tmp_path / "missing") is None


def test_what_keeps_a_file_from_being_written_is_known_before(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    assert why_not_writable(path) is None
    assert why_not_writable(Path("/dev/null")) is None
    for given, reason in (
        (tmp_path, "it is a folder"),
        (tmp_path / "no" / "a.txt", "its folder does not exist"),
        (path / "a.txt", "its folder is a file"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("/proc/a.txt"), "No such file or directory"),
    ):
        assert why_not_writable(given) == reason
    assert path.read_text() == "old"
    assert _files(tmp_path) == [path]


def test_a_device_a_pipe_and_a_link_keep_their_names(tmp_path: Path) -> None:
    write_whole(Path("/dev/null"), "text")
    assert Path("/dev/null").is_char_device()
    reader, writer = os.pipe()
    write_whole(Path(f"/dev/fd/{writer}"), "text")
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "text"
    link, path = tmp_path / "link", tmp_path / "elsewhere" / "a.txt"
    path.parent.mkdir()
    link.symlink_to(path)
    for content in ("one", "two"):
        write_whole(link, content)
        assert (link.is_symlink(), path.read_text(), _files(path.parent)) == (True, content, [path])
