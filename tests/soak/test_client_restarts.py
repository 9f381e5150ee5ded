"""Every scenario of the real client, with the server killed and restarted in the middle.

Scenarios that are too slow for the daily tests also run without a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from client_scenarios import QUICK, SLOW, Researcher, Scenario
from embedded_server import EmbeddedServer

pytestmark = pytest.mark.client


@pytest.fixture
def researcher(tmp_path: Path) -> Iterator[Researcher]:
    folder = tmp_path / "work"
    folder.mkdir()
    with EmbeddedServer(tmp_path / "data", options=("--limit", "unlisted_s=4")) as server:
        person = Researcher(folder, server)
        yield person
        person.end()


@pytest.mark.parametrize("scenario", QUICK + SLOW, ids=lambda scenario: scenario.__name__)
def test_the_client_is_served_by_a_server_that_is_killed_in_the_middle(
    researcher: Researcher, scenario: Scenario
) -> None:
    def kill_and_restart() -> None:
        researcher.server.kill()
        researcher.server.restart()

    scenario(researcher, kill_and_restart)


@pytest.mark.parametrize("scenario", SLOW, ids=lambda scenario: scenario.__name__)
def test_the_client_is_served(researcher: Researcher, scenario: Scenario) -> None:
    scenario(researcher, lambda: None)
