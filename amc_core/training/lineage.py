"""Whether a trial may start from a checkpoint: same settings, same network, and no held-out frames trained on.

A network that was trained on some of the validation frames scores too high. In the 2025 research log, vocal-glade-228
resumed an 80/10/10 checkpoint on a 70/20/10 split: a third of its held-out frames had been trained on. Its accuracy
jumped from 47.5% to 52.5%, and this was read as a distribution mismatch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from amc_core.config import ConfigError, TrialConfig, current_value
from amc_core.data.radioml import RadioMLFile, Selection, select
from amc_core.data.splits import Split, stratified_split
from amc_core.training.checkpoint import BEST, LAST, Checkpoint, load_checkpoint

# What a continued trial may have otherwise: where things lie, and when to end.
_MAY_DIFFER = frozenset(
    {
        *("data", "storage", "epochs", "patience", "min_cycles", "compile", "micro_batch_size"),
        *("init_from", "resume_from", "allow_split_change"),
    }
)
_OF_THE_SPLIT = ("label_set", "snr_min_db", "snr_max_db", "split", "split_seed")


@dataclass(frozen=True)
class SplitFacts:
    """Enough to divide the same file in the same way again."""

    split_fingerprint: str
    data_fingerprint: str
    label_set: str
    snr_min_db: int
    snr_max_db: int
    levels_db: tuple[int, ...]  # the SNR classes: the levels of the file in that range
    split: tuple[float, float, float]
    split_seed: int

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> SplitFacts:
        """Read what to_mapping wrote."""
        return cls(**{**values, "split": tuple(values["split"]), "levels_db": tuple(values["levels_db"])})

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {**asdict(self), "split": list(self.split), "levels_db": list(self.levels_db)}

    def __str__(self) -> str:
        ratios = "/".join(f"{fraction:.0%}" for fraction in self.split).replace("%", "")
        return (
            f"{self.split_fingerprint} ({self.label_set}, {self.snr_min_db}..{self.snr_max_db} dB, {ratios}, "
            f"seed {self.split_seed})"
        )


@dataclass(frozen=True)
class Lineage:
    """Where the weights of a trial come from."""

    parent_run: str | None
    parent_split_fingerprint: str | None
    trained_on: tuple[SplitFacts, ...]  # this trial's own split is the last one
    split_override: bool  # other splits than its own are among them, and somebody allowed it
    heldout_trained_on: float | None  # share of the held-out frames; None: unknown, another file
    fresh_heads: tuple[str, ...] = ()  # parts of the model whose classes are others than the parent's

    def facts(self) -> dict[str, Any]:
        """Return what the run's configuration records of it."""
        names = ("parent_run", "parent_split_fingerprint", "split_override", "heldout_trained_on")
        return {name: getattr(self, name) for name in names}


def find_parent(config: TrialConfig) -> tuple[Path, Checkpoint] | None:
    """Load the checkpoint that a trial starts from: that file, or last.pt (resume) or best.pt (init) of that folder.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    given = config.resume_from or config.init_from
    if given is None:
        return None
    path = Path(given)
    if path.is_dir():
        path /= LAST if config.resume_from else BEST
    return path, load_checkpoint(path)


def trace_lineage(
    config: TrialConfig,
    own: SplitFacts,
    parent: Checkpoint | None,
    data: RadioMLFile,
    selection: Selection,
    split: Split,
) -> Lineage:
    """Say where the weights come from, and refuse those that have seen frames of another split.

    Raises:
        ConfigError: another split is among what the weights were trained on, and ``allow_split_change`` is false; the
            message names both and the share of the held-out frames that they have seen.
    """
    if parent is None:
        return Lineage(None, None, (own,), split_override=False, heldout_trained_on=0.0)
    trained_on = [SplitFacts.from_mapping(facts) for facts in parent.trained_on]
    foreign = [facts for facts in trained_on if facts.split_fingerprint != own.split_fingerprint]
    heldout_M = selection.rows[np.concatenate([split.val, split.test])]
    share = _share_trained_on(heldout_M, foreign, data)
    was, now = _classes(trained_on[-1]), _classes(own)
    fresh_heads = tuple(head for head in now if now[head] != was[head])
    if foreign and not config.allow_split_change:
        raise ConfigError([_refusal(config, own, foreign, share, len(heldout_M), other_classes=bool(fresh_heads))])
    return Lineage(
        parent_run=parent.run,
        parent_split_fingerprint=parent.split_fingerprint,
        trained_on=(*(facts for facts in trained_on if facts != own), own),
        split_override=bool(foreign),
        heldout_trained_on=share,
        fresh_heads=fresh_heads,
    )


def require_same_trial(config: TrialConfig, parent: Checkpoint, own: SplitFacts) -> None:
    """Refuse to continue a trial with other settings than it had.

    Raises:
        ConfigError: naming every setting that differs. Where a split change is allowed, the split may, but not the
            classes, and epochs must be left to train and to validate on it.
    """
    may_differ = _MAY_DIFFER | (set(_OF_THE_SPLIT) if config.allow_split_change else set())
    now = config.to_mapping()
    problems = [
        f"resume_from: {name} was {was!r} and is {now[name]!r}; an exact continuation keeps it, init_from starts a new "
        "trial from the weights"
        for name, was in parent.config.items()
        if name in now and name not in may_differ and now[name] != current_value(name, was)
    ]
    was_classes, classes = _classes(SplitFacts.from_mapping(parent.trained_on[-1])), _classes(own)
    problems += [
        f"resume_from: the classes of the {head} were {was_classes[head]} and are {classes[head]}; resume_from cannot "
        "change the classes; init_from starts fresh heads"
        for head in classes
        if classes[head] != was_classes[head]
    ]
    if parent.split_fingerprint != own.split_fingerprint and parent.epoch >= config.epochs:
        problems.append(
            f"resume_from: all {config.epochs} epochs were done on split {parent.split_fingerprint}: none is left to "
            f"choose a checkpoint on {own.split_fingerprint}; raise epochs, or start a new trial with init_from"
        )
    if problems:
        raise ConfigError(problems)


def load_weights(model: nn.Module, parent: Checkpoint, path: Path, *, fresh_heads: Sequence[str] = ()) -> None:
    """Copy a checkpoint's weights into a model.

    Args:
        fresh_heads: these parts stay as the model has them: their outputs mean other classes.

    Raises:
        ConfigError: the checkpoint is of another network.
    """
    fresh = tuple(f"{head}." for head in fresh_heads)
    own = model.state_dict()
    weights = {name: tensor for name, tensor in parent.model.items() if not name.startswith(fresh)}
    weights |= {name: tensor for name, tensor in own.items() if name.startswith(fresh)}
    differing = sorted(own.keys() ^ weights.keys()) or sorted(
        name for name in own if own[name].shape != weights[name].shape
    )
    if differing:
        was = {name: parent.config.get(name) for name in ("model_type", "snr_layer", "representation", "image_size")}
        described = ", ".join(f"{name} {value}" for name, value in was.items())
        raise ConfigError(
            [
                f"{path}: weights of another network ({described}): {len(differing)} tensors do not fit, the first is "
                f"{differing[0]}; use the same network, or another checkpoint"
            ]
        )
    model.load_state_dict(weights)


def _classes(facts: SplitFacts) -> dict[str, str]:
    """Describe what each head tells apart."""
    return {
        "modulation_head": f"those of label_set {facts.label_set}",
        "snr_head": f"{', '.join(map(str, facts.levels_db))} dB",
    }


def _share_trained_on(
    heldout_rows_M: npt.NDArray[np.int64], foreign: Sequence[SplitFacts], data: RadioMLFile
) -> float | None:
    """Return the share of rows that lie in the training part of any of these splits; None for those of other files."""
    if any(facts.data_fingerprint != data.fingerprint for facts in foreign):
        return None
    seen_M = np.zeros(len(heldout_rows_M), dtype=bool)
    for facts in foreign:
        selection = select(data, facts.label_set, facts.snr_min_db, facts.snr_max_db)
        train = stratified_split(selection, facts.split, facts.split_seed).train
        seen_M |= np.isin(heldout_rows_M, selection.rows[train])
    return float(seen_M.mean())


def _refusal(
    config: TrialConfig,
    own: SplitFacts,
    foreign: Sequence[SplitFacts],
    share: float | None,
    n_heldout: int,
    *,
    other_classes: bool,
) -> str:
    field = "resume_from" if config.resume_from else "init_from"
    others = " and ".join(str(facts) for facts in foreign)
    if share is None:
        seen = "these are different data files, so that nobody can say which held-out frames they have seen"
    else:
        seen = f"{share:.1%} of the {n_heldout:,} held-out frames were trained on"
    if config.resume_from and other_classes:
        way = "resume_from cannot change the classes: init_from with allow_split_change: true starts fresh heads"
    else:
        way = "allow_split_change: true starts all the same"
    return (
        f"{field}: the weights were trained on split {others}, this trial has split {own}: {seen}. Use the same "
        f"label_set, SNR range, split and split_seed; {way}, and marks the run"
    )
