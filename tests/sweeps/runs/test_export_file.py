"""The export format: content survives, absent is not null, and all faults of a file are reported."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amc_sweeps.runs.export_file import (
    Export,
    ExportFileError,
    differing_fields,
    read,
    same_value,
    unix_time,
    was_alive,
    with_steps,
    without_unknown,
    write,
)

SWEEP = {"id": "s1", "state": "FINISHED", "config": {"method": "random", "parameters": {"a": {"min": 0.0, "max": 1.0}}}}
RUN: dict[str, Any] = {
    "id": "r1",
    "sweep": "s1",
    "state": "crashed",
    "created_at": "2024-05-06T07:08:09.123456Z",
    "exit_code": None,
    "config": {"a": 0.1, "text": "2024-01-01", "yes": "yes", "none": None},
    "summary": {"acc": math.nan},
    "history": [{"_step": 0, "acc": 1e-4}, {"_step": 1, "acc": math.inf, "gone": None}],
}
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def test_what_is_written_is_read_back() -> None:
    export = Export("radioml", (SWEEP,), (RUN,))
    again = read(write(export))
    assert again.project == "radioml"
    assert again.sweeps == (SWEEP,)
    assert same_value(again.runs[0], RUN)


@given(st.dictionaries(st.text(max_size=8), _VALUES, max_size=5))
def test_any_configuration_survives(config: dict[str, Any]) -> None:
    run = {"id": "r", "state": "finished", "config": config, "history": [config]}
    assert same_value(read(write(Export("p", (), (run,)))).runs[0], run)


def test_absent_is_not_null() -> None:
    text = write(
        Export("p", (), ({"id": "known", "state": "failed", "exit_code": None}, {"id": "b", "state": "failed"}))
    )
    with_null, without = read(text).runs
    assert with_null["exit_code"] is None
    assert "exit_code" not in without
    assert "history" not in with_null
    rows = read(write(Export("p", (), ({"id": "r", "state": "failed", "history": [{"a": None}, {}]},)))).runs[0][
        "history"
    ]
    assert rows == [{"a": None}, {}]


def test_a_history_may_also_be_a_list() -> None:
    text = (
        "format: amc-sweep-export\nversion: 2\nproject: p\n"
        "runs: [{id: r, state: failed, history: [{_step: 0, acc: .nan}, {}]}]"
    )
    assert same_value(read(text).runs[0]["history"], [{"_step": 0, "acc": math.nan}, {}])


@pytest.mark.parametrize(
    ("history", "what"),
    [
        ("'{\"a\": 1'", "runs: r: history holds a line that cannot be read: this is not JSON"),
        ("'[1]'", "runs: r: history is"),
        ("[{when: 2024-01-01}]", "dates in it are quoted"),
        ("[{a: !!binary aGk=}]", "history is"),
    ],
)
def test_a_history_of_the_wrong_form_is_refused(history: str, what: str) -> None:
    with pytest.raises(ExportFileError, match=what):
        read(f"format: amc-sweep-export\nversion: 2\nproject: p\nruns: [{{id: r, state: failed, history: {history}}}]")


def test_a_written_file_has_no_anchors() -> None:
    shared = [1, 2]
    text = write(Export("p", (), ({"id": "r", "state": "failed", "config": {"a": shared, "b": shared}},)))
    assert "&" not in text
    assert text.startswith("format: amc-sweep-export\nversion: 2\n")


def test_all_faults_are_reported_together() -> None:
    text = write(Export("p", (SWEEP,), ({**RUN, "sweep": "other", "exit_code": "one", "colour": 1}, {"id": "r1"})))
    with pytest.raises(ExportFileError) as refusal:
        read(text)
    message = "\n".join(refusal.value.problems)
    for part in ("exit_code is 'one'", "unknown field 'colour'", "r1 has no state", "r1 occurs twice", "sweep other"):
        assert part in message


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not an export"),
        ("method: grid", "not an export"),
        ("- a", "not an export"),
        ("format: amc-sweep-export\nversion: 1\nproject: p", "write 'version: 2' in its place"),
        ("format: amc-sweep-export\nversion: 3\nproject: p", "newer"),
        ("format: amc-sweep-export\nproject: p", "version None"),
        ("format: amc-sweep-export\nversion: 2\nproject: a/b", "project"),
        ("format: amc-sweep-export\nversion: 2\nproject: p\nruns: 3", "not a list of mappings"),
        ("format: amc-sweep-export\nversion: 2\nproject: p\nextra: 3", "unknown: extra"),
        ("format: [", "not YAML"),
        ("format: amc-sweep-export\nversion: 2\nproject: p\nruns: [{id: a, state: done}]", "state is 'done'"),
    ],
)
def test_a_faulty_file_is_refused_with_the_reason(text: str, what: str) -> None:
    with pytest.raises(ExportFileError, match=what):
        read(text)


@pytest.mark.parametrize(
    "updates", ["3", "[3]", "[{config: {}}]", "[{at: 3, config: {}}]", "[{at: 2026-01-01T00:00:00Z, config: a}]"]
)
def test_changes_of_a_config_without_their_time_or_config_are_refused(updates: str) -> None:
    sweep = f"{{id: a, config: {{}}, updates: {updates}}}"
    with pytest.raises(ExportFileError, match="sweeps: a: updates is"):
        read(f"format: amc-sweep-export\nversion: 2\nproject: p\nsweeps: [{sweep}]")


def test_a_missing_field_is_unknown_and_not_different() -> None:
    assert differing_fields({"id": "a", "notes": "x"}, {"id": "a", "exit_code": 1}) == []
    assert differing_fields({"id": "a", "notes": "x"}, {"id": "a", "notes": None}) == ["notes"]
    assert differing_fields({"a": math.nan, "b": True}, {"a": math.nan, "b": 1}) == ["b"]


def test_the_words_of_json_equal_their_numbers_and_no_other_text_does() -> None:
    assert same_value({"a": ["NaN", math.inf]}, {"a": [math.nan, "Infinity"]})
    for value, other in (
        ("NaN", "nan"),
        ("NaN", 0.0),
        ("Infinity", -math.inf),
        ("0.5", 0.5),
        ("1", 1),
        (10**20, 10**20 + 1),
    ):
        assert not same_value(value, other)
        assert not same_value(other, value)


def test_times_are_compared_as_times() -> None:
    assert unix_time("2024-05-06T07:08:09Z") == unix_time("2024-05-06T07:08:09+00:00") == 1714979289.0
    assert unix_time("soon") is None
    assert same_value("2024-05-06T07:08:09Z", "2024-05-06T07:08:09.000000+00:00")
    assert not same_value("2024-05-06T07:08:09Z", "2024-05-06T07:08:10Z")


def test_a_run_that_was_alive_when_exported_is_recognised() -> None:
    assert [was_alive({"id": "r", "state": state}) for state in ("running", "pending", "crashed")] == [
        True,
        True,
        False,
    ]


def test_a_row_without_a_step_gets_the_next_step() -> None:
    run = {"id": "r", "state": "finished", "history": [{"a": 1}, {"a": 2}, {"_step": 7, "a": 3}, {"a": 4}]}
    assert [row["_step"] for row in with_steps(run)["history"]] == [0, 1, 7, 8]
    assert with_steps({"id": "r", "state": "finished"}) == {"id": "r", "state": "finished"}


def test_a_field_that_is_still_unknown_is_absent() -> None:
    held = {"id": "r", "created_at": "2025-07-01", "exit_code": 0, "stop_recorded": False, "tags": [], "notes": None}
    assert without_unknown(held, ()) == held
    record = without_unknown(held, ("created_at", "exit_code", "stop_recorded", "tags"))
    assert record == {"id": "r", "exit_code": 0, "notes": None}
