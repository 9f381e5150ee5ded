"""The parameters that a random forest needs to predict the rank scores of runs.

The forest learns the runs' rank scores (see runs.outcomes) from their configurations, runs that were cut short
included. Each tree predicts the runs that it was not trained on, first as they are, then with one parameter's values
shuffled. The loss of R² is the parameter's importance. Source: Breiman, "Random Forests", Machine Learning 45 (2001),
section 10. The out-of-bag R² is checked first, because a forest that predicts nothing has importances too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import metadata

import numpy as np

from amc_analysis.results.effects import Importance, ParameterImportance
from amc_analysis.runs.outcomes import Outcomes
from amc_analysis.runs.parameters import Floats, Parameter

LEAST_RUNS = 20  # with fewer the out-of-bag R² itself is noise
TREES = 100
VERSION = 1  # of the forest and its use; raise it where the same runs get other importances
SMALLEST_LEAF = 2


def importance_of(outcomes: Outcomes, parameters: Sequence[Parameter], seed: int) -> Importance:
    """Return every parameter's importance, or the reason why there is none."""
    finite_N = np.isfinite(outcomes.rank_score)
    n = int(finite_N.sum())
    varied = [parameter for parameter in parameters if len(parameter.levels) > 1]
    if not varied:
        return Importance(n, None, (), "No searched parameter took two values.")
    if n < LEAST_RUNS:
        return Importance(
            n, None, (), f"A forest needs {LEAST_RUNS} runs with a value; there {'is' if n == 1 else 'are'} {n}."
        )
    features = [_features(parameter)[finite_N] for parameter in varied]
    r2, losses = _forest(features, outcomes.rank_score[finite_N], seed)
    if r2 <= 0:
        reason = f"The configuration does not predict how a run does: out-of-bag R² {r2:.2f} over {n} runs."
        return Importance(n, r2, (), reason)
    shares = [ParameterImportance(parameter.name, loss) for parameter, loss in zip(varied, losses, strict=True)]
    return Importance(n, r2, tuple(sorted(shares, key=lambda share: -share.importance)), None)


def key_of(outcomes: Outcomes, parameters: Sequence[Parameter], seed: int) -> str:
    """Return a text that is the same for sweeps with the same importances."""
    digest = hashlib.sha256(repr((VERSION, seed, metadata.version("scikit-learn"))).encode())
    digest.update(outcomes.rank_score.tobytes())
    for parameter in parameters:
        digest.update(repr((parameter.name, parameter.kind, len(parameter.levels))).encode())
        digest.update(parameter.index.tobytes())
    return digest.hexdigest()


def _features(parameter: Parameter) -> Floats:
    """Return (N, columns): the position of an ordered parameter's value, or one column for each nominal value."""
    if parameter.kind == "ordered":
        return parameter.index[:, None].astype(np.float64)  # -1 where a run lacks it
    return np.asarray(parameter.index[:, None] == np.arange(len(parameter.levels)), dtype=np.float64)


def _forest(features: Sequence[Floats], target_N: Floats, seed: int) -> tuple[float, list[float]]:
    """Return the out-of-bag R² and its loss by shuffling each parameter."""
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
        inputs_PMF = np.repeat(all_NF[unseen][None], 1 + len(features), axis=0)
        for index, end in enumerate(ends):
            columns = slice(end - features[index].shape[1], end)
            inputs_PMF[1 + index, :, columns] = all_NF[rng.permutation(unseen), columns]
        predictions = tree.predict(inputs_PMF.reshape(-1, all_NF.shape[1]))
        predicted_PN[:, unseen] += predictions.reshape(1 + len(features), -1)
    predicted_N = votes_N > 0
    truth_M = target_N[predicted_N]
    error_P = ((predicted_PN[:, predicted_N] / votes_N[predicted_N] - truth_M) ** 2).sum(axis=1)
    total = float(((truth_M - truth_M.mean()) ** 2).sum())
    if total == 0:
        return 0.0, [0.0] * len(features)
    r2_P = 1 - error_P / total
    return float(r2_P[0]), (r2_P[0] - r2_P[1:]).tolist()
