"""What the buttons of a sweep's page do."""

from __future__ import annotations

from typing import Any

from amc_server.errors import Refused
from amc_server.pages.sweep_view import actions_on
from amc_server.scheduling.coordinator import Coordinator
from amc_server.store.records import Sweep
from amc_server.store.writer import Writer
from amc_sweeps.runs.run_states import SweepState, state_word

STATES = {
    "pause": SweepState.PAUSED,
    "resume": SweepState.RUNNING,
    "stop": SweepState.FINISHED,
    "cancel": SweepState.CANCELED,
}


def press(store: Writer, coordinator: Coordinator, sweep: Sweep, content: Any) -> None:
    """Carry out ``{"action": ...}``: pause, resume, stop or cancel a sweep, or ``stop run`` with its id as ``run``.

    Raises:
        Refused: there is no such action or run, or the sweep is in a state that does not take it.
    """
    action = content.get("action") if isinstance(content, dict) else None
    if action == "stop run":
        run = store.run(sweep.project, str(content.get("run")))
        if run is None or run.sweep != sweep.pk:
            raise Refused(f"sweep {sweep.id} has no run {str(content.get('run'))[:100]!r}", status=404)
        coordinator.runs.stop(store, run, "user")
        return
    if not isinstance(action, str) or action not in STATES:
        allowed = ", ".join([*STATES, "stop run"])
        raise Refused(f"action: {str(action)[:60]!r} is not allowed; allowed: {allowed}", status=400)
    if action not in actions_on(sweep):
        allowed = ", ".join(actions_on(sweep))
        raise Refused(f"the sweep is {state_word(sweep.state)}, so this is not possible: {action}. Possible: {allowed}")
    coordinator.update_sweep(store, sweep, config=None, state=STATES[action].value)
