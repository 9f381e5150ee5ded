"""Which parameters a model of the sweep needs to predict how a run does, and whether it predicts anything at all.

A random forest learns the runs' standing (see outcomes) from their configurations, runs that were cut short included.
Each tree is asked about the runs that it has not seen, as they are and with one parameter's values shuffled among
them; what the forest's R^2 loses by that is the parameter's importance. Source: Breiman, "Random Forests", Machine
Learning 45 (2001), section 10; why the R^2 comes first: a forest that predicts nothing has importances too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amc_analysis.effects.outcomes import Outcomes
from amc_analysis.effects.parameters import Floats, Parameter

LEAST_RUNS = 20  # under this many the out-of-bag R^2 itself is noise
TREES = 100
SMALLEST_LEAF = 2


@dataclass(frozen=True)
class Share:
    """One parameter's part."""

    parameter: str
    importance: float  # fall of the out-of-bag R^2 when its values are shuffled; at or below 0: not needed


@dataclass(frozen=True)
class Importance:
    """A random forest's view; ``refused`` says why there is none."""

    n: int  # runs, those cut short included
    r2: float | None  # out of bag; None where no forest was grown
    shares: tuple[Share, ...]  # most important first; empty where refused
    refused: str | None  # one sentence


def importance_of(outcomes: Outcomes, parameters: Sequence[Parameter], seed: int) -> Importance:
    """Grow the forest, or say why not."""
    known_N = np.isfinite(outcomes.standing)
    n = int(known_N.sum())
    varied = [parameter for parameter in parameters if len(parameter.levels) > 1]
    if not varied:
        return Importance(n, None, (), "No searched parameter took two values.")
    if n < LEAST_RUNS:
        return Importance(n, None, (), f"{n} runs have a value; under {LEAST_RUNS} no forest is grown.")
    features = [_features(parameter)[known_N] for parameter in varied]
    r2, losses = _forest(features, outcomes.standing[known_N], seed)
    if r2 <= 0:
        told = f"The configuration does not predict how a run does: out-of-bag R² {r2:.2f} over {n} runs."
        return Importance(n, r2, (), told)
    shares = [Share(parameter.name, loss) for parameter, loss in zip(varied, losses, strict=True)]
    return Importance(n, r2, tuple(sorted(shares, key=lambda share: -share.importance)), None)


def _features(parameter: Parameter) -> Floats:
    """Return (N, columns): an ordered parameter by the place of its value, a nominal one by a column a value."""
    if parameter.kind == "ordered":
        return parameter.index[:, None].astype(np.float64)  # -1 where a run lacks it
    return np.asarray(parameter.index[:, None] == np.arange(len(parameter.levels)), dtype=np.float64)


def _forest(features: Sequence[Floats], target_N: Floats, seed: int) -> tuple[float, list[float]]:
    """Return the out-of-bag R^2 and what each parameter's shuffling takes from it."""
    from sklearn.ensemble import RandomForestRegressor

    all_NF = np.concatenate(features, axis=1)
    ends = np.cumsum([columns.shape[1] for columns in features])
    forest = RandomForestRegressor(TREES, min_samples_leaf=SMALLEST_LEAF, random_state=seed).fit(all_NF, target_N)
    rng = np.random.default_rng(seed)
    n = len(target_N)
    predicted_PN, votes_N = np.zeros((1 + len(features), n)), np.zeros(n)
    for tree, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.setdiff1d(np.arange(n), drawn)
        if not len(unseen):
            continue
        votes_N[unseen] += 1
        asked_PMF = np.repeat(all_NF[unseen][None], 1 + len(features), axis=0)
        for index, end in enumerate(ends):
            columns = slice(end - features[index].shape[1], end)
            asked_PMF[1 + index, :, columns] = all_NF[rng.permutation(unseen), columns]
        answers = tree.predict(asked_PMF.reshape(-1, all_NF.shape[1]))
        predicted_PN[:, unseen] += answers.reshape(1 + len(features), -1)
    asked_N = votes_N > 0
    truth_M = target_N[asked_N]
    error_P = ((predicted_PN[:, asked_N] / votes_N[asked_N] - truth_M) ** 2).sum(axis=1)
    total = float(((truth_M - truth_M.mean()) ** 2).sum())
    if total == 0:
        return 0.0, [0.0] * len(features)
    r2_P = 1 - error_P / total
    return float(r2_P[0]), (r2_P[0] - r2_P[1:]).tolist()
