"""A Gaussian process of what the runs have shown, averaged over the likeliest length scales and noises.

The surface is a sum of one function for each parameter, plus one of all of them together. The latter has a Matérn 5/2
covariance with a length scale for every parameter; two values of an unordered parameter are at distance 1. Length
scales, sizes and noise are drawn from their priors, the likeliest draws are varied, and the best few hypotheses are
averaged by their likelihood. Each run has a variance of its own, so that an uncertain value weighs less.

Source: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), chapters 2, 4 and 5;
additive kernels: Duvenaud, Nickisch & Rasmussen, NeurIPS 2011; length scales that
grow with the number of parameters: Hvarfner, Hellsten & Nardi, ICML 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PRIOR_DRAWS = 24  # hypotheses from the prior
VARIATIONS = 24  # of the best of them, in each of ROUNDS
ROUNDS = 2
AVERAGED = 3  # hypotheses that are averaged
MOST_FITTED = 80  # runs that hypotheses are judged by: time grows with the cube
MOST_RUNS = 150  # runs that a prediction uses
MOST_BELOW = 3.0
JITTER = 1e-6
USUAL_LENGTH, LENGTH_SPREAD = 0.45, 0.8  # log-normal prior; times the root of the number of parameters
USUAL_NOISE, NOISE_SPREAD = 0.15, 1.0  # sd between equal runs, in sd of the values
USUAL_MAIN, USUAL_JOINT, SIZE_SPREAD = 1.0, 0.6, 0.7  # sd of both parts of the surface, likewise
MEAN_SD = 1.0  # of the surface's mean
MAIN_LENGTH = 0.25  # length scale of the function of one ordered parameter


@dataclass(frozen=True, eq=False)
class Data:
    """Places that were tried, and what they gave."""

    places: Array  # (N, P), see space.Space
    ordered: NDArray[np.bool_]  # (P,)
    values: Array  # (N,) standardised, higher is better
    variances: Array  # (N,) of each value, in addition to the noise

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self.values)

    def part(self, rows: NDArray[np.int64]) -> Data:
        return Data(self.places[rows], self.ordered, self.values[rows], self.variances[rows])


def standardised(places: Array, ordered: NDArray[np.bool_], values: Array, sds: Array) -> Data:
    """Return values with median 0 and spread 1; values far below the best are clipped, see ``clip_bad_values``."""
    largest = float(np.abs(values).max(initial=0.0)) or 1.0  # squares of huge values would overflow
    values, variances = clip_bad_values(values / largest, (sds / largest) ** 2)
    spread = float(np.std(values)) or 1.0
    return Data(places, ordered, (values - np.median(values)) / spread, variances / spread**2)


def clip_bad_values(values: Array, variances: Array) -> tuple[Array, Array]:
    """Clip values far below the best: how bad they are does not matter, and their noise differs.

    Distances below the best tenth count in full while they are small compared with its lead over the median; larger
    ones count by their logarithm, up to MOST_BELOW leads. Returns the new values and their variances.
    """
    top = float(np.quantile(values, 0.9))
    lead = top - float(np.median(values)) or float(np.std(values)) or 1.0
    below = np.maximum(top - values, 0.0) / lead
    clipped = top - lead * np.minimum(np.log1p(below), MOST_BELOW)
    return np.where(values < top, clipped, values), variances / (1 + below) ** 2


class Surrogate:
    """Predictions at any place, given the data."""

    def __init__(self, data: Data, rng: np.random.Generator) -> None:
        """Find the likeliest hypotheses; the same data and random numbers give the same ones."""
        self._data = data.part(_spread_rows(data, MOST_RUNS))
        fitted = self._data.part(_spread_rows(self._data, MOST_FITTED))
        self._weights, self._hypotheses = _likeliest(fitted, rng)
        values = [self._data.values] * len(self._hypotheses)
        self._solved = _solved(self._data, self._hypotheses, values)

    def with_pending(self, places: Array) -> Surrogate:
        """Return the surrogate with runs whose result is unknown: the mean stays, and near them nothing is uncertain.

        Source: Ginsbourger, Le Riche & Carraro, "Kriging is well-suited to parallelize optimization" (2010).
        """
        if not len(places):
            return self
        other = object.__new__(Surrogate)
        other._weights, other._hypotheses = self._weights, self._hypotheses
        data = self._data
        other._data = Data(
            np.concatenate([data.places, places]),
            data.ordered,
            np.concatenate([data.values, np.zeros(len(places))]),
            np.concatenate([data.variances, np.zeros(len(places))]),
        )
        values = [np.concatenate([data.values, mean]) for mean, _ in self._moments(places)]
        other._solved = _solved(other._data, self._hypotheses, values)
        return other

    def mean(self, places: Array) -> Array:
        """Return (N,) the expected values at places (N, P)."""
        return np.asarray(self._weights @ np.array([mean for mean, _ in self._moments(places)]), np.float64)

    def expected_improvement(self, places: Array, results: Array) -> Array:
        """Return (N,) by how much a run at each place (N, P) is expected to beat the best of the results (R, P).

        The best result is the highest mean at a place that has one: the values themselves have noise. The chance of a
        surprise counts less where the surface is known to within the noise already. Source: Huang, Allen, Notz & Zeng,
        J. Global Optimization 34 (2006). A higher mean counts in full: a crash may have kept runs there from a result.
        """
        from scipy.special import ndtr  # loaded by the first sweep that needs it

        total = np.zeros(len(places))
        bests = [mean.max() for mean, _ in self._moments(results)]
        moments = self._moments(places)
        for weight, hypothesis, (mean, sd), best in zip(self._weights, self._hypotheses, moments, bests, strict=True):
            z = (mean - best) / sd
            noise = math.exp(hypothesis[0])
            informative = 1 - noise / np.sqrt(noise**2 + sd**2)
            sure = np.maximum(mean - best, 0.0)
            total += weight * (sure + informative * (sd * (z * ndtr(z) + _density(z)) - sure))
        return total

    def _moments(self, places: Array) -> list[tuple[Array, Array]]:
        """Return for every hypothesis (N,) means and standard deviations of the surface, without the noise of a run."""
        similarity = _Similarity.between(places, self._data.places, self._data.ordered)
        moments = []
        for hypothesis, (inverse, white) in zip(self._hypotheses, self._solved, strict=True):
            shared = similarity.covariances(hypothesis[None])[0]
            explained = shared @ inverse.T
            variance = similarity.own_variance(hypothesis) - (explained**2).sum(axis=1)
            moments.append((explained @ white, np.sqrt(np.maximum(variance, 1e-12))))
        return moments


def _density(z: Array) -> Array:
    return np.asarray(np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi), np.float64)


def _solved(data: Data, hypotheses: list[Array], values: list[Array]) -> list[tuple[Array, Array]]:
    """Return for every hypothesis the inverse of the Cholesky factor of the covariance, and its product with values."""
    similarity = _Similarity.between(data.places, data.places, data.ordered)
    solved = []
    for hypothesis, own_values in zip(hypotheses, values, strict=True):
        inverse = np.linalg.inv(np.linalg.cholesky(_with_noise(similarity, data, hypothesis[None])[0]))
        solved.append((inverse, inverse @ own_values))
    return solved


@dataclass(frozen=True, eq=False)
class _Similarity:
    """How alike N places are to M others, before any hypothesis."""

    squares: Array  # (P, N, M) squared distances along each axis
    main: Array  # (N, M) covariance of a sum of one function for each axis, of size 1

    @classmethod
    def between(cls, places: Array, others: Array, ordered: NDArray[np.bool_]) -> _Similarity:
        squares = places.T[:, :, None] - others.T[:, None, :]
        np.square(squares, out=squares)
        main = np.zeros(squares.shape[1:])
        for square, is_ordered in zip(squares, ordered, strict=True):
            if not is_ordered:
                np.minimum(square, 1.0, out=square)  # places are whole numbers
            main += np.exp(square * (-0.5 / MAIN_LENGTH**2)) if is_ordered else 1 - square
        return cls(squares, main / max(len(squares), 1))

    def covariances(self, hypotheses: Array) -> Array:
        """Return (H, N, M) the covariance of the surface under hypotheses (H, 3 + P)."""
        weights = np.exp(-2 * hypotheses[:, 3:])
        distances = weights @ self.squares.reshape(len(self.squares), self.main.size)
        distances = distances.reshape(-1, *self.main.shape)
        root = np.sqrt(5 * distances)
        distances *= 5 / 3
        distances += 1 + root
        distances *= np.exp(-root)
        main_size, joint_size = np.exp(2 * hypotheses[:, 1:3]).T[:, :, None, None]
        distances *= joint_size
        distances += main_size * self.main + MEAN_SD**2
        return np.asarray(distances, np.float64)

    @staticmethod
    def own_variance(hypothesis: Array) -> float:
        """Return the variance of the surface at any place."""
        return MEAN_SD**2 + math.exp(2 * hypothesis[1]) + math.exp(2 * hypothesis[2])


def _with_noise(similarity: _Similarity, data: Data, hypotheses: Array) -> Array:
    """Return (H, N, N) the covariance of the values under each hypothesis."""
    covariances = similarity.covariances(hypotheses)
    rows = np.arange(len(data))
    covariances[:, rows, rows] += np.exp(2 * hypotheses[:, [0]]) + data.variances + JITTER
    return covariances


def _spread_rows(data: Data, most: int) -> NDArray[np.int64]:
    """Return at most so many rows: the best half of them, and an even selection by rank of the others."""
    order = np.argsort(-data.values, kind="stable")
    if len(order) <= most:
        return np.arange(len(order))
    best, others = order[: most // 2], order[most // 2 :]
    selected = others[np.linspace(0, len(others) - 1, most - most // 2).round().astype(np.int64)]
    return np.sort(np.concatenate([best, selected]))


def _likeliest(data: Data, rng: np.random.Generator) -> tuple[Array, list[Array]]:
    """Return weights and hypotheses (3 + P,): logs of noise, both sizes, lengths; the likeliest first."""
    similarity = _Similarity.between(data.places, data.places, data.ordered)
    count = data.places.shape[1]
    usual = np.log([USUAL_NOISE, USUAL_MAIN, USUAL_JOINT, *[USUAL_LENGTH * math.sqrt(max(count, 1))] * count])
    spread = np.array([NOISE_SPREAD, SIZE_SPREAD, SIZE_SPREAD, *[LENGTH_SPREAD] * count])
    drawn = usual + spread * rng.standard_normal((PRIOR_DRAWS, len(usual)))
    drawn[0] = usual
    scores = _scores(data, similarity, drawn, usual, spread)
    width = 0.6
    for _ in range(ROUNDS):
        centres = drawn[np.argsort(-scores, kind="stable")[:AVERAGED]]
        moves = width * spread * rng.standard_normal((VARIATIONS, len(usual)))
        varied = np.resize(centres, (VARIATIONS, len(usual))) + moves * (rng.random(moves.shape) < 0.6)
        drawn = np.concatenate([drawn, varied])
        scores = np.concatenate([scores, _scores(data, similarity, varied, usual, spread)])
        width /= 2
    order = np.argsort(-scores, kind="stable")[:AVERAGED]
    weights = np.exp(scores[order] - scores[order[0]])
    return weights / weights.sum(), [drawn[row] for row in order]


def _scores(data: Data, similarity: _Similarity, hypotheses: Array, usual: Array, spread: Array) -> Array:
    """Return (H,) the log posterior of hypotheses (H, 3 + P), but for a constant.

    The last row of the factor of the covariance, bordered by the values, is the solution of the values.
    """
    n, count = len(data), len(hypotheses)
    bordered = np.empty((count, n + 1, n + 1))
    bordered[:, :n, :n] = _with_noise(similarity, data, hypotheses)
    bordered[:, n, :n] = bordered[:, :n, n] = data.values
    bordered[:, n, n] = 1e8
    roots = np.linalg.cholesky(bordered)
    logs = np.log(np.diagonal(roots, axis1=1, axis2=2)[:, :n]).sum(axis=1)
    prior = -0.5 * (((hypotheses - usual) / spread) ** 2).sum(axis=1)
    return np.asarray(prior - 0.5 * (roots[:, n, :n] ** 2).sum(axis=1) - logs, np.float64)
