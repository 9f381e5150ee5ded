"""A Gaussian process of the runs: draws of the optimum, and tests of whether values can be exchanged.

The surface is a sum of one smooth function for each parameter and one for each pair of parameters; pairs have a smaller
prior weight, so an interaction needs evidence. Length scale, size of the effects, weight of the pairs and noise are
averaged over a grid, weighted by likelihood. The best configuration of each drawn surface is one draw of the optimum.

All parameters share one size of effects, so the draws are too sure where a parameter does nothing. ``exchange_p`` is
not: it is a permutation test. If two values are equally good, their runs can be exchanged, and the runs as they were
fit no better than exchanged ones.

Source: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), chapters 2 and 5; additive kernels:
Duvenaud, Nickisch & Rasmussen, NeurIPS 2011; draws of the optimum: Thompson, Biometrika 25 (1933); permutation tests
with any statistic: Pitman, Supplement to JRSS 4 (1937).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LENGTHS = (0.25, 0.5, 1.0)  # of a range's full width
EFFECTS = (0.3, 1.0, 3.0)  # sd of one parameter's function, in sd of the outcomes
PAIRS = (0.05, 0.2, 0.5)  # sd of a pair's function, as a share of that
NOISES = (0.05, 0.1, 0.2, 0.35, 0.6, 0.9)  # sd between equal runs, in sd of the outcomes
USUAL_NOISE, NOISE_SPREAD = 0.3, 1.5  # log-normal prior; it matters only for few runs, which could fit without noise
MOST_RUNS = 300  # of more an even selection by rank, because time grows with the cube
DRAWS = 1000
EXCHANGES = 399
JITTER = 1e-6


@dataclass(frozen=True, eq=False)
class Points:
    """Configurations in the surrogate's coordinates."""

    places: Array  # (N, P): 0..1 of an ordered parameter, else the index of the value
    ordered: tuple[bool, ...]  # (P,)

    def __len__(self) -> int:
        """Return the number of configurations."""
        return len(self.places)


@dataclass(frozen=True, eq=False)
class _Hypothesis:
    log_weight: float
    length: float
    effect: float
    pair: float
    noise: float
    root: Array  # Cholesky factor of the outcomes' covariance
    solved: Array  # root^-1 outcomes


class Surrogate:
    """The surface, given the runs' outcomes."""

    def __init__(self, runs: Points, values: Array, variances: Array) -> None:
        """Fit the surface.

        Args:
            runs: (N,) configurations that ran.
            values: (N,) their outcomes, higher is better; see ``clip_bad_outcomes``.
            variances: (N,) of each outcome, in addition to the noise.
        """
        self._selected = np.arange(len(runs))
        if len(runs) > MOST_RUNS:
            order = np.argsort(values)
            self._selected = order[np.linspace(0, len(order) - 1, MOST_RUNS).round().astype(np.int64)]
        self._runs = Points(runs.places[self._selected], runs.ordered)
        values, variances = values[self._selected], variances[self._selected]
        spread = float(np.std(values))
        self._outcomes = (values - np.median(values)) / (spread or 1.0)
        self._variances = variances / (spread or 1.0) ** 2
        self._hypotheses = _hypotheses(self._runs, self._outcomes, self._variances) if spread else []
        log_weights = np.array([hypothesis.log_weight for hypothesis in self._hypotheses])
        weights = np.exp(log_weights - log_weights.max(initial=-math.inf))
        self._weights = weights / (weights.sum() or 1.0)
        # Between equal runs, in the metric's own unit near the top.
        self.noise_sd = spread * float(self._weights @ np.array([each.noise for each in self._hypotheses]))

    def draw_optima(self, candidates: Points, *, seed: int) -> NDArray[np.int64]:
        """Return (DRAWS,) the index of the best candidate in each drawn surface."""
        rng = np.random.default_rng(seed)
        if not self._hypotheses:
            return rng.integers(len(candidates), size=DRAWS)
        optimum = []
        similarities: dict[float, tuple[_Similarity, _Similarity]] = {}
        for hypothesis, count in zip(self._hypotheses, rng.multinomial(DRAWS, self._weights).tolist(), strict=True):
            if not count:
                continue
            if hypothesis.length not in similarities:
                pairs = ((self._runs, candidates), (candidates, candidates))
                across, among = (_Similarity.between(*pair, hypothesis.length) for pair in pairs)
                similarities[hypothesis.length] = across, among
            optimum.append(_best_candidates(hypothesis, *similarities[hypothesis.length], count, rng))
        return np.concatenate(optimum)

    def exchange_p(self, column: int, among: NDArray[np.bool_], *, seed: int) -> float:
        """Return the p of the permutation test that some runs can exchange their values of one parameter.

        The statistic is the likelihood of the outcomes under the likeliest hypothesis.

        Args:
            column: of the parameter.
            among: (N,) the runs whose values are exchanged.
            seed: of the permutations.
        """
        runs = np.flatnonzero(among[self._selected])
        if not self._hypotheses or len(np.unique(self._runs.places[runs, column])) < 2:
            return 1.0
        rng = np.random.default_rng(seed)
        best = self._hypotheses[int(self._weights.argmax())]
        kernels = _kernels(self._runs, self._runs, best.length)
        own = kernels.pop(column)
        others = _Similarity.of(kernels, own.shape)
        noise = np.diag(best.noise**2 + self._variances)
        likelihoods = []
        for exchange in range(EXCHANGES + 1):
            order = np.arange(len(own))
            order[runs] = rng.permutation(runs) if exchange else runs
            moved = own[np.ix_(order, order)]
            similarity = _Similarity(others.single + moved, others.pairs + others.single * moved)
            likelihoods.append(
                _log_likelihood(similarity.covariance(best.effect, best.pair) + noise, self._outcomes)[0]
            )
        return float((np.array(likelihoods) >= likelihoods[0] - 1e-9).mean())


def clip_bad_outcomes(values: Array, variances: Array) -> tuple[Array, Array]:
    """Clip outcomes far below the best: how bad they are does not matter, and their noise differs.

    Distances below the best tenth count in full while they are small compared with its lead over the median; larger
    ones count by their logarithm. Returns the new values and their variances.
    """
    top = float(np.quantile(values, 0.9))
    lead = top - float(np.median(values)) or float(np.std(values)) or 1.0
    below = np.maximum(top - values, 0.0) / lead
    return np.where(values < top, top - lead * np.log1p(below), values), variances / (1 + below) ** 2


@dataclass(frozen=True, eq=False)
class _Similarity:
    """Similarity of configurations, (N, M): summed over single parameters, and over pairs of them."""

    single: Array
    pairs: Array

    @classmethod
    def between(cls, points: Points, other: Points, length: float) -> _Similarity:
        return cls.of(_kernels(points, other, length), (len(points), len(other)))

    @classmethod
    def of(cls, kernels: Sequence[Array], shape: tuple[int, ...]) -> _Similarity:
        single = sum(kernels, np.zeros(shape))
        squares = sum((kernel**2 for kernel in kernels), np.zeros(shape))
        return cls(single, (single**2 - squares) / 2)  # the sum over pairs of their products

    def covariance(self, effect: float, pair: float) -> Array:
        """Return the surface's covariance, with a wide prior for its mean."""
        return 1 + 4 * effect**2 + effect**2 * (self.single + pair**2 * self.pairs)


def _kernels(points: Points, other: Points, length: float) -> list[Array]:
    """Return for every parameter (N, M) how similar its values are."""
    differences = [points.places[:, [j]] - other.places[None, :, j] for j in range(len(points.ordered))]
    return [
        np.exp(-0.5 * (difference / length) ** 2) if ordered else (difference == 0).astype(np.float64)
        for difference, ordered in zip(differences, points.ordered, strict=True)
    ]


def _log_likelihood(covariance: Array, outcomes: Array) -> tuple[float, Array, Array]:
    """Return the log likelihood but for a constant, the Cholesky factor of the covariance, and its solution."""
    root = np.asarray(np.linalg.cholesky(covariance), np.float64)
    solved = np.asarray(np.linalg.solve(root, outcomes), np.float64)
    return -0.5 * float(solved @ solved) - float(np.log(np.diag(root)).sum()), root, solved


def _hypotheses(runs: Points, outcomes: Array, extra_variances: Array) -> list[_Hypothesis]:
    hypotheses = []
    for length in LENGTHS:
        similarity = _Similarity.between(runs, runs, length)
        for effect, pair in product(EFFECTS, PAIRS):
            covariance = similarity.covariance(effect, pair)
            for noise in NOISES:
                noisy = covariance + np.diag(noise**2 + extra_variances)
                likelihood, root, solved = _log_likelihood(noisy, outcomes)
                prior = -0.5 * (math.log(noise / USUAL_NOISE) / NOISE_SPREAD) ** 2
                hypotheses.append(_Hypothesis(likelihood + prior, length, effect, pair, noise, root, solved))
    return hypotheses


def _best_candidates(
    hypothesis: _Hypothesis, across: _Similarity, among: _Similarity, draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the index of the best candidate in each of ``draws`` surfaces."""
    explained = np.linalg.solve(hypothesis.root, across.covariance(hypothesis.effect, hypothesis.pair))
    prior = among.covariance(hypothesis.effect, hypothesis.pair)
    jitter = JITTER * float(np.mean(np.diag(prior)))
    root = np.linalg.cholesky(prior - explained.T @ explained + jitter * np.eye(len(prior)))
    surfaces = (explained.T @ hypothesis.solved)[:, None] + root @ rng.standard_normal((len(prior), draws))
    return np.asarray(surfaces.argmax(axis=0))
