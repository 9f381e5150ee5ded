"""What is seen of a fleet: a live table on a terminal, plain lines elsewhere, JSON lines for scripts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:  # the server's image has every command and no rich
    from rich.console import Console
    from rich.table import Table

GIB = 2**30
LINES_EVERY_S = 60.0  # between two rounds of plain lines; events come at once
_LOUD = {"quarantined", "gave_up", "agent_ended", "ending", "halted"}


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    kind: str
    place: str | None
    text: str
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One place at one moment."""

    place: str
    used_bytes: int | None
    total_bytes: int | None
    utilisation: float | None  # 0..1
    run: str | None
    doing: str
    epoch: int | None
    peak: float | None
    done: int  # trials on the place's device that did not fail
    failures: Mapping[str, int]  # by cause

    @property
    def memory(self) -> str:
        """Memory of the device, in GiB."""
        if self.used_bytes is None or self.total_bytes is None:
            return "-"
        return f"{self.used_bytes / GIB:.1f}/{self.total_bytes / GIB:.0f} GiB"

    @property
    def busy(self) -> str:
        """Utilisation of the device."""
        return "-" if self.utilisation is None else f"{self.utilisation:.0%}"

    @property
    def failed(self) -> str:
        """Failures by cause."""
        return ", ".join(f"{count} {cause}" for cause, count in self.failures.items()) or "-"


class Display(Protocol):
    """Where events and rows go."""

    def tell(self, event: Event) -> None: ...
    def show(self, rows: Sequence[Row]) -> None: ...
    def close(self) -> None: ...


def table(rows: Sequence[Row]) -> Table:
    """Draw the places."""
    from rich.table import Table

    found = Table(expand=False)
    for heading, justify in (
        ("worker", "left"), ("memory", "right"), ("busy", "right"), ("run", "left"), ("", "left"),
        ("epoch", "right"), ("peak so far", "right"), ("done", "right"), ("failed", "left"),
    ):  # fmt: skip
        found.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        found.add_row(
            row.place, row.memory, row.busy, row.run or "-", row.doing, _text(row.epoch), _text(row.peak),
            str(row.done), row.failed,
        )  # fmt: skip
    return found


def line(row: Row) -> str:
    """Say the same of one place in a line."""
    parts = [row.place]
    if row.total_bytes is not None:
        parts.append(f"{row.memory}, {row.busy} busy")
    parts.append(f"run {row.run}, {row.doing}" if row.run else row.doing)
    if row.epoch is not None:
        parts.append(f"epoch {row.epoch}")
    if row.peak is not None:
        parts.append(f"peak {_text(row.peak)}")
    parts.append(f"{row.done} done")
    if row.failures:
        parts.append(f"failed: {row.failed}")
    return " | ".join(parts)


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


class TerminalDisplay:
    """A table that stays at the bottom of the terminal, events above it."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live = Live(table(()), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def tell(self, event: Event) -> None:
        """Print an event above the table."""
        style = "bold" if event.kind in _LOUD else None
        self._live.console.print(_said(event), style=style, highlight=False, markup=False, soft_wrap=True)

    def show(self, rows: Sequence[Row]) -> None:
        """Draw the table anew."""
        self._live.update(table(rows), refresh=True)

    def close(self) -> None:
        """Leave the last table where it is."""
        self._live.stop()


class LineDisplay:
    """Lines for a log: events as they come, every place once a minute."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._shown_at_s = clock()

    def tell(self, event: Event) -> None:
        """Write an event."""
        print(_said(event), file=self._stream, flush=True)

    def show(self, rows: Sequence[Row]) -> None:
        """Write the places, if it is time."""
        if self._clock() - self._shown_at_s >= LINES_EVERY_S:
            self._shown_at_s = self._clock()
            for row in rows:
                print(f"{_time()} {line(row)}", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is held back."""


class JsonDisplay:
    """One JSON object a line on stdout: events as they come, every place once a minute as kind "row"."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._shown_at_s = clock()

    def tell(self, event: Event) -> None:
        """Write an event."""
        self._write({"event": event.kind, "worker": event.place, "text": event.text, **event.facts})

    def show(self, rows: Sequence[Row]) -> None:
        """Write the places, if it is time."""
        if self._clock() - self._shown_at_s >= LINES_EVERY_S:
            self._shown_at_s = self._clock()
            for row in rows:
                facts = asdict(row)
                self._write({"event": "row", "worker": facts.pop("place"), **facts})

    def close(self) -> None:
        """Nothing is held back."""

    def _write(self, facts: dict[str, Any]) -> None:
        print(json.dumps({"time": round(time.time(), 3), **facts}), file=self._stream, flush=True)


def open_display(*, as_json: bool) -> Display:
    """Return what fits where the output goes."""
    if as_json:
        return JsonDisplay(sys.stdout)
    from rich.console import Console

    console = Console(stderr=True)
    return TerminalDisplay(console) if console.is_terminal else LineDisplay(sys.stderr)


def _said(event: Event) -> str:
    return " ".join(part for part in (_time(), event.place and f"{event.place}:", event.text) if part)


def _time() -> str:
    return time.strftime("%H:%M:%S")
