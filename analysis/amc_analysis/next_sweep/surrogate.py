"""Draws of the optimum, given the runs, from a Gaussian process.

The surface is a sum of one smooth function for each parameter and one for each pair of parameters; pairs have a smaller
prior weight, so an interaction needs evidence. Length scale, size of the effects, weight of the pairs and noise are
averaged over a grid, weighted by likelihood. The best configuration of each drawn surface is one draw of the optimum.
The data exclude a value that hardly any draw has.

Source: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), chapters 2 and 5; additive kernels:
Duvenaud, Nickisch & Rasmussen, NeurIPS 2011; draws of the optimum: Thompson, Biometrika 25 (1933).
"""

from __future__ import annotations

import math
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
JITTER = 1e-6


@dataclass(frozen=True, eq=False)
class Points:
    """Configurations in the surrogate's coordinates."""

    ordered: Array  # (N, P) in 0..1
    unordered: NDArray[np.int64]  # (N, Q) index of the value

    def __len__(self) -> int:
        """Return the number of configurations."""
        return len(self.ordered)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of the optimum, given the runs."""

    optimum: NDArray[np.int64]  # (DRAWS,) index of the best candidate in each drawn surface
    noise_sd: float  # between equal runs, in the metric's own unit near the top


@dataclass(frozen=True, eq=False)
class _Hypothesis:
    log_weight: float
    length: float
    effect: float
    pair: float
    noise: float
    root: Array  # Cholesky factor of the outcomes' covariance
    solved: Array  # root^-1 outcomes


def draw_optima(runs: Points, values: Array, variances: Array, candidates: Points, *, seed: int) -> Posterior:
    """Return draws of the best candidate, given the runs' outcomes.

    Args:
        runs: (N,) configurations that ran.
        values: (N,) their outcomes, higher is better.
        variances: (N,) of each outcome, in addition to the noise.
        candidates: (M,) configurations to choose from.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    if len(runs) > MOST_RUNS:
        order = np.argsort(values)
        selected = order[np.linspace(0, len(order) - 1, MOST_RUNS).round().astype(np.int64)]
        runs = Points(runs.ordered[selected], runs.unordered[selected])
        values, variances = values[selected], variances[selected]
    clipped, slopes = _clip_bad_outcomes(values)
    spread = float(np.std(clipped))
    if spread == 0:
        return Posterior(rng.integers(len(candidates), size=DRAWS), 0.0)
    outcomes = (clipped - np.median(clipped)) / spread
    extra_variances = variances * slopes**2 / spread**2
    hypotheses = _hypotheses(runs, outcomes, extra_variances)
    log_weights = np.array([hypothesis.log_weight for hypothesis in hypotheses])
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    noise = spread * float(weights @ np.array([hypothesis.noise for hypothesis in hypotheses]))
    optimum = []
    similarities: dict[float, tuple[_Similarity, _Similarity]] = {}
    for hypothesis, count in zip(hypotheses, rng.multinomial(DRAWS, weights).tolist(), strict=True):
        if not count:
            continue
        if hypothesis.length not in similarities:
            pairs = ((runs, candidates), (candidates, candidates))
            across, among = (_Similarity.between(*pair, hypothesis.length) for pair in pairs)
            similarities[hypothesis.length] = across, among
        optimum.append(_best_candidates(hypothesis, *similarities[hypothesis.length], count, rng))
    return Posterior(np.concatenate(optimum), noise)


def _clip_bad_outcomes(values: Array) -> tuple[Array, Array]:
    """Clip outcomes far below the best: how bad they are does not matter, and their noise differs.

    Distances below the best tenth count in full while they are small compared with its lead over the median; larger
    ones count by their logarithm. Returns the new values and the slope at each.
    """
    top = float(np.quantile(values, 0.9))
    lead = top - float(np.median(values)) or float(np.std(values)) or 1.0
    below = np.maximum(top - values, 0.0) / lead
    return np.where(values < top, top - lead * np.log1p(below), values), 1 / (1 + below)


@dataclass(frozen=True, eq=False)
class _Similarity:
    """Similarity of configurations, (N, M): summed over single parameters, and over pairs of them."""

    single: Array
    pairs: Array

    @classmethod
    def between(cls, points: Points, other: Points, length: float) -> _Similarity:
        single, squares = np.zeros((len(points), len(other))), np.zeros((len(points), len(other)))
        for j in range(points.ordered.shape[1]):
            distance = points.ordered[:, [j]] - other.ordered[None, :, j]
            single += (kernel := np.exp(-0.5 * (distance / length) ** 2))
            squares += kernel**2
        for j in range(points.unordered.shape[1]):
            same = (points.unordered[:, [j]] == other.unordered[None, :, j]).astype(np.float64)
            single += same
            squares += same
        return cls(single, (single**2 - squares) / 2)  # the sum over pairs of their products

    def covariance(self, effect: float, pair: float) -> Array:
        """Return the surface's covariance, with a wide prior for its mean."""
        return 1 + 4 * effect**2 + effect**2 * (self.single + pair**2 * self.pairs)


def _hypotheses(runs: Points, outcomes: Array, extra_variances: Array) -> list[_Hypothesis]:
    hypotheses = []
    for length in LENGTHS:
        similarity = _Similarity.between(runs, runs, length)
        for effect, pair in product(EFFECTS, PAIRS):
            covariance = similarity.covariance(effect, pair)
            for noise in NOISES:
                noisy = covariance + np.diag(noise**2 + extra_variances)
                root = np.asarray(np.linalg.cholesky(noisy), np.float64)
                solved = np.asarray(np.linalg.solve(root, outcomes), np.float64)
                likelihood = -0.5 * float(solved @ solved) - float(np.log(np.diag(root)).sum())
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
