"""Which parameters a model of the sweep needs to predict how a run does, and whether it predicts anything at all."""

from __future__ import annotations

from dataclasses import dataclass


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
