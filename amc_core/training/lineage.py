"""Whether a trial may start from a checkpoint: same settings, same network, and no held-out frames trained on.

A network that was trained on some of the validation frames scores too high. In the 2025 research log, vocal-glade-228
resumed an 80/10/10 checkpoint on a 70/20/10 split: a third of its held-out frames had been trained on. Its accuracy
jumped from 47.5% to 52.5%, and this was read as a distribution mismatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from amc_core.config import SIGNAL_REPRESENTATIONS, ConfigError, TrialConfig, current_value, former_settings
from amc_core.data.radioml import RadioMLFile, Selection, select
from amc_core.data.splits import Split, stratified_split
from amc_core.files import is_folder
from amc_core.modulations import label_set_text
from amc_core.training.checkpoint import BEST, LAST, Checkpoint, load_checkpoint
from amc_sweeps.number_formats import quoted, shortened

# Settings that a continued trial may change: places of files, and when to end.
_MAY_DIFFER = {
    *("data", "storage", "epochs", "patience", "min_cycles", "compile", "micro_batch_size"),
    *("init_from", "resume_from", "allow_split_change"),
}
_SPLIT_SETTINGS = {"label_set", "snr_min_db", "snr_max_db", "split", "split_seed"}


@dataclass(frozen=True)
class SplitFacts:
    """The facts that are needed to divide the same file in the same way again."""

    split_fingerprint: str
    data_fingerprint: str
    label_set: str
    snr_min_db: int
    snr_max_db: int
    levels_db: tuple[int, ...]  # the SNR classes: the file's levels in that range
    split: tuple[float, float, float]
    split_seed: int

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> SplitFacts:
        return cls(**{**values, "split": tuple(values["split"]), "levels_db": tuple(values["levels_db"])})

    def to_mapping(self) -> dict[str, Any]:
        return {**asdict(self), "split": list(self.split), "levels_db": list(self.levels_db)}

    def __str__(self) -> str:
        ratios = "/".join(f"{fraction:.0%}" for fraction in self.split).replace("%", "")
        return (
            f"{self.split_fingerprint} ({label_set_text(self.label_set)}, {self.snr_min_db}..{self.snr_max_db} dB, "
            f"{ratios}, "
            f"seed {self.split_seed})"
        )


@dataclass(frozen=True)
class Lineage:
    """The origin of a trial's weights."""

    parent_run: str | None
    parent_split_fingerprint: str | None
    trained_on: tuple[SplitFacts, ...]  # this trial's own split is the last one
    split_override: bool  # the user allowed weights that were trained on other splits
    heldout_trained_on: float | None  # share of the held-out frames; None: unknown, because of another file
    fresh_heads: tuple[str, ...] = ()  # parts of the model with other classes than the parent's
    input_override: bool = False  # the user allowed weights that were trained on another input

    def facts(self) -> dict[str, Any]:
        """Return the part that the run's configuration records."""
        names = ("parent_run", "parent_split_fingerprint", "split_override", "heldout_trained_on", "input_override")
        return {name: getattr(self, name) for name in names}


def find_parent(config: TrialConfig) -> tuple[Path, Checkpoint] | None:
    """Return the checkpoint that a trial starts from: a file, or last.pt (resume) or best.pt (init) of a folder.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    start = config.resume_from or config.init_from
    if start is None:
        return None
    path = Path(start)
    if is_folder(path):
        path /= LAST if config.resume_from else BEST
    return path, load_checkpoint(path)


def trace_lineage(
    config: TrialConfig,
    own_split: SplitFacts,
    parent: Checkpoint | None,
    data: RadioMLFile,
    selection: Selection,
    split: Split,
) -> Lineage:
    """Return the origin of the weights; refuse weights that were trained on another split or, to init, another input.

    Raises:
        ConfigError: ``allow_split_change`` is false, and the weights were trained on another split (the message has
            both splits and the share of the held-out frames that were trained on), or ``init_from`` gives them another
            input (the message has both).
    """
    if parent is None:
        return Lineage(None, None, (own_split,), split_override=False, heldout_trained_on=0.0)
    trained_on = [SplitFacts.from_mapping(facts) for facts in parent.trained_on]
    other_splits = [facts for facts in trained_on if facts.split_fingerprint != own_split.split_fingerprint]
    heldout_M = selection.rows[np.concatenate([split.val, split.test])]
    share = _share_trained_on(heldout_M, other_splits, data)
    parent_classes, classes = _classes(trained_on[-1]), _classes(own_split)
    fresh_heads = tuple(head for head in classes if classes[head] != parent_classes[head])
    other_input = _other_input(config, parent) if config.init_from else ""  # resume_from refuses any other setting
    problems = [other_input] if other_input else []
    if other_splits:
        other_classes = bool(fresh_heads)
        problems.append(_refusal(config, own_split, other_splits, share, len(heldout_M), other_classes=other_classes))
    if problems and not config.allow_split_change:
        raise ConfigError(problems)
    return Lineage(
        parent_run=parent.run,
        parent_split_fingerprint=parent.split_fingerprint,
        trained_on=(*(facts for facts in trained_on if facts != own_split), own_split),
        split_override=bool(other_splits),
        heldout_trained_on=share,
        fresh_heads=fresh_heads,
        input_override=bool(other_input),
    )


def require_same_trial(config: TrialConfig, parent: Checkpoint, own_split: SplitFacts) -> None:
    """Refuse to continue a trial with other settings.

    Raises:
        ConfigError: with every setting that differs. Where a split change is allowed, the split may differ, but not the
            classes, and at least one epoch must be left.
    """
    may_differ = _MAY_DIFFER | (_SPLIT_SETTINGS if config.allow_split_change else set())
    if config.lr_schedule == "cosine":
        may_differ -= {"epochs"}  # every learning rate depends on it
    own_settings = config.to_mapping()
    problems = [
        f"resume_from: {name} was {quoted(value)}"
        f"{'' if name in parent.config else ' (the checkpoint is older than it)'} and is "
        f"{quoted(own_settings[name])}; use the old value, or start a new trial from the weights with init_from"
        for name, value in _settings(parent).items()
        if name in own_settings and name not in may_differ and own_settings[name] != current_value(name, value)
    ]
    parent_classes, classes = _classes(SplitFacts.from_mapping(parent.trained_on[-1])), _classes(own_split)
    problems += [
        f"resume_from: the classes of the {head} were {shortened(parent_classes[head])} and are "
        f"{shortened(classes[head])}; resume_from cannot change the classes; init_from starts fresh heads"
        for head in classes
        if classes[head] != parent_classes[head]
    ]
    if parent.split_fingerprint != own_split.split_fingerprint and parent.epoch >= config.epochs:
        problems.append(
            f"resume_from: epochs = {config.epochs} was reached on split {parent.split_fingerprint}: no epoch is left "
            f"for split {own_split.split_fingerprint}; raise epochs, or start a new trial with init_from"
        )
    if problems:
        raise ConfigError(problems)


def load_weights(model: nn.Module, parent: Checkpoint, path: Path, *, fresh_heads: Sequence[str] = ()) -> None:
    """Copy a checkpoint's weights into a model.

    Args:
        fresh_heads: parts that keep the model's own weights, because their outputs mean other classes.

    Raises:
        ConfigError: the checkpoint belongs to another network.
    """
    prefixes = tuple(f"{head}." for head in fresh_heads)
    own_weights = model.state_dict()
    weights = {name: tensor for name, tensor in parent.model.items() if not name.startswith(prefixes)}
    weights |= {name: tensor for name, tensor in own_weights.items() if name.startswith(prefixes)}
    differences = sorted(own_weights.keys() ^ weights.keys()) or sorted(
        name for name in own_weights if own_weights[name].shape != weights[name].shape
    )
    if differences:
        names = ("model_type", "snr_layer", "representation", "image_size")
        network = ", ".join(f"{name} {parent.config.get(name)}" for name in names)
        problem = (
            f"{path}: weights of another network ({network}); tensors that do not fit: {len(differences)}, such as "
            f"{differences[0]}; use the same network, or another checkpoint"
        )
        raise ConfigError([problem])
    model.load_state_dict(weights)


def trained_rows(splits: Iterable[SplitFacts], data: RadioMLFile) -> npt.NDArray[np.int64]:
    """Return the rows of this file that are in the training part of any of these splits, increasing."""
    rows = [np.zeros(0, dtype=np.int64)]
    for facts in splits:
        if facts.data_fingerprint == data.fingerprint:
            selection = select(data, facts.label_set, facts.snr_min_db, facts.snr_max_db)
            rows.append(selection.rows[stratified_split(selection, facts.split, facts.split_seed).train])
    return np.unique(np.concatenate(rows))


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint's settings; for fields younger than it, what trials did before: mostly the default."""
    return {**TrialConfig().to_mapping(), **former_settings(checkpoint.config), **checkpoint.config}


def _other_input(config: TrialConfig, parent: Checkpoint) -> str:
    """Return how the input differs from the one that the weights were trained on; empty: it is the same."""
    before, own_settings = _settings(parent), config.to_mapping()
    names = ["representation"]
    if config.representation not in SIGNAL_REPRESENTATIONS:
        names += ["image_size", "histogram_range", "histogram_norm", "carrier_range"]
    changes = [f"{name} was {quoted(before[name])} and is {quoted(own_settings[name])}" for name in names]
    changes = [change for change, name in zip(changes, names, strict=True) if before[name] != own_settings[name]]
    if not changes:
        return ""
    return (
        f"init_from: the weights were trained on another input: {'; '.join(changes)}. The network would see inputs "
        "that it never learned. Use the old values; allow_split_change: true starts anyway where the network takes the "
        "new input, and marks the run"
    )


def _classes(facts: SplitFacts) -> dict[str, str]:
    return {
        "modulation_head": f"those of label_set {facts.label_set}",
        "snr_head": f"{', '.join(map(str, facts.levels_db))} dB",
    }


def _share_trained_on(
    heldout_rows_M: npt.NDArray[np.int64], other_splits: Sequence[SplitFacts], data: RadioMLFile
) -> float | None:
    """Return the share of rows in the training part of any of these splits; None for splits of other files."""
    if any(facts.data_fingerprint != data.fingerprint for facts in other_splits):
        return None
    return float(np.isin(heldout_rows_M, trained_rows(other_splits, data)).mean())


def _refusal(
    config: TrialConfig,
    own_split: SplitFacts,
    other_splits: Sequence[SplitFacts],
    share: float | None,
    n_heldout: int,
    *,
    other_classes: bool,
) -> str:
    field = "resume_from" if config.resume_from else "init_from"
    splits = " and ".join(str(facts) for facts in other_splits)
    if share is None:
        effect = "these are different data files, so it is unknown which held-out frames were trained on"
    else:
        effect = f"{share:.2%} of the {n_heldout:,} held-out frames were trained on"
    if config.resume_from and other_classes:
        way = "resume_from cannot change the classes: init_from with allow_split_change: true starts fresh heads"
    else:
        way = "allow_split_change: true starts anyway"
    return (
        f"{field}: the weights were trained on split {splits}, this trial has split {own_split}: {effect}. Use the "
        f"same label_set, SNR range, split and split_seed; {way}, and marks the run"
    )
