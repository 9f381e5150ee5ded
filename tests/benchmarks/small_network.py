"""One small network for many studies: its frames, its training in a fixed number of steps, its test.

A training takes 700 steps of 128 frames. Optimiser: AdamW (weight decay 1e-3), OneCycle to the configuration's
``max_lr`` (15% rise), the plain sum of both tasks' losses. Nothing is selected on the test frames.

In names: B frames, T = 1024 samples, C = I and Q.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from amc_core.config import SIGNAL_NETWORKS, TrialConfig
from amc_core.inputs.augmentation import N_DRAWS, Augmentation
from amc_core.inputs.representations import Representation, laid_out
from amc_core.models.classifier import Classifier, build_model
from amc_core.modulations import CLASSES, DIGITAL17
from amc_core.synthesis.frames import Recipe, synthesise_frames
from amc_core.training.losses import MultiTaskLoss

NAMES = tuple(CLASSES[column] for column in DIGITAL17)
LEVELS_DB = tuple(range(0, 31, 2))
STEPS, BATCH = 700, 128
FRAMES_PER_CELL = -(-STEPS * BATCH // (len(NAMES) * len(LEVELS_DB)))  # 330: 89,760 frames
TEST_FRAMES_PER_CELL = 25
TEST_SEED = 1_000_000
MAX_LR = 3e-3

Batch = tuple[Tensor, Tensor, Tensor]  # (B, T, C), the classes (B,) and the levels (B,)


@dataclass(frozen=True)
class Outcome:
    """One network's accuracies on test frames, in percent."""

    modulation: float
    snr: float
    joint: float
    joint_by_level: tuple[float, ...]
    joint_by_class: tuple[float, ...]
    modulation_by_class: tuple[float, ...]


@dataclass(frozen=True)
class Frames:
    """Frames with their labels."""

    iq: Tensor  # (B, T, C)
    modulation: Tensor  # (B,)
    snr: Tensor  # (B,)

    def batches(self, seed: int, size: int = BATCH) -> Iterator[Batch]:
        """Yield whole batches without an end, every epoch in another order."""
        for epoch in itertools.count():
            generator = torch.Generator().manual_seed(1000 * seed + epoch)
            order_B = torch.randperm(len(self.iq), generator=generator)
            for index_B in order_B.split(size)[: len(order_B) // size]:
                yield self.iq[index_B], self.modulation[index_B], self.snr[index_B]

    def parts(self, size: int) -> Iterator[Batch]:
        """Yield all frames once."""
        for start in range(0, len(self.iq), size):
            part = slice(start, start + size)
            yield self.iq[part], self.modulation[part], self.snr[part]


@dataclass
class Network:
    """A network with its input."""

    represent: Representation
    model: Classifier
    augmentation: Augmentation | None
    losses: list[float]  # of all steps
    cpu_s: float = 0.0  # of all steps, without making the frames

    def __call__(self, iq_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of both tasks."""
        outputs: tuple[Tensor, Tensor] = self.model(laid_out(self.represent(iq_BTC)))
        return outputs


def small_config(representation: str, **changes: object) -> TrialConfig:
    """Return the configuration of the small network for this input."""
    model = {"iq": "iq_convnet", "amplitude_phase": "lstm2"}.get(representation, "amc_convnet")
    given = {"representation": representation, "model_type": model, "dropout": 0.0, "max_lr": MAX_LR}
    return TrialConfig.from_mapping({**given, **changes})


def synthesise(
    recipe: Recipe,
    frames_per_cell: int,
    seed: int,
    names: Sequence[str] = NAMES,
    levels_db: Sequence[int] = LEVELS_DB,
) -> Frames:
    """Make the same number of frames of every modulation and SNR level."""
    cells = [(index, CLASSES.index(name), level) for index, name in enumerate(names) for level in levels_db]
    frames = [
        synthesise_frames(CLASSES[column], level, frames_per_cell, np.random.default_rng([seed, column, level]), recipe)
        for _, column, level in cells
    ]
    modulation = torch.tensor([index for index, _, _ in cells]).repeat_interleave(frames_per_cell)
    snr = torch.tensor([levels_db.index(level) for _, _, level in cells]).repeat_interleave(frames_per_cell)
    return Frames(torch.from_numpy(np.concatenate(frames)), modulation, snr)


def new_network(
    config: TrialConfig, seed: int, names: Sequence[str] = NAMES, n_levels: int = len(LEVELS_DB)
) -> Network:
    """Return an untrained network."""
    torch.manual_seed(seed)
    model = build_model(config, n_modulations=len(names), n_levels=n_levels)
    if config.model_type not in SIGNAL_NETWORKS:
        model = model.to(memory_format=torch.channels_last)
    return Network(Representation(config), model, Augmentation(names) if config.augment else None, [])


def train(
    config: TrialConfig, frames: Frames, seed: int, *, names: Sequence[str] = NAMES, steps: int = STEPS
) -> Network:
    """Train a network from its random weights."""
    network = new_network(config, seed, names)
    criterion = MultiTaskLoss(config, LEVELS_DB)
    optimiser = torch.optim.AdamW(network.model.parameters(), lr=config.max_lr, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=config.max_lr, total_steps=steps, pct_start=0.15)
    draws, begun = torch.Generator().manual_seed(seed), time.process_time()
    for iq_BTC, modulation_B, snr_B in itertools.islice(frames.batches(seed), steps):
        take_step(network, criterion, optimiser, (iq_BTC, modulation_B, snr_B), draws)
        schedule.step()
    network.cpu_s = time.process_time() - begun
    return network


def take_step(
    network: Network,
    criterion: MultiTaskLoss,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    draws: torch.Generator,
) -> None:
    """Take one optimiser step, and keep its loss."""
    iq_BTC, modulation_B, snr_B = batch
    if network.augmentation is not None:
        iq_BTC = network.augmentation(iq_BTC, torch.rand(len(iq_BTC), N_DRAWS, generator=draws), modulation_B)
    loss = criterion.task_losses(*network(iq_BTC), modulation_B, snr_B).sum()
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    network.losses.append(float(loss.detach()))


@torch.no_grad()
def score(network: Network, frames: Frames, *, n_classes: int = len(NAMES), n_levels: int = len(LEVELS_DB)) -> Outcome:
    """Return the accuracies on all frames; every class and level has some."""
    network.model.eval()
    hits = [
        (modulation_logits.argmax(dim=1) == modulation_B, snr_logits.argmax(dim=1) == snr_B)
        for iq_BTC, modulation_B, snr_B in frames.parts(512)
        for modulation_logits, snr_logits in [network(iq_BTC)]
    ]
    modulation_B, snr_B = (torch.cat(parts) for parts in zip(*hits, strict=True))
    joint_B = modulation_B & snr_B

    def by(label_B: Tensor, hit_B: Tensor, n: int) -> tuple[float, ...]:
        shares = 100 * torch.bincount(label_B[hit_B], minlength=n) / torch.bincount(label_B, minlength=n)
        return tuple(shares.tolist())

    return Outcome(
        *(100 * float(hit_B.float().mean()) for hit_B in (modulation_B, snr_B, joint_B)),
        joint_by_level=by(frames.snr, joint_B, n_levels),
        joint_by_class=by(frames.modulation, joint_B, n_classes),
        modulation_by_class=by(frames.modulation, modulation_B, n_classes),
    )
