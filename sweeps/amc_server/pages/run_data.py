"""What the charts and the log of a run's page ask for: rows, system metrics and console lines after those they have."""

from __future__ import annotations

import json
import math

from amc_server.store.logged_values import log_line
from amc_server.store.reader import Reader
from amc_server.store.records import Run
from amc_sweeps.values import printable

MOST_ROWS = 1000  # of a run with more, every second, third ... is drawn
EVALUATION = "evaluation/best.json"  # the file of a trial's best epoch
MOST_LINES = 2000  # of the console log at a time


def run_data(store: Reader, run: Run, after: tuple[int, int, int], every: int) -> bytes:
    """Return JSON: the state, ``every`` and what follows the given lines of history, system metrics and console.

    Args:
        after: the last line that the page has of each; -1 for none.
        every: of which step the page's rows are. If the run has grown too long for it, the page gets all rows again.
    """
    lines = max(run.history_lines, run.event_lines)
    step = 2 ** max(0, math.ceil(math.log2(max(lines, 1) / MOST_ROWS)))
    history, events, console = after if step == every else (-1, -1, after[2])
    if console < 0:
        console = max(-1, run.console_lines - 1 - MOST_LINES)
    shown = [
        [line.number, parts["level"], printable(parts["line"])]
        for line in store.console(run.pk, after=console, limit=MOST_LINES)
        for parts in [log_line(line)]
    ]
    evaluation = store.file(run.pk, EVALUATION)
    head = {
        "state": run.state.value,
        "every": step,
        "is_whole": step != every,
        "console": shown,
        "evaluation": evaluation.md5 if evaluation else None,
    }
    rows = (
        f'"{name}":[{",".join(f"[{line},{text}]" for line, text in store.sampled(table, run.pk, start, step))}]'
        for name, table, start in (("rows", "history", history), ("events", "events", events))
    )
    return f"{json.dumps(head, separators=(',', ':'))[:-1]},{','.join(rows)}}}".encode()
