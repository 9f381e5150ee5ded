"""Standard output and standard error whose reader may have gone, as after ``2>&1 | head``.

Python raises BrokenPipeError there, in the middle of whatever the command does. Every wing uses this module, so it
imports the standard library only.
"""

from __future__ import annotations

import io
import sys
from typing import Any


class _Droppable(io.FileIO):
    """A stream that drops what nobody reads any more."""

    is_unread = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            self.is_unread = True
            return len(data)


def drop_unread_output() -> None:
    """Let this process go on where nobody reads its output any more: what it writes there is dropped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            descriptor = stream.fileno()
        except (AttributeError, OSError, ValueError):  # none, closed, or a test's stream
            continue
        stream.flush()
        raw = _Droppable(descriptor, "w", closefd=False)
        wrapper = io.TextIOWrapper(
            io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=stream.line_buffering
        )
        setattr(sys, name, wrapper)


def is_unread() -> bool:
    """Return whether nobody reads standard output any more, as far as this process has noticed."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _Droppable) and raw.is_unread
