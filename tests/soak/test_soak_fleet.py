"""Fleets at full size: outages of half a minute, and a bad device in a sweep of 60 runs.

AMC_SOAK_OUTAGE_S (default 30) is the length of an outage, AMC_SOAK_RUNS (default 60) the number of runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from client_scenarios import wait_until
from embedded_server import EmbeddedServer
from fleet_scenarios import Network, Person, bad_device_among_four
from results_file import keep

OUTAGE_S = float(os.environ.get("AMC_SOAK_OUTAGE_S", "30"))
RUNS = int(os.environ.get("AMC_SOAK_RUNS", "60"))

pytestmark = [pytest.mark.client, pytest.mark.timeout(1800)]


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    with EmbeddedServer(tmp_path / "data") as server:
        user = Person(tmp_path / "work", server)
        yield user
        user.end()


def test_a_bad_device_among_four_costs_at_most_three_runs(person: Person) -> None:
    began_s = time.monotonic()
    costs = bad_device_among_four(person, RUNS)
    keep(
        "fleet_bad_device",
        full=RUNS >= 60,
        figures={
            "runs": RUNS,
            "workers, one of them bad": 4,
            "runs that failed": costs.failed,
            "on": ", ".join(costs.failed_on),
            "runs finished": costs.finished,
            "message": costs.message,
            "minutes": (time.monotonic() - began_s) / 60,
        },
    )
    assert costs.failed <= 3
    assert costs.finished == RUNS - costs.failed


def kill_the_server(person: Person, _network: Network) -> None:
    person.server.kill()
    time.sleep(OUTAGE_S)
    person.server.restart()


def cut_the_network(_person: Person, network: Network) -> None:
    network.refuse()
    time.sleep(OUTAGE_S)
    network.restore()


@pytest.mark.parametrize("when", ["during a trial", "between two trials"])
@pytest.mark.parametrize("outage", [kill_the_server, cut_the_network], ids=lambda outage: outage.__name__)
def test_no_row_is_lost_in_an_outage(person: Person, outage: Callable[[Person, Network], None], when: str) -> None:
    network = Network(person.server)
    during = when == "during a trial"
    sweep = person.sweep_of(["long", "nothing"] if during else ["nothing"], repeats=1 if during else 4)
    epochs = int((OUTAGE_S + 15) * 10)
    fleet = person.fleet(sweep, "--workers", "1", EPOCHS=str(epochs), WANDB_BASE_URL=network.base_url)
    acknowledged: dict[str, list[int]] = {}
    if during:
        rows = person.acknowledged(sweep, "long")
        acknowledged = {person.runs(sweep)["long"]["id"]: rows}
    else:
        wait_until(lambda: fleet.of("ended"), "the first trial ends")
    outage(person, network)
    assert fleet.wait(600) == 0, fleet.stderr
    network.refuse()
    runs = person.sweep(sweep)["runs"]
    states = {run["state"] for run in runs.values()}
    lost = sum(len(set(rows) - set(person.epochs(run))) for run, rows in acknowledged.items())
    logged_epochs = [person.epochs(run) for run in runs]
    doubled = sum(len(rows) - len(set(rows)) for rows in logged_epochs)
    keep(
        f"fleet_{outage.__name__}_{when.replace(' ', '_')}",
        full=OUTAGE_S >= 30,
        figures={
            "outage, s": OUTAGE_S,
            "runs": len(runs),
            "their states": ", ".join(sorted(states)),
            "rows": sum(map(len, logged_epochs)),
            "acknowledged rows lost": lost,
            "rows doubled": doubled,
            "agents that died and were started again": len(fleet.of("agent_ended")),
        },
    )
    assert states == {"finished"}
    if during:
        assert [event["text"].partition(" (")[0] for event in fleet.of("w&b")] == [
            "W&B does not answer",
            "W&B answers again",
        ]
    assert (lost, doubled) == (0, 0)
    assert sorted(map(len, logged_epochs)) == ([3, epochs] if during else [3] * 4)
