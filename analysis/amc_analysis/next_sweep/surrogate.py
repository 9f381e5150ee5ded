"""Where the optimum can still be, as far as the runs tell: draws of it from a Gaussian process.

The surface is a sum of one smooth function a parameter and one a pair of parameters, so that an interaction can be
there but has to be shown. Nothing about it is fixed at a best guess: length scale, size of the effects, weight of the
pairs and noise are averaged over a grid, each by its likelihood. From each drawn surface the best configuration is
taken; a value that is in hardly any of them is what the data exclude.

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
USUAL_NOISE, NOISE_SPREAD = 0.3, 1.5  # log-normal prior: it only keeps a handful of runs from claiming no noise at all
MOST_RUNS = 300  # of more an even selection by rank: time goes with the cube
DRAWS = 1000
JITTER = 1e-6


@dataclass(frozen=True, eq=False)
class Points:
    """Configurations in the surrogate's coordinates."""

    ordered: Array  # (N, P) in 0..1
    unordered: NDArray[np.int64]  # (N, Q) number of the value

    def __len__(self) -> int:
        """Return how many."""
        return len(self.ordered)

    def take(self, chosen: NDArray[np.int64]) -> Points:
        """Return some of them."""
        return Points(self.ordered[chosen], self.unordered[chosen])


@dataclass(frozen=True, eq=False)
class Belief:
    """What the runs leave possible."""

    optimum: NDArray[np.int64]  # (DRAWS,) number of the best candidate in each drawn surface
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


def believe(runs: Points, values: Array, variances: Array, candidates: Points, *, seed: int) -> Belief:
    """Draw the best of the candidates, given what the runs reached.

    Args:
        runs: (N,) configurations that ran.
        values: (N,) their outcomes, higher is better.
        variances: (N,) how uncertain each is beside the noise.
        candidates: (M,) configurations among which the best one is looked for.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    if len(runs) > MOST_RUNS:
        order = np.argsort(values)
        chosen = order[np.linspace(0, len(order) - 1, MOST_RUNS).round().astype(np.int64)]
        runs, values, variances = runs.take(chosen), values[chosen], variances[chosen]
    squeezed, slopes = _squeeze(values)
    spread = float(np.std(squeezed))
    if spread == 0:
        return Belief(rng.integers(len(candidates), size=DRAWS), 0.0)
    outcomes = (squeezed - np.median(squeezed)) / spread
    doubts = variances * slopes**2 / spread**2
    hypotheses = _hypotheses(runs, outcomes, doubts)
    weights = np.exp(np.array([one.log_weight for one in hypotheses]) - max(one.log_weight for one in hypotheses))
    weights /= weights.sum()
    noise = sum(float(weight) * one.noise for weight, one in zip(weights, hypotheses, strict=True)) * spread
    optimum = []
    alike: dict[float, tuple[_Similarity, _Similarity]] = {}
    for one, count in zip(hypotheses, rng.multinomial(DRAWS, weights).tolist(), strict=True):
        if not count:
            continue
        if one.length not in alike:
            pairs = ((runs, candidates), (candidates, candidates))
            across, among = (_Similarity.between(*pair, one.length) for pair in pairs)
            alike[one.length] = across, among
        optimum.append(_best_candidates(one, *alike[one.length], count, rng))
    return Belief(np.concatenate(optimum), noise)


def _squeeze(values: Array) -> tuple[Array, Array]:
    """Draw the bad outcomes together: it does not matter how bad they are, and their noise is another one.

    Distances below the best tenth count in full while they are small against that tenth's lead over the median, and as
    their logarithm further down. Returns the new values and the slope at each.
    """
    top = float(np.quantile(values, 0.9))
    lead = top - float(np.median(values)) or float(np.std(values)) or 1.0
    below = np.maximum(top - values, 0.0) / lead
    return np.where(values < top, top - lead * np.log1p(below), values), 1 / (1 + below)


@dataclass(frozen=True, eq=False)
class _Similarity:
    """How alike configurations are, (N, M): over single parameters, and over pairs of them."""

    single: Array
    pairs: Array

    @classmethod
    def between(cls, one: Points, other: Points, length: float) -> _Similarity:
        single, squares = np.zeros((len(one), len(other))), np.zeros((len(one), len(other)))
        for j in range(one.ordered.shape[1]):
            away = one.ordered[:, [j]] - other.ordered[None, :, j]
            single += (kernel := np.exp(-0.5 * (away / length) ** 2))
            squares += kernel**2
        for j in range(one.unordered.shape[1]):
            same = (one.unordered[:, [j]] == other.unordered[None, :, j]).astype(np.float64)
            single += same
            squares += same
        return cls(single, (single**2 - squares) / 2)  # the sum over pairs of their products

    def covariance(self, effect: float, pair: float) -> Array:
        """Return the surface's covariance, a wide constant in front."""
        return 1 + 4 * effect**2 + effect**2 * (self.single + pair**2 * self.pairs)


def _hypotheses(runs: Points, outcomes: Array, doubts: Array) -> list[_Hypothesis]:
    found = []
    for length in LENGTHS:
        alike = _Similarity.between(runs, runs, length)
        for effect, pair in product(EFFECTS, PAIRS):
            covariance = alike.covariance(effect, pair)
            for noise in NOISES:
                root: Array = np.asarray(np.linalg.cholesky(covariance + np.diag(noise**2 + doubts)), np.float64)
                solved: Array = np.asarray(np.linalg.solve(root, outcomes), np.float64)
                likelihood = -0.5 * float(solved @ solved) - float(np.log(np.diag(root)).sum())
                prior = -0.5 * (math.log(noise / USUAL_NOISE) / NOISE_SPREAD) ** 2
                found.append(_Hypothesis(likelihood + prior, length, effect, pair, noise, root, solved))
    return found


def _best_candidates(
    one: _Hypothesis, across: _Similarity, among: _Similarity, draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the number of the best candidate in each of ``draws`` surfaces."""
    explained = np.linalg.solve(one.root, across.covariance(one.effect, one.pair))
    before = among.covariance(one.effect, one.pair)
    jitter = JITTER * float(np.mean(np.diag(before)))
    root = np.linalg.cholesky(before - explained.T @ explained + jitter * np.eye(len(before)))
    surfaces = (explained.T @ one.solved)[:, None] + root @ rng.standard_normal((len(before), draws))
    return np.asarray(surfaces.argmax(axis=0))
