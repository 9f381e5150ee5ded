"""Optuna's TPE over trials that are already there, without a copy of each for every suggestion.

A study copies every trial that is added to it, deeply: 1,000 of them cost more than ten times what TPE itself does.
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


class Evidence(InMemoryStorage):
    """A storage that begins with trials, which it gives out as they are; nobody may change them.

    Their numbers are not 0: that is the number of the first trial that a study on it asks for.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._evidence = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the evidence, then what the study itself has asked for."""
        own = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [trial for trial in self._evidence if states is None or trial.state in states] + own


class TreeParzen(TPESampler):
    """TPE for simultaneous agents, in a space that is known and need not be found out from the trials."""

    def __init__(self, space: Mapping[str, BaseDistribution], *, startup_trials: int, seed: int) -> None:
        with warnings.catch_warnings():
            # multivariate and constant_liar are marked experimental; both are what simultaneous agents need.
            warnings.simplefilter("ignore")
            super().__init__(n_startup_trials=startup_trials, multivariate=True, constant_liar=True, seed=seed)
        self._space = {name: space[name] for name in sorted(space) if not space[name].single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """Return the parameters that are sampled together: all that have a choice."""
        return self._space
