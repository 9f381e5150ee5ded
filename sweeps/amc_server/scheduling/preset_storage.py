"""Optuna's TPE over existing trials, without copying them for every suggestion.

A study makes a deep copy of every trial that is added to it. For 1,000 trials that costs ten times as much as TPE.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class PresetStorage(InMemoryStorage):
    """A storage that begins with trials. It returns them without a copy; nobody may change them.

    Optuna gives number 0 to the first trial that the study asks for, so the preset trials must start at 1.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._preset = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the preset trials, then those that the study has asked for."""
        own = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [trial for trial in self._preset if states is None or trial.state in states] + own


class TreeParzen(TPESampler):
    """TPE for simultaneous agents, in a given space: Optuna need not infer it from the trials."""

    def __init__(self, space: Mapping[str, BaseDistribution], *, startup_trials: int, seed: int) -> None:
        with warnings.catch_warnings():
            # multivariate and constant_liar are marked experimental. Simultaneous agents need both.
            warnings.simplefilter("ignore")
            super().__init__(n_startup_trials=startup_trials, multivariate=True, constant_liar=True, seed=seed)
        self._space = {name: space[name] for name in sorted(space) if not space[name].single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """Return the parameters that are sampled together: all with more than one value."""
        return self._space
