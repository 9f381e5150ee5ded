"""One pass over frames: optimiser steps with accumulated gradients, or an evaluation. Both can be asked to end.

In names: B frames of a batch, X whatever shape a model takes, K modulations, L SNR levels, M positions.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from amc_core.config import ConfigError, TrialConfig
from amc_core.data.feed import Feed
from amc_core.data.radioml import Selection
from amc_core.modulations import CLASSES
from amc_core.training.evaluation import Evaluation
from amc_core.training.losses import MultiTaskLoss

__all__ = [
    "Diverged",
    "Pass",
    "Precision",
    "Trial",
    "divided",
    "evaluate",
    "make_optimiser",
    "too_few_frames",
    "train_epoch",
]

Positions = npt.NDArray[np.int64]

# How many steps may pass before the NaN guard looks. A look waits for the GPU, so that it should be rare there; on the
# CPU it is free.
_GUARD_EVERY = {"cuda": 50, "cpu": 1}


class Diverged(RuntimeError):  # noqa: N818 - what happened, not what was done wrong
    """The loss or a weight is NaN or infinite; no checkpoint of that state was written."""


@dataclass(frozen=True)
class Trial:
    """What stays the same while a trial runs."""

    config: TrialConfig
    device: torch.device
    selection: Selection
    feed: Feed
    model: nn.Module  # owns the weights
    forward: Callable[[Tensor], tuple[Tensor, Tensor]]  # the model, or its compiled form
    criterion: MultiTaskLoss
    micro_batch_frames: int  # frames a forward pass


class Precision:
    """Mixed precision on CUDA: bfloat16 where the GPU computes in it, else float16 with a scaled loss."""

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        self.enabled = config.amp and device.type == "cuda"
        native_bfloat16 = self.enabled and torch.cuda.get_device_capability(device) >= (8, 0)
        self._device_type = device.type
        self.dtype = torch.bfloat16 if native_bfloat16 or not self.enabled else torch.float16
        # Only float16 has so little range that gradients vanish in it.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.enabled and not native_bfloat16)

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(self._device_type, dtype=self.dtype, enabled=self.enabled)


class Pass:
    """How far a pass over frames has come: steps, time, sum of losses and joint confusion, kept on the device.

    Nothing here waits for the device before ``evaluation`` or ``state_dict``.
    """

    def __init__(self, selection: Selection, device: torch.device) -> None:
        self._modulations = tuple(CLASSES[column] for column in selection.columns)
        self._levels_db = selection.levels_db
        self.steps_done = 0
        self.seconds = 0.0
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        n_cells = (len(self._modulations) * len(self._levels_db)) ** 2
        self._joint = torch.zeros(n_cells, dtype=torch.int64, device=device)
        self._ones = torch.ones(0, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(self, loss: Tensor, guess: tuple[Tensor, Tensor], modulation_B: Tensor, snr_B: Tensor) -> None:
        """Count one batch: its mean loss, and the guessed against the true classes."""
        n_modulations, n_levels = len(self._modulations), len(self._levels_db)
        true_B = snr_B.add(modulation_B, alpha=n_levels)
        guess_B = guess[1].add(guess[0], alpha=n_levels)
        if len(self._ones) != len(snr_B):
            self._ones = torch.ones_like(snr_B)
        # Whole numbers, so that the order in which a GPU adds them does not matter.
        self._joint.scatter_add_(0, guess_B.add(true_B, alpha=n_modulations * n_levels), self._ones)
        self._loss_sum.add_(loss, alpha=len(snr_B))  # in float64, as the sum is

    def is_finite(self) -> bool:
        """Wait for the device and say whether every loss so far was finite: a sum keeps what is not."""
        return math.isfinite(float(self._loss_sum))

    def evaluation(self) -> Evaluation:
        """Wait for the device and return what was counted."""
        shape = (len(self._modulations), len(self._levels_db)) * 2
        joint_KLKL = self._joint.cpu().numpy().reshape(shape)
        return Evaluation(
            modulations=self._modulations,
            levels_db=self._levels_db,
            joint=joint_KLKL.copy(),  # the tensor goes on being counted in
            loss=float(self._loss_sum) / max(int(joint_KLKL.sum()), 1),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint in the middle of the pass needs."""
        return {
            "steps_done": self.steps_done,
            "seconds": self.seconds,
            "loss_sum": self._loss_sum,
            "joint": self._joint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was written."""
        self.steps_done, self.seconds = int(state["steps_done"]), float(state["seconds"])
        self._loss_sum.copy_(state["loss_sum"])
        self._joint.copy_(state["joint"])


def make_optimiser(trial: Trial) -> torch.optim.AdamW:
    """Return AdamW; biases, norms and log-variances have no scale to be decayed to, only matrices and kernels are."""
    parameters = [*trial.model.parameters(), *trial.criterion.parameters()]
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.ndim >= 2],
            "weight_decay": trial.config.weight_decay,
        },
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=trial.config.base_lr, fused=True)


def train_epoch(
    trial: Trial,
    optimiser: torch.optim.Optimizer,
    precision: Precision,
    positions_M: Positions,
    *,
    done: Pass,
    rate: Callable[[float], float],
    where: str,
    should_stop: Callable[[], str | None],
    show: Callable[[float], None],
) -> str | None:
    """Train on the positions in their order, from the step on that ``done`` has come to; return a reason to stop.

    Args:
        rate: the learning rate at a fraction of the epoch.
        where: names the epoch in an error.
        should_stop: asked before every optimiser step. A stop leaves whole steps: ``done``, the weights, the optimiser
            and torch's random numbers are those after the last one.
        show: told the fraction of the epoch.

    Raises:
        Diverged: the loss is not finite.
        ConfigError: batch norm cannot do with so few frames.
    """
    config = trial.config
    steps = _chunks(positions_M, config.batch_size)
    if len(steps) > 1 and len(steps[-1]) < config.batch_size:
        # Batch norm on a few left-over frames is noise, and on one an error; the next shuffle brings them back.
        steps.pop()
    micro_steps = [divided(step, trial.micro_batch_frames) for step in steps]

    trial.model.train()
    guard_every = _GUARD_EVERY[trial.device.type]
    known_finite = done.steps_done

    def require_finite(last: int) -> None:
        nonlocal known_finite
        if not done.is_finite():
            first = known_finite + 1
            place = f"step {last}" if first >= last else f"one of the steps {first} to {last}"
            raise Diverged(
                f"the training loss is not finite in {where}, {place} of {len(steps)}, learning rate "
                f"{rate((last - 1) / len(steps)):.3g}"
            )
        known_finite = last

    started = time.perf_counter() - done.seconds
    batches = trial.feed.batches([chunk for chunks in micro_steps[done.steps_done :] for chunk in chunks])
    with contextlib.closing(batches):
        for step in range(done.steps_done, len(steps)):
            if reason := should_stop():
                require_finite(step)  # between two looks of the guard the loss may have gone
                return reason
            for group in optimiser.param_groups:
                group["lr"] = rate(step / len(steps))
            optimiser.zero_grad(set_to_none=True)

            for chunk in micro_steps[step]:
                batch = next(batches)
                with precision.autocast():
                    try:
                        output = trial.forward(batch.input)
                    except ValueError as error:
                        if refusal := too_few_frames(error, config, len(chunk)):
                            raise refusal from error
                        raise
                loss = trial.criterion(*output, batch.modulation, batch.snr)
                precision.scaler.scale(loss * (len(chunk) / len(steps[step]))).backward()
                done.add(loss.detach(), trial.criterion.guess(*output), batch.modulation, batch.snr)

            # The guard looks before the step, so that on the CPU the weights of a diverged step are never taken.
            if step % guard_every == 0 or step == len(steps) - 1:
                require_finite(step + 1)
            if config.grad_clip_norm is not None:
                precision.scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(trial.model.parameters(), config.grad_clip_norm)
            precision.scaler.step(optimiser)
            precision.scaler.update()
            done.steps_done = step + 1
            done.seconds = time.perf_counter() - started
            show((step + 1) / len(steps))
    return None


@torch.no_grad()
def evaluate(
    trial: Trial, precision: Precision, positions_M: Positions, *, should_stop: Callable[[], str | None]
) -> Evaluation | str:
    """Guess every position once; return what was found, or a reason to stop."""
    trial.model.eval()
    done = Pass(trial.selection, trial.device)
    chunks = _chunks(positions_M, trial.micro_batch_frames)
    with contextlib.closing(trial.feed.batches(chunks)) as batches:
        for batch in batches:
            if reason := should_stop():
                return reason
            with precision.autocast():
                output = trial.forward(batch.input)
            loss = trial.criterion(*output, batch.modulation, batch.snr)
            done.add(loss, trial.criterion.guess(*output), batch.modulation, batch.snr)
    return done.evaluation()


def too_few_frames(error: ValueError, config: TrialConfig, n_frames: int) -> ConfigError | None:
    """Return torch's refusal to normalise one value in the configuration's words, None for any other error."""
    if "more than 1 value per channel" not in str(error):
        return None
    return ConfigError(
        [
            f"batch_size: batch norm needs more than one value a channel, and {config.model_type} at image_size "
            f"{config.image_size} leaves it one in a forward pass of {n_frames} frame; use batch_size >= 2 with "
            "micro_batch_size auto, null or >= 2, or a larger image_size"
        ]
    )


def divided(positions_B: Positions, micro_frames: int) -> list[Positions]:
    """Divide a batch into chunks of nearly one size, at most ``micro_frames``.

    None has a single frame while the batch has more, because batch norm may need two: an odd batch that is divided into
    twos has a chunk of three.
    """
    n_chunks = math.ceil(len(positions_B) / micro_frames)
    if micro_frames > 1:
        n_chunks = max(1, min(n_chunks, len(positions_B) // 2))
    return np.array_split(positions_B, n_chunks)


def _chunks(positions_M: Positions, size: int) -> list[Positions]:
    return [positions_M[start : start + size] for start in range(0, len(positions_M), size)]
