"""One bad device among four, on which every trial fails at once. Users of W&B lost 470 of 500 runs to one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded_server import EmbeddedServer
from fleet_scenarios import Person, bad_device_among_four

pytestmark = pytest.mark.client


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    with EmbeddedServer(tmp_path / "data") as server:
        someone = Person(tmp_path / "work", server)
        yield someone
        someone.end()


def test_a_bad_device_costs_at_most_three_runs_and_is_reported(person: Person) -> None:
    costs = bad_device_among_four(person, runs=10)  # 60 of them in tests/soak/test_soak_bad_device.py
    assert costs.failed_on == {"cpu1": costs.failed}
    assert costs.failed <= 3
    assert costs.finished == 10 - costs.failed
    assert "cpu1 gets no more trials: its last 3 trials failed (3 x error)" in costs.message
