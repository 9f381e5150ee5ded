"""Standard output and standard error that cannot be written, because their reader has gone or their disk is full.

Python raises there, in the middle of whatever the command does: BrokenPipeError after ``2>&1 | head``, other OSErrors
for a terminal that was closed or a full disk. Every wing uses this module, so it imports the standard library only.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

_READER_HAS_GONE = {errno.EPIPE, errno.EIO}  # of a pipe, of a terminal


class _Droppable(io.FileIO):
    """A stream that drops what cannot be written."""

    error: OSError | None = None  # the last one

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            return len(data)


def drop_unread_output() -> None:
    """Let this process go on where its output cannot be written any more: the rest is dropped."""
    _reopen_closed_streams()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):  # closed, or a test's stream
            continue
        stream.flush()
        raw = _Droppable(descriptor, "w", closefd=False)
        # A file may have a name, and a run a letter, that the terminal's encoding lacks: it is written as an escape.
        buffer = io.BufferedWriter(raw)
        wrapper = io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", line_buffering=stream.line_buffering)
        setattr(sys, name, wrapper)


def _reopen_closed_streams() -> None:
    """Give closed standard streams the null device.

    Else the next file that is opened gets their number, and what a library prints goes into that file.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def is_unread() -> bool:
    """Return whether standard output reaches nobody any more, as far as this process has noticed."""
    return _error_of_stdout() is not None


def lost_output() -> OSError | None:
    """Return why a part of standard output is not where a reader looks for it; None where it is, or nobody reads it."""
    sys.stdout.flush()
    error = _error_of_stdout()
    return None if error is None or error.errno in _READER_HAS_GONE else error


def _error_of_stdout() -> OSError | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Droppable) else None
