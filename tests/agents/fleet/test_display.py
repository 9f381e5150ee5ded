"""What a fleet shows on a terminal, in a log and to a script."""

from __future__ import annotations

import io
import json

from rich.console import Console

from amc_agents.fleet.display import Event, JsonDisplay, LineDisplay, Row, TerminalDisplay, table
from amc_agents.fleet.trial_evidence import last_lines

GPU = Row("gpu0", 3 * 2**30, 24 * 2**30, 0.87, "ab12cd34", "for 1 min 15 s", 12, 0.8953, 4, {"error": 2, "diverged": 1})
CPU = Row("cpu1", None, None, None, None, "waits for a trial", None, None, 0, {})


def test_a_line_leaves_out_unknown_values() -> None:
    assert GPU.line == (
        "gpu0 | 3.0/24 GiB, 87% busy | run ab12cd34, for 1 min 15 s | epoch 12 | peak 0.8953 | 4 done"
        " | failed: 2 error, 1 diverged"
    )
    assert CPU.line == "cpu1 | waits for a trial | 0 done"


def test_the_table_has_the_same_values() -> None:
    stream = io.StringIO()
    Console(file=stream, width=120).print(table([GPU, CPU]))
    drawn = stream.getvalue()
    for word in ("gpu0", "3.0/24 GiB", "87%", "ab12cd34", "12", "0.8953", "2 error, 1 diverged", "waits for a trial"):
        assert word in drawn


def test_on_a_terminal_events_stay_above_the_table() -> None:
    stream = io.StringIO()
    display = TerminalDisplay(Console(file=stream, force_terminal=True, width=120))
    display.show([CPU])
    display.report(Event("began", "cpu1", "ab12cd34 begins [not markup]"))
    display.show([GPU])
    display.close()
    assert stream.getvalue().index("[not markup]") < stream.getvalue().rindex("gpu0")


def test_in_a_log_events_come_at_once_and_rows_once_a_minute() -> None:
    stream, now = io.StringIO(), [0.0]
    display = LineDisplay(stream, clock=lambda: now[0])
    for second in range(121):
        now[0] = second
        display.show([GPU])
    display.report(Event("ended", "gpu0", "ab12cd34 ended"))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(GPU.line)
    assert lines[2].endswith("gpu0: ab12cd34 ended")


def test_a_script_gets_one_json_object_a_line() -> None:
    stream, now = io.StringIO(), [0.0]
    display = JsonDisplay(stream, clock=lambda: now[0])
    display.report(Event("ended", "gpu0", "ab12cd34 ended", {"run": "ab12cd34", "cause": "error", "exit_code": 1}))
    now[0] = 61
    display.show([GPU])
    ended, row = map(json.loads, stream.getvalue().splitlines())
    assert (ended["event"], ended["worker"], ended["cause"], ended["exit_code"]) == ("ended", "gpu0", "error", 1)
    assert (row["event"], row["worker"], row["epoch"], row["failures"]) == (
        "row",
        "gpu0",
        12,
        {"error": 2, "diverged": 1},
    )


def test_quoted_logs_reach_a_terminal_without_control_characters() -> None:
    log = "epoch 1\nRuntimeError: \x1b]0;owned\x07\x1b[2J\u202egpj"
    assert last_lines(log) == "RuntimeError: \\x1b]0;owned\\x07\\x1b[2J\\u202egpj"
    stream = io.StringIO()
    display = LineDisplay(stream)
    display.report(Event("ended", "gpu0", f"ended; last line: {log}"))
    assert "\x1b" not in stream.getvalue()
    assert "\\x1b[2J" in stream.getvalue()
