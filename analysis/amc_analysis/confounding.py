"""Pairs of parameters that moved together, so that their effects cannot be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ConfoundedPair:
    """Two searched parameters and how closely they are tied in the runs that there are."""

    first: str
    second: str
    strength: float  # 0: independent, 1: one follows from the other
    measure: Literal["Cramér's V", "rank correlation", "correlation ratio"]
    n: int
    p_corrected: float  # permutation, for the number of pairs
