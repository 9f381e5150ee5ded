"""Files that are written whole or not at all, locks that a process holds while it lives, and what is at a path.

Every wing uses this module, so it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO


def exists(path: Path) -> bool:
    """Return whether there is something at a path; pathlib raises where a name has more bytes than any file's."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Return whether a path is a file, see ``exists``."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder, see ``exists``."""
    return os.path.isdir(path)  # noqa: PTH112


class LockedError(RuntimeError):
    """Another process holds the lock; ``holder`` is its process id as text, or ``unknown``."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by process {holder}")
        self.holder = holder


@contextlib.contextmanager
def whole_file(path: Path, *, replace: bool = True, durable: bool = False, mode: int = 0o666) -> Iterator[Path]:
    """Lend an empty file beside ``path``; it takes that name when the block ends, and is removed when the block raises.

    Behind a link it is the linked file that is replaced. A device or a pipe is lent itself.

    Args:
        path: the file that a reader finds: the old one or the new one, never a part.
        replace: False refuses to overwrite a file that exists when the block ends.
        durable: return only when file and name are on disk, so that they survive a power cut.
        mode: permissions before the umask.

    Raises:
        FileExistsError: with ``replace=False``, where ``path`` exists.
        OSError: the folder cannot be written, or the disk is full.
    """
    if exists(path) and not is_file(path) and not is_folder(path):
        yield path  # a device or a pipe, such as /dev/stdout: a file of that name would take its place
        return
    target = Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode))
        yield partial
        if durable:
            _flush(partial)
        if replace:
            partial.replace(target)
        else:
            os.link(partial, target)  # a rename would replace what is there
            partial.unlink()
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.filename is None or str(error.filename) == str(partial)):
            error.filename = str(path)  # what the user named
        raise
    if durable:
        _flush(target.parent)


def write_whole(
    path: Path, content: str | bytes, *, replace: bool = True, durable: bool = False, mode: int = 0o666
) -> None:
    """Write text (UTF-8) or bytes in one step; the arguments and errors are those of ``whole_file``."""
    with whole_file(path, replace=replace, durable=durable, mode=mode) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def why_not_writable(path: Path) -> str | None:
    """Return why ``whole_file`` cannot write a file, as far as that shows before its content is there; None: it can."""
    if is_folder(path):
        return "it is a folder"
    if not is_folder(path.parent):
        return "its folder is a file" if exists(path.parent) else "its folder does not exist"
    if exists(path) and not is_file(path):
        return None  # a device or a pipe
    target = Path(os.path.realpath(path))
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}."):
            return None
    except OSError as error:
        return error.strerror or str(error)


def append_durably(path: Path, lines: Iterable[bytes]) -> None:
    """Add whole lines to a file; they are on disk when this returns. A last line that a kill cut off is ended first.

    Raises:
        OSError: the file cannot be written, or the disk is full.
    """
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.writelines(line + b"\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    _flush(path.parent)


def remove_partial_files(folder: Path) -> None:
    """Remove what ``whole_file`` left in a folder when its process was killed; nobody else may write there now."""
    for path in folder.glob(".*"):
        if path.suffix[1:].isdecimal() and path.is_file():
            path.unlink(missing_ok=True)


def link_whole(path: Path, other: Path) -> None:
    """Give a file a second name, which another file may have had; copy it where the file system has no hard links.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    with whole_file(other) as partial:
        partial.unlink()
        try:
            partial.hardlink_to(path)
        except OSError:
            shutil.copyfile(path, partial)
    _flush(other.parent)


def lock_file(path: Path, *, mode: int = 0o600) -> BinaryIO:
    """Lock a file and write this process's id into it; the lock lasts until the returned file is closed.

    The kernel frees the lock however the process ends. The file itself stays.

    Raises:
        LockedError: another process holds the lock.
        OSError: the file cannot be opened.
    """
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, mode), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = file.read(20).decode(errors="replace").strip() or "unknown"
        file.close()
        raise LockedError(path, holder) from error
    file.truncate(0)
    file.write(str(os.getpid()).encode())
    file.flush()
    return file


def own_file(path: Path) -> tuple[Path, int]:
    """Return a file that no other process has got from here, made if missing: ``path``, else ``path`` with -2, -3 ...

    It belongs to this process until the returned descriptor is closed. On a file system without locks it is always
    ``path``.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        descriptor = os.open(candidate, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        except OSError:
            pass
        return candidate, descriptor
    raise AssertionError("unreachable")


def use_folder(folder: Path) -> int | None:
    """Say that this process uses a folder, as others may, until the returned descriptor is closed or it ends.

    None where the file system has no such locks (NFS).
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    return None


@contextlib.contextmanager
def unused_folder(folder: Path) -> Iterator[bool]:
    """Give whether no process uses a folder; while the block runs, ``use_folder`` waits.

    True where the file system has no such locks.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_unused = True
        except BlockingIOError:
            is_unused = False
        except OSError:
            is_unused = True
        yield is_unused
    finally:
        os.close(descriptor)


def _flush(path: Path) -> None:
    """Have the kernel write a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
