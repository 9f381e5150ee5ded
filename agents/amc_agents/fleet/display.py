"""What a fleet shows: a live table on a terminal, plain lines in a log, JSON lines for scripts."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from amc_agents.fleet.agent_slot import AgentSlot
from amc_agents.fleet.devices import GIB, Reading
from amc_agents.fleet.policy import EndedTrial
from amc_agents.fleet.watch import Watcher
from amc_agents.notify import BestSoFar, FreeSpace, Notifier
from amc_sweeps.number_formats import duration, percent
from amc_sweeps.values import printable

if TYPE_CHECKING:  # the server's image has every command and no rich
    from rich.console import Console
    from rich.table import Table

ROWS_EVERY_S = 60.0  # in a log; events are written at once
_NOTIFIED = {"quarantined", "gave_up", "halted", "ending", "w&b", "sweep", "done"}
_BOLD = {"quarantined", "gave_up", "agent_ended", "ending", "halted"}


@dataclass(frozen=True)
class Event:
    """An event of the fleet. Facts that are None are not written."""

    kind: str
    worker: str | None
    text: str
    facts: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", printable(self.text))  # it may quote a log, or what a server said

    @property
    def line(self) -> str:
        return " ".join(part for part in (_time(), self.worker and f"{self.worker}:", self.text) if part)


@dataclass(frozen=True)
class Row:
    """One slot at one moment."""

    worker: str
    used_bytes: int | None
    total_bytes: int | None
    utilisation: float | None  # 0..1
    run: str | None
    doing: str
    epoch: int | None
    peak: float | None
    done: int  # trials on the slot's device that did not fail
    failures: Mapping[str, int]  # by cause

    @property
    def memory(self) -> str:
        if self.used_bytes is None or self.total_bytes is None:
            return "-"
        return f"{self.used_bytes / GIB:.1f}/{self.total_bytes / GIB:.0f} GiB"

    @property
    def busy(self) -> str:
        return "-" if self.utilisation is None else percent(self.utilisation)

    @property
    def failed(self) -> str:
        return ", ".join(f"{count} {cause}" for cause, count in self.failures.items()) or "-"

    @property
    def line(self) -> str:
        parts = [self.worker]
        if self.total_bytes is not None:
            parts.append(f"{self.memory}, {self.busy} busy")
        parts.append(f"run {self.run}, {self.doing}" if self.run else self.doing)
        if self.epoch is not None:
            parts.append(f"epoch {self.epoch}")
        if self.peak is not None:
            parts.append(f"peak {_cell(self.peak)}")
        parts.append(f"{self.done} done")
        if self.failures:
            parts.append(f"failed: {self.failed}")
        return " | ".join(parts)


def rows(
    slots: Sequence[AgentSlot],
    ended: Sequence[EndedTrial],
    readings: Mapping[str, Reading | None],
    watcher: Watcher,
    now_s: float,
) -> list[Row]:
    """Return one row per slot; ``readings`` are by device identity."""
    return [_row(slot, ended, readings.get(slot.device.identity), watcher, now_s) for slot in slots]


def _row(slot: AgentSlot, ended: Sequence[EndedTrial], reading: Reading | None, watcher: Watcher, now_s: float) -> Row:
    run = slot.trial.run if slot.trial else None
    record = watcher.record(run)
    on_device = [trial for trial in ended if trial.device == slot.device.name]
    return Row(
        worker=slot.name,
        used_bytes=reading.used_bytes if reading else None,
        total_bytes=reading.total_bytes if reading else None,
        utilisation=reading.utilisation if reading else None,
        run=printable(run),
        doing=printable(_doing(slot, now_s, is_paused=watcher.is_paused)),
        epoch=record.epoch,
        peak=record.peak,
        done=sum(not trial.is_failure for trial in on_device),
        failures=dict(Counter(str(trial.cause) for trial in on_device if trial.is_failure)),
    )


def _doing(slot: AgentSlot, now_s: float, *, is_paused: bool) -> str:
    if slot.trial is not None:
        return f"for {duration(now_s - slot.trial.began_s)}"
    if slot.is_idle:
        return "the sweep is paused" if is_paused else "waits for a trial"
    if slot.start_at_s is not None and slot.start_at_s > now_s:
        return f"agent starts in {duration(slot.start_at_s - now_s)}"
    return slot.note


def table(rows: Sequence[Row]) -> Table:
    from rich.table import Table

    drawn = Table(expand=False)
    for heading, justify in (
        ("worker", "left"), ("memory", "right"), ("busy", "right"), ("run", "left"), ("", "left"),
        ("epoch", "right"), ("peak so far", "right"), ("done", "right"), ("failed", "left"),
    ):  # fmt: skip
        drawn.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        drawn.add_row(
            row.worker, row.memory, row.busy, row.run or "-", row.doing, _cell(row.epoch), _cell(row.peak),
            str(row.done), row.failed,
        )  # fmt: skip
    return drawn


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


class Display(Protocol):
    """Shows events and rows."""

    def report(self, event: Event) -> None: ...
    def show(self, rows: Sequence[Row]) -> None: ...
    def close(self) -> None: ...


class TerminalDisplay:
    """A table that stays at the bottom of the terminal, events above it."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live = Live(table(()), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def report(self, event: Event) -> None:
        style = "bold" if event.kind in _BOLD else None
        self._live.console.print(event.line, style=style, highlight=False, markup=False, soft_wrap=True)

    def show(self, rows: Sequence[Row]) -> None:
        self._live.update(table(rows), refresh=True)

    def close(self) -> None:
        self._live.stop()


class LineDisplay:
    """Lines for a log: events at once, rows once a minute."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._shown_at_s = clock()

    def report(self, event: Event) -> None:
        self._write(event.line)

    def show(self, rows: Sequence[Row]) -> None:
        if self._clock() - self._shown_at_s >= ROWS_EVERY_S:
            self._shown_at_s = self._clock()
            for row in rows:
                self._write_row(row)

    def close(self) -> None:
        pass

    def _write_row(self, row: Row) -> None:
        self._write(f"{_time()} {row.line}")

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class JsonDisplay(LineDisplay):
    """One JSON object a line: events at once, rows once a minute as event "row"."""

    def report(self, event: Event) -> None:
        facts = {name: fact for name, fact in event.facts.items() if fact is not None}
        self._write_facts({"event": event.kind, "worker": event.worker, "text": event.text, **facts})

    def _write_row(self, row: Row) -> None:
        self._write_facts({"event": "row", **asdict(row)})

    def _write_facts(self, facts: dict[str, Any]) -> None:
        self._write(json.dumps({"time": round(time.time(), 3), **facts}))


class NotifyingDisplay:
    """A display that also sends what a person should know to a webhook."""

    def __init__(self, display: Display, notifier: Notifier, folder: Path, *, minimise: bool) -> None:
        self._display, self._notifier = display, notifier
        self._best, self._space = BestSoFar(minimise=minimise), FreeSpace(folder)

    def report(self, event: Event) -> None:
        self._display.report(event)
        if event.kind in _NOTIFIED:
            worker = f"{event.worker}: " if event.worker else ""
            best = "" if event.kind != "done" or self._best.value is None else f"; best here {self._best.value:.4g}"
            facts = {name: fact for name, fact in event.facts.items() if fact is not None}
            self._notifier.send(event.kind, worker + event.text + best, worker=event.worker, **facts)

    def show(self, rows: Sequence[Row]) -> None:
        self._display.show(rows)
        for row in rows:
            best = self._best.update(row.peak, time.monotonic())
            if best is not None:
                self._notifier.send(
                    "best", f"new best on this machine: {best:.4g} (run {row.run})", best=best, run=row.run
                )
        free = self._space.shortage()
        if free is not None:
            self._notifier.send(
                "disk", f"only {free / GIB:.1f} GiB are free on {socket.gethostname()}", free_bytes=free
            )

    def close(self) -> None:
        self._display.close()


def open_display(*, as_json: bool) -> Display:
    if as_json:
        return JsonDisplay(sys.stdout)
    from rich.console import Console

    console = Console(stderr=True)
    return TerminalDisplay(console) if console.is_terminal else LineDisplay(sys.stderr)


def _time() -> str:
    return time.strftime("%H:%M:%S")
