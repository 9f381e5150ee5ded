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

from amc_core.config import TrialConfig
from amc_core.evaluation import Evaluation
from amc_core.feed import Feed
from amc_core.losses import MultiTaskLoss
from amc_core.modulations import CLASSES
from amc_core.radioml import Selection

__all__ = ["Diverged", "Pass", "Precision", "Trial", "evaluate", "largest_that_fits", "make_optimiser", "train_epoch"]

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
        self._dtype = torch.bfloat16 if native_bfloat16 or not self.enabled else torch.float16
        # Only float16 has so little range that gradients vanish in it.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.enabled and not native_bfloat16)

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(self._device_type, dtype=self._dtype, enabled=self.enabled)


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
        true_B = modulation_B * n_levels + snr_B
        guess_B = guess[0] * n_levels + guess[1]
        if len(self._ones) != len(snr_B):
            self._ones = torch.ones_like(snr_B)
        # Whole numbers, so that the order in which a GPU adds them does not matter.
        self._joint.scatter_add_(0, true_B * (n_modulations * n_levels) + guess_B, self._ones)
        self._loss_sum += loss.double() * len(snr_B)

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
    """
    config = trial.config
    steps = _chunks(positions_M, config.batch_size)
    if len(steps) > 1 and len(steps[-1]) < config.batch_size:
        # Batch norm on a few left-over frames is noise, and on one an error; the next shuffle brings them back.
        steps.pop()
    micro_steps = [np.array_split(step, math.ceil(len(step) / trial.micro_batch_frames)) for step in steps]

    trial.model.train()
    first_bad_step = torch.full((), len(steps), device=trial.device)  # on the device: noticing NaN must not wait
    guard_every = _GUARD_EVERY[trial.device.type]

    def require_finite() -> None:
        if (bad := int(first_bad_step)) < len(steps):
            raise Diverged(
                f"the training loss is not finite in {where}, step {bad + 1} of {len(steps)}, learning rate "
                f"{rate(bad / len(steps)):.3g}"
            )

    started = time.perf_counter() - done.seconds
    batches = trial.feed.batches([chunk for chunks in micro_steps[done.steps_done :] for chunk in chunks])
    with contextlib.closing(batches):
        for step in range(done.steps_done, len(steps)):
            if reason := should_stop():
                require_finite()  # between two looks of the guard the loss may have gone
                return reason
            for group in optimiser.param_groups:
                group["lr"] = rate(step / len(steps))
            optimiser.zero_grad(set_to_none=True)

            for chunk in micro_steps[step]:
                batch = next(batches)
                with precision.autocast():
                    output = trial.forward(batch.input)
                loss = trial.criterion(*output, batch.modulation, batch.snr)
                precision.scaler.scale(loss * (len(chunk) / len(steps[step]))).backward()
                done.add(loss.detach(), trial.criterion.guess(*output), batch.modulation, batch.snr)
                bad_step = torch.where(torch.isfinite(loss.detach()), len(steps), step)
                first_bad_step = torch.minimum(first_bad_step, bad_step)

            # The guard looks before the step, so that on the CPU the weights of a diverged step are never taken.
            if step % guard_every == 0 or step == len(steps) - 1:
                require_finite()
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


def largest_that_fits(batch_size: int, attempt: Callable[[int], None]) -> int:
    """Halve the batch until ``attempt`` runs through without CUDA's out-of-memory error; return its size.

    Raises:
        torch.OutOfMemoryError: not even one frame fits.
    """
    size = batch_size
    while True:
        try:
            attempt(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size = math.ceil(size / 2)
        else:
            return size


def micro_batch_frames(
    config: TrialConfig,
    device: torch.device,
    model: nn.Module,
    forward: Callable[[Tensor], tuple[Tensor, Tensor]],
    input_1X: Tensor,
) -> int:
    """Return the frames of a forward pass: what the configuration says, or, for ``auto``, what the GPU has room for.

    The probe runs one forward and backward pass with room set aside for the two moments of AdamW, and leaves weights,
    running means and random numbers as they were.
    """
    if isinstance(config.micro_batch_size, int):
        return config.micro_batch_size
    if config.micro_batch_size is None or device.type != "cuda":
        return config.batch_size
    precision = Precision(config, device)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def attempt(size: int) -> None:
        moments = [torch.empty_like(parameter) for parameter in model.parameters() for _ in range(2)]
        try:
            with precision.autocast():
                output = forward(input_1X.expand(size, *input_1X.shape[1:]).contiguous())
            sum(part.float().sum() for part in output).backward()  # type: ignore[union-attr]
        finally:
            model.zero_grad(set_to_none=True)
            moments.clear()
            torch.cuda.empty_cache()  # what a failed attempt cut into pieces does not fit the next one

    with torch.random.fork_rng(devices=[device]):
        model.train()
        size = largest_that_fits(config.batch_size, attempt)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return size


def _chunks(positions_M: Positions, size: int) -> list[Positions]:
    return [positions_M[start : start + size] for start in range(0, len(positions_M), size)]
