"""JSON and YAML from elsewhere: what is too deep, too large or grows by aliases is refused in words, and soon."""

from __future__ import annotations

import json
import time

import pytest
import yaml

from amc_sweeps.bounded_texts import MOST_NESTING, TextError, read_json, read_yaml
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.runs.claims import ClaimError, read_recorded
from amc_sweeps.runs.export_file import ExportFileError, read

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)
MERGES = "m0: &m0 {a: 1}\n" + "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 40))
LADDER = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100))
ATTACKS = {
    "[" * 30_000: "nested more than 64 deep",
    "[" * 200_000: "nested more than 64 deep",
    "{a: " * 100_000: "nested more than 64 deep",
    "- " * 100_000: "nested more than 64 deep",
    "? " * 100_000: "nested more than 64 deep",
    LADDER: "nested more than 64 deep",
    LAUGHS: "values, with every alias written out",
    MERGES: "values, with every alias written out",
    "a: &a [" + "x" * 100_000 + "]\nb: [" + "*a, " * 50_000 + "]": "values, with every alias written out",
    "a: &a [*a]": "contains itself",
    "a: [" + "1," * 500_000 + "]": "values, with every alias written out",
    "a: " + "9" * 5000: "more than 3,500 digits",
    "a: 0x" + "f" * 1_000_000: "more than 3,500 digits",
    "a: 1" + ":59" * 200_000: "more than 3,500 digits",
    "a: " + "9" * 100_000 + ".5": "more than 3,500 digits",
    "{" + ", ".join(f"{(2**61 - 1) * n}: x" for n in range(4, 20_000)) + "}": "too large for a key",
    "a: !!bool maybe": "not usable YAML",
    "a: !!timestamp soon": "not usable YAML",
    "a: !!int ''": "not usable YAML",
    "a: 2025-13-45": "not usable YAML",
    "a: \0": "not YAML",
    "a: \ud800": "not usable YAML",
}


@pytest.mark.parametrize("text", ATTACKS, ids=lambda text: text[:12].encode("ascii", "replace").decode())
def test_a_text_beyond_a_bound_is_refused_in_words_by_every_reader_of_yaml(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(TextError, match=ATTACKS[text]):
        read_yaml(text)
    head = "format: amc-sweep-export\nversion: 2\nproject: p\nextra: "
    with pytest.raises(ExportFileError):
        read(head + json.dumps(text) if "\ud800" in text else head + "\n  " + text.replace("\n", "\n  "))
    sweep, problems = parse_leniently(text)
    assert sweep is None or problems
    assert all(len(problem) < 2000 for problem in problems)
    with pytest.raises(ClaimError):
        read_recorded("recorded:\n  " + text.replace("\n", "\n  "))
    assert time.process_time() - begin < 4 * 2


def test_nesting_is_counted_in_levels_and_aliases_of_ordinary_files_are_read() -> None:
    read_yaml("[" * MOST_NESTING + "]" * MOST_NESTING)
    with pytest.raises(TextError):
        read_yaml("[" * (MOST_NESTING + 1) + "]" * (MOST_NESTING + 1))
    value, _ = read_yaml("a: &a {x: [1, 2]}\nb: *a\nc: {<<: *a, y: 0x1F, z: 1:30}\n")
    assert value == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}, "c": {"x": [1, 2], "y": 31, "z": 90}}
    with pytest.raises(yaml.MarkedYAMLError):
        read_yaml("a: [1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested more than 64 deep"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested more than 64 deep"),
        ("[" * 65 + "]" * 65, "nested more than 64 deep"),
        ("[" + "9" * 5000 + "]", "digits"),
        ("[1,", "not JSON"),
        ("", "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
    ],
)
def test_json_beyond_a_bound_is_refused_in_words(text: str | bytes, reason: str) -> None:
    with pytest.raises(TextError, match=reason) as refusal:
        read_json(text)
    assert "sys." not in str(refusal.value)


def test_ordinary_json_is_read() -> None:
    assert read_json("[" * MOST_NESTING + "]" * MOST_NESTING)
    assert len(read_json(json.dumps([{"a": [1]}] * 100))) == 100
    assert read_json(b'{"x": NaN, "y": 1' + b"0" * 400 + b"}")["y"] == 10**400


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5e3, true, null, "\\u00e9\\n"], "a": {}}',
        "[NaN, Infinity, -Infinity, 1e400, 1e-400, -0.0, 0.1, 9007199254740993]",
        '"\\ud800"',
        "[" * 60 + "]" * 60,
    ],
)
def test_the_fast_reader_gives_the_same_values(text: str) -> None:
    assert repr(read_json(text, has_exact_integers=False)) == repr(read_json(text))


def test_the_fast_reader_makes_floats_of_huge_integers_and_refuses_what_the_other_refuses() -> None:
    assert read_json("[18446744073709551616]", has_exact_integers=False) == [2.0**64]
    for text in ("[1,]", "{", "[" * 65 + "]" * 65, "[" * 100_000, "1" * 5000, b"\xff"):
        with pytest.raises(TextError):
            read_json(text, has_exact_integers=False)
