"""Queue runs in a sweep of the embedded server: for amc-sweep repeat and amc-sweep promote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from amc_sweeps.runs.run_states import SweepState, state_word

_ENQUEUE = """mutation Q($id: ID!, $config: JSONString!, $name: String) {
    enqueueSweepRun(input: {id: $id, config: $config, displayName: $name}) { id } }"""


def queue_problem(state: str, path: str) -> str | None:
    """Return why a sweep in this state takes no queued runs, or None."""
    if state.upper() != SweepState.CANCELED:
        return None
    return (
        f"sweep {path} is {state_word(state)}, so agents get no runs of it; nothing was queued. amc-sweep "
        f"resume {path} lets it go on, its search too"
    )


def queue_delay(state: str, path: str) -> str | None:
    """Return why agents do not get queued runs at once, or None."""
    is_paused = state.upper() == SweepState.PAUSED
    return f"sweep {path} is paused: agents get queued runs after amc-sweep resume {path}" if is_paused else None


def trial_values(config: Mapping[str, Any], parameters: Mapping[str, Any], seed: int, run_id: str) -> dict[str, Any]:
    """Return the values of a queued trial that repeats a run with a seed.

    Args:
        config: of the run.
        parameters: of the sweep's file. The data file is left out unless the sweep sets it: the next machine has its
            own path.
        seed: of the new run.
        run_id: of the run that is repeated.

    Raises:
        RelaunchError: the run is not one of amc-train.
    """
    from amc_agents.trial.relaunch import recorded_settings

    settings = recorded_settings(config)
    if "data" not in parameters:
        settings.pop("data", None)
    searched = {name: config[name] for name in parameters if name in config}
    return {**searched, **settings, "seed": seed, "repeat_of": run_id}


def queue_run(api: Any, sweep: str, name: str, values: Mapping[str, Any]) -> str:
    """Queue a run and return its id: agents get it before the configurations of the search.

    Args:
        api: a ``wandb.Api``.
        sweep: the id of the sweep that a mutation needs.
        name: the display name of the run. The same name and values queue no second run within some minutes.
        values: the run's configuration.
    """
    from amc_analysis.reading.wandb_private import send_query

    config = json.dumps({key: {"value": value} for key, value in values.items()})
    answer = send_query(api, _ENQUEUE, id=sweep, config=config, name=name)
    return str(answer["enqueueSweepRun"]["id"])


def queued_name(run_id: str, seed: int) -> str:
    """Return the display name of a queued run that repeats another one."""
    return f"{run_id}-seed-{seed}"
