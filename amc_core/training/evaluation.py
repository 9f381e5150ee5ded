"""Scores from the confusion of one pass over frames: accuracy, F1, accuracy by SNR, attractors. Free of torch.

In names: K modulations, L SNR levels; the first index of a confusion is the true class, the second the guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from amc_core.modulations import FAMILIES, OTHER_FAMILY, families_of

Counts = npt.NDArray[np.int64]

_FAMILY_ORDER = (*FAMILIES, OTHER_FAMILY)

# Levels confused with a neighbour fail the first test of an attractor, a model that guesses at random the second.
_MIN_SWALLOWED = 2  # other levels for which it is the most frequent guess
_MIN_EXCESS = 1.5  # how often it is guessed, over how often it is true
_STANDARD_ERRORS = 2.0  # by which a level's wrong guess must exceed its right one


@dataclass(frozen=True)
class Score:
    """Scores of one class; fractions."""

    name: str
    n_frames: int
    precision: float  # 0 for a class that is never guessed
    recall: float
    f1: float


@dataclass(frozen=True)
class Attractor:
    """An SNR level that many frames of other levels are mistaken for."""

    snr_db: int
    share: float  # of all frames of other levels
    guessed: float  # of all frames of any level
    swallowed: Mapping[int, float]  # true SNR in dB -> share of its frames that are mistaken for this level


@dataclass(frozen=True)
class Evaluation:
    """The joint confusion of modulation and SNR, and the scores from it."""

    modulations: tuple[str, ...]
    levels_db: tuple[int, ...]
    joint: Counts  # (K, L, K, L): true modulation and level, guessed modulation and level
    loss: float  # sum of both tasks' losses with weights that never change: MultiTaskLoss.measured
    loss_mod: float
    loss_snr: float

    @cached_property
    def modulation(self) -> Counts:
        """Confusion (K, K) of the modulation."""
        return np.asarray(self.joint.sum(axis=(1, 3)))

    @cached_property
    def snr(self) -> Counts:
        """Confusion (L, L) of the SNR level."""
        return np.asarray(self.joint.sum(axis=(0, 2)))

    @property
    def n_frames(self) -> int:
        return int(self.snr.sum())

    @cached_property
    def right_by_snr(self) -> Counts:
        """Number of frames of every level whose modulation and SNR are both right."""
        return np.asarray(np.einsum("klkl->l", self.joint))

    @property
    def combined_acc(self) -> float:
        """Share of frames whose modulation and SNR are both right."""
        return _share(self.right_by_snr.sum(), self.n_frames)

    @property
    def mod_acc(self) -> float:
        return _share(np.trace(self.modulation), self.n_frames)

    @property
    def snr_acc(self) -> float:
        return _share(np.trace(self.snr), self.n_frames)

    @property
    def mod_acc_mean(self) -> float:
        """Mean over SNR levels of ``mod_acc_by_snr``, each level with the same weight: the literature's accuracy."""
        return float(self._mod_acc_of_levels.mean()) if len(self._mod_acc_of_levels) else 0.0

    @property
    def mod_acc_peak(self) -> float:
        """The highest modulation accuracy of any SNR level."""
        return float(self._mod_acc_of_levels.max()) if len(self._mod_acc_of_levels) else 0.0

    @property
    def _mod_acc_of_levels(self) -> npt.NDArray[np.float64]:
        """``mod_acc_by_snr`` of the levels that have frames."""
        return np.asarray(self.mod_acc_by_snr[self.snr.sum(axis=1) > 0])

    @property
    def snr_mae_db(self) -> float:
        """Mean distance of the guessed level from the true one, dB."""
        return _share(self._snr_error_db.sum(), self.n_frames)

    @cached_property
    def combined_acc_by_snr(self) -> npt.NDArray[np.float64]:
        """Share of every level's frames whose modulation and SNR are both right."""
        return _shares(self.right_by_snr, self.snr.sum(axis=1))

    @cached_property
    def mod_acc_by_snr(self) -> npt.NDArray[np.float64]:
        """Share of every level's frames whose modulation is right."""
        return _shares(np.einsum("klkm->l", self.joint), self.snr.sum(axis=1))

    @cached_property
    def snr_mae_db_by_snr(self) -> npt.NDArray[np.float64]:
        """Mean distance of the guessed level from the true one, dB, for every true level."""
        return _shares(self._snr_error_db, self.snr.sum(axis=1))

    @cached_property
    def _snr_error_db(self) -> npt.NDArray[np.float64]:
        """Sum of the SNR errors of every true level's frames, dB."""
        levels_db = np.asarray(self.levels_db, dtype=np.float64)
        return np.asarray((self.snr * abs(levels_db[:, None] - levels_db[None, :])).sum(axis=1))

    @property
    def modulation_scores(self) -> tuple[Score, ...]:
        return scores(self.modulation, self.modulations)

    @property
    def family_scores(self) -> tuple[Score, ...]:
        """Scores of families; a guess is right when it is of the same family."""
        family_of = families_of(self.modulations)
        if not family_of:
            return ()
        names = sorted(set(family_of.values()), key=_FAMILY_ORDER.index)
        member_KF = np.array([[family_of[modulation] == name for name in names] for modulation in self.modulations])
        return scores(member_KF.T.astype(np.int64) @ self.modulation @ member_KF, names)

    @property
    def snr_scores(self) -> tuple[Score, ...]:
        return scores(self.snr, [str(level) for level in self.levels_db])

    @cached_property
    def attractors(self) -> tuple[Attractor, ...]:
        """Attractors, the strongest first."""
        return attractors(self.snr, self.levels_db)

    def summary(self) -> dict[str, float]:
        """Return losses, accuracies and SNR error."""
        names = ("loss", "loss_mod", "loss_snr", "combined_acc", "mod_acc", "snr_acc")
        return {name: getattr(self, name) for name in (*names, "mod_acc_mean", "mod_acc_peak", "snr_mae_db")}

    def detail(self) -> dict[str, float]:
        """Return scores by class, family and level, and the strongest attractor, under the names of metric_names."""
        metrics = {
            **{f"f1/mod/{score.name}": score.f1 for score in self.modulation_scores},
            **{f"f1/family/{score.name}": score.f1 for score in self.family_scores},
            **{f"f1/snr/{score.name}": score.f1 for score in self.snr_scores},
            **{f"acc/snr/{db}": acc for db, acc in zip(self.levels_db, self.combined_acc_by_snr.tolist(), strict=True)},
            "attractor/share": 0.0,
        }
        if self.attractors:
            metrics |= {"attractor/snr_db": self.attractors[0].snr_db, "attractor/share": self.attractors[0].share}
        return metrics

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as plain JSON types."""
        by_level = zip(
            self.levels_db,
            [{name: value for name, value in vars(score).items() if name != "name"} for score in self.snr_scores],
            self.combined_acc_by_snr.tolist(),
            self.mod_acc_by_snr.tolist(),
            self.snr_mae_db_by_snr.tolist(),
            strict=True,
        )
        return {
            "n_frames": self.n_frames,
            **self.summary(),
            "by_modulation": [vars(score) for score in self.modulation_scores],
            "by_family": [vars(score) for score in self.family_scores],
            "by_snr": [
                {
                    "snr_db": db,
                    **scores_of_level,
                    "combined_acc": combined,
                    "mod_acc": modulation,
                    "snr_mae_db": error_db,
                }
                for db, scores_of_level, combined, modulation, error_db in by_level
            ],
            "attractors": [
                {**vars(attractor), "swallowed": {str(db): share for db, share in attractor.swallowed.items()}}
                for attractor in self.attractors
            ],
            "modulations": list(self.modulations),
            "modulation_confusion": self.modulation.tolist(),
            "snr_levels_db": list(self.levels_db),
            "snr_confusion": self.snr.tolist(),
        }


def scores(confusion_KK: Counts, names: Sequence[str]) -> tuple[Score, ...]:
    """Return precision, recall and F1 of every class; 0/0 counts as 0."""
    hit_K, true_K, guess_K = np.diag(confusion_KK), confusion_KK.sum(axis=1), confusion_KK.sum(axis=0)
    columns = (_shares(hit_K, guess_K), _shares(hit_K, true_K), _shares(2 * hit_K, true_K + guess_K))
    rows = zip(names, true_K.tolist(), *(column.tolist() for column in columns), strict=True)
    return tuple(Score(*row) for row in rows)


def attractors(snr_LL: Counts, levels_db: Sequence[int]) -> tuple[Attractor, ...]:
    """Return the SNR levels that swallow others, the strongest first.

    The most frequent guess for a true level swallows it, when that guess is wrong and exceeds the right guess by two
    standard errors. An attractor swallows at least two other levels, and is guessed at least 1.5 times as often as it
    is true. 24, 28 and 30 dB read as 26 dB make an attractor; 30 dB read as 28 dB does not.
    """
    true_L = snr_LL.sum(axis=1)
    n_frames = int(true_L.sum())
    share_LL = snr_LL / np.maximum(true_L, 1)[:, None]
    right_L = np.diag(share_LL)
    result = []
    for level, snr_db in enumerate(levels_db):
        guess_L = share_LL[:, level]
        # Variance of the difference of two shares of one multinomial sample.
        variance_L = (guess_L + right_L - (guess_L - right_L) ** 2) / np.maximum(true_L, 1)
        leads_L = guess_L - right_L > _STANDARD_ERRORS * np.sqrt(variance_L)
        swallowed_L = leads_L & (share_LL.argmax(axis=1) == level)
        swallowed_L[level] = False
        n_other = n_frames - int(true_L[level])
        n_guessed = int(snr_LL[:, level].sum())
        if swallowed_L.sum() >= _MIN_SWALLOWED and n_guessed >= _MIN_EXCESS * true_L[level]:
            result.append(
                Attractor(
                    snr_db=int(snr_db),
                    share=_share(n_guessed - int(snr_LL[level, level]), n_other),
                    guessed=_share(n_guessed, n_frames),
                    swallowed={
                        int(levels_db[other]): float(guess_L[other]) for other in np.flatnonzero(swallowed_L).tolist()
                    },
                )
            )
    return tuple(sorted(result, key=lambda attractor: -attractor.share))


def _share(part: Any, whole: int) -> float:
    return float(part) / whole if whole else 0.0


def _shares(part_L: npt.NDArray[Any], whole_L: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(part_L / np.maximum(whole_L, 1), dtype=np.float64)
