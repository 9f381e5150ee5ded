"""Runs that nobody's agent watches: held for their trial, and given back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process_server import GraphqlRefused, InProcessServer

GRID = """
method: grid
program: train.py
metric: {name: acc, goal: maximize}
parameters:
  a: {values: [1, 2]}
"""
LEASE = """mutation LeaseRun($run: String!, $seconds: Float!) {
    leaseRun(input: {projectName: "p", runName: $run, seconds: $seconds}) { success } }"""
GIVE_BACK = """mutation GiveBackRun($run: String!) {
    giveBackRun(input: {projectName: "p", runName: $run}) { success } }"""
HOUR_S = 3600.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


def draw(server: InProcessServer, sweep: str) -> str:
    """Return the id of a run that an agent of its own gets."""
    return str(server.draw(server.create_agent(sweep))["run_id"])


def state(server: InProcessServer, sweep: str, run: str) -> str:
    """Return the state of a run."""
    return str(server.sweep(sweep)["runs"][run]["state"])


def test_a_leased_run_waits_for_its_trial_and_is_then_a_run_like_any_other(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = draw(server, sweep)
    server.graphql(LEASE, run=run, seconds=24 * HOUR_S)
    for _ in range(23):
        server.advance(HOUR_S)
    server.close()
    server.open()  # the lease is in the database
    server.advance(HOUR_S / 2)
    other = draw(server, sweep)
    assert other != run
    assert server.heartbeat(server.create_agent(sweep)) == [], "the sweep is not over while a run is held"
    server.begin(run)
    assert state(server, sweep, run) == "running"
    server.advance(301)
    assert state(server, sweep, run) == "crashed"


def test_a_run_whose_lease_has_ended_is_handed_out_again_and_without_the_lease(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = draw(server, sweep)
    server.graphql(LEASE, run=run, seconds=HOUR_S)
    server.advance(HOUR_S - 1)
    assert draw(server, sweep) != run
    server.advance(2)
    assert draw(server, sweep) == run
    server.advance(61)
    assert draw(server, sweep) == run, "an agent's run is not held"


def test_a_run_that_is_given_back_is_handed_out_at_once(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = draw(server, sweep)
    server.graphql(LEASE, run=run, seconds=HOUR_S)
    for _ in range(5):  # giving back is no failed hand-out, of which a run may have three
        server.graphql(GIVE_BACK, run=run)
        server.graphql(GIVE_BACK, run=run)  # sent again, because the first reply was lost
        assert draw(server, sweep) == run
    assert state(server, sweep, run) == "pending"


def test_only_a_run_that_has_not_begun_can_be_held_or_given_back(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = draw(server, sweep)
    server.begin(run)
    for document, variables in ((LEASE, {"seconds": HOUR_S}), (GIVE_BACK, {})):
        with pytest.raises(GraphqlRefused, match=f"run {run} is running"):
            server.graphql(document, run=run, **variables)
    server.begin("alone")
    with pytest.raises(GraphqlRefused, match="given back"):
        server.graphql(GIVE_BACK, run="alone")
    with pytest.raises(GraphqlRefused, match="there is no run p/nosuch"):
        server.graphql(LEASE, run="nosuch", seconds=HOUR_S)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 31 * 24 * HOUR_S])
def test_a_lease_has_a_bound(server: InProcessServer, seconds: float) -> None:
    run = draw(server, server.create_sweep(GRID))
    with pytest.raises(GraphqlRefused, match="up to 30 days"):
        server.graphql(LEASE, run=run, seconds=seconds)


def test_a_held_run_of_a_cancelled_sweep_that_is_given_back_is_killed(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = draw(server, sweep)
    server.graphql(LEASE, run=run, seconds=HOUR_S)
    server.set_state(sweep, "CANCELED")
    server.graphql(GIVE_BACK, run=run)
    server.advance(1)
    assert state(server, sweep, run) == "killed"
