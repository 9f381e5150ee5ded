"""Which changes of a sweep are possible, and when cancel asks; test_operating_commands.py changes real sweeps."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from amc_agents.commands import main, steering
from amc_agents.open_target import OpenTarget
from amc_agents.sweep_control import Action, Change, refusal
from amc_sweeps.backend.choose import Backend
from amc_sweeps.runs.run_states import SweepState


@pytest.mark.parametrize(
    ("action", "refused_in"),
    [
        (Action.PAUSE, {SweepState.PENDING, SweepState.FINISHED, SweepState.CANCELED}),
        (Action.STOP, {SweepState.CANCELED}),
        (Action.CANCEL, {SweepState.FINISHED}),
        (Action.RESUME, set()),
    ],
)
def test_a_change_is_refused_in_the_same_states_as_by_the_client(action: Action, refused_in: set[SweepState]) -> None:
    assert {state for state in SweepState if refusal(state, action) is not None} == refused_in


def test_the_summary_of_a_change_tells_the_effect_on_living_runs() -> None:
    def summary(action: Action, alive: int, before: str = "RUNNING", after: str = "DONE") -> str:
        return Change("local/amc/x", action, before, after, alive).summary()

    assert "paused: no new run begins, 2 living runs may finish, and agents wait" in summary(Action.PAUSE, 2)
    assert "stopped: no new run begins, 1 living run may finish, then the agents end" in summary(Action.STOP, 1)
    assert "cancelled: the server stops 3 living runs. A trial ends" in summary(Action.CANCEL, 3)
    assert summary(Action.CANCEL, 0) == "sweep local/amc/x is cancelled: no run is alive"
    assert "is paused already" in summary(Action.PAUSE, 0, before="PAUSED", after="PAUSED")
    assert "agents that have ended must be started again" in summary(Action.RESUME, 0)


@pytest.mark.parametrize(
    ("typed", "options", "cancelled"),
    [("n\n", (), False), ("y\n", (), True), ("", ("--yes",), True)],
)
def test_on_a_terminal_cancel_asks_before_it_ends_living_runs(
    monkeypatch: pytest.MonkeyPatch, typed: str, options: tuple[str, ...], cancelled: bool
) -> None:
    changed: list[Action] = []

    def change_state(_api: object, path: str, action: Action) -> Change:
        changed.append(action)
        return Change(path, action, "RUNNING", "CANCELED", alive=2)

    target = OpenTarget(Backend("embedded", "http://127.0.0.1:9", "for a test"), None, "sweep", "local/amc/x", None)
    monkeypatch.setattr(steering, "open_target", lambda *_, **__: target)
    monkeypatch.setattr(steering, "living_runs", lambda *_: 2)
    monkeypatch.setattr(steering, "_is_interactive", lambda: True)
    monkeypatch.setattr(steering, "change_state", change_state)
    ended = CliRunner().invoke(main, ["cancel", "x", *options], input=typed)
    assert ended.exit_code == (0 if cancelled else 1), ended.output
    assert changed == ([Action.CANCEL] if cancelled else [])
    assert ("End 2 living runs?" in ended.output) == (not options)
    assert ("nothing was changed" in ended.stderr) == (not cancelled)
