"""The ceilings that pages draw are those that were measured."""

from __future__ import annotations

import re
from pathlib import Path

from amc_core.modulations import class_names
from amc_sweeps.browser import assets

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "ceilings.md"


def test_the_ceilings_of_pages_are_the_measured_ones() -> None:
    rows = re.findall(r"^\| (-?\d+) \| ([\d.]+) ± ", MEASURED.read_text(), flags=re.MULTILINE)
    script = assets.text("ceilings.js")
    names = re.search(r"BOUND_OF = \[.*?\];", script, flags=re.DOTALL)
    shares = re.search(r"BOUND = \[(.*?)\];", script, flags=re.DOTALL)
    steps = re.search(r"\[BOUND_FROM_DB, BOUND_STEP_DB\] = \[(-?\d+), (\d+)\]", script)
    assert names
    assert shares
    assert steps
    assert sorted(re.findall(r'"(.*?)"', names[0])) == sorted(class_names("digital17"))
    first, step = int(steps[1]), int(steps[2])
    drawn = [float(share) for share in re.findall(r"[\d.]+", shares[1])]
    assert [(first + step * place, share) for place, share in enumerate(drawn)] == [
        (int(level), round(float(percent) / 100, 3)) for level, percent in rows
    ]
