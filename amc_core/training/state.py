"""The parts of a trial that stay the same while it runs (TrainingContext), and those that change (TrainingState)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from amc_core.config import TrialConfig
from amc_core.data.feed import Feed
from amc_core.data.radioml import Selection
from amc_core.data.splits import Split
from amc_core.training.averaged_weights import AveragedWeights
from amc_core.training.lineage import Lineage, SplitFacts
from amc_core.training.losses import MultiTaskLoss
from amc_core.training.progress import Progress
from amc_core.training.step.counts import Counts
from amc_core.training.step.frame_step import FrameStep


class Diverged(RuntimeError):  # noqa: N818 - what happened, not what was done wrong
    """The loss or a weight is NaN or infinite; no checkpoint of that state was written."""


@dataclass(frozen=True)
class TrainingContext:
    """What stays the same while a trial runs."""

    config: TrialConfig
    device: torch.device
    selection: Selection
    split: Split  # positions in the selection
    split_facts: SplitFacts
    lineage: Lineage
    frames_in: str  # see RadioMLFile.hold
    file_facts: Mapping[str, Any]  # classes, levels that are used and that the file lacks, frames in two parts
    feed: Feed
    training_step: FrameStep
    evaluation_step: FrameStep  # the same network and loss with counts of its own
    is_compiled: bool  # both steps
    micro_batch_frames: int  # frames per forward pass of the training
    evaluation_frames: int  # frames per forward pass of an evaluation
    has_batch_norm: bool  # it normalises by the frames of a forward pass

    @property
    def model(self) -> nn.Module:
        """The network, which owns the weights."""
        return self.training_step.model

    @property
    def criterion(self) -> MultiTaskLoss:
        return self.training_step.criterion


class EpochTally:
    """Steps, time, gradient norms, losses and guesses of one epoch's training; tensors are on the device.

    Only ``gradient_norms`` and reading a state wait for the device.
    """

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        counts.reset()
        self.steps_done = 0
        self.seconds = 0.0  # of the steps, without compiling
        self.compile_s = 0.0  # in this process, before the first step
        # Sum, number and largest of gradient norms.
        self._norms = torch.zeros(3, dtype=torch.float64, device=counts.sums.device)

    @torch.no_grad()
    def add_gradient(self, norm: Tensor) -> None:
        """Count the gradient norm of one optimiser step; one that is not finite is left out.

        float16 with a scaled loss skips steps whose gradient overflowed.
        """
        is_finite = torch.isfinite(norm)
        kept = torch.where(is_finite, norm, 0.0)
        self._norms[:2] += torch.stack([kept, is_finite.to(kept.dtype)])
        self._norms[2] = torch.maximum(self._norms[2], kept)

    def gradient_norms(self) -> dict[str, float]:
        """Return the mean and the largest gradient norm of the steps so far, before clipping."""
        total, number, largest = self._norms.tolist()
        return {"grad_norm/mean": total / max(number, 1.0), "grad_norm/max": largest}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint in the middle of the pass needs."""
        return {
            "steps_done": self.steps_done,
            "seconds": self.seconds,
            "sums": self.counts.sums,
            "norms": self._norms,
            "joint": self.counts.joint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.steps_done, self.seconds = int(state["steps_done"]), float(state["seconds"])
        self.counts.joint.copy_(state["joint"])
        if "sums" in state:  # an older checkpoint has another sum; the losses are then those of the rest of the epoch
            self.counts.sums.copy_(state["sums"])
            self._norms.copy_(state["norms"])


class BadFrames:
    """Number of frames with NaN or infinite samples, from the representation's running count.

    A pass without a curriculum takes every frame once at most. So the largest count of one pass over a part is a number
    of frames, and a resumed trial gets the same one. It may be too low when the last batch is left out or with a
    ``strict`` curriculum. It may be too high with a ``sliding`` one, which draws some frames several times.

    Args:
        counter: the representation's tensor on the device. Reading it waits, which happens between passes only.
    """

    def __init__(self, counter: Tensor) -> None:
        self._counter = counter.zero_()
        self._most = {"train": 0, "val": 0, "test": 0}
        self._trained: int | None = None  # of the finished training pass whose validation is not finished

    def finish(self, part: str) -> int:
        """Return the count of the pass over this part, and begin the next pass."""
        count = int(self._counter)
        self._counter.zero_()
        self._most[part] = max(self._most[part], count)
        self._trained = count if part == "train" else None
        return count

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Count no frame inside."""
        before = self._counter.clone()
        try:
            yield
        finally:
            self._counter.copy_(before)

    def total(self) -> int:
        """Return the bad frames of all parts that finished passes have counted."""
        return sum(self._most.values())

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint inside the training pass, or after it, needs."""
        return {"most": dict(self._most), "trained": int(self._counter) if self._trained is None else self._trained}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self._most = dict(state["most"])
        self._counter.fill_(state["trained"])


class TrainingState:
    """The state of a trial. Together with the configuration and the data it decides every later step.

    Attributes:
        progress: complete epochs, and the best ones.
        tally: counts of the epoch that is being trained.
        average: of the weights, which validation, checkpoints and test use; None where ``ema_decay`` is 0.
        metrics: those of the last complete epoch; empty before the first one.
        compiled_for: numbers of frames of training passes that this process has compiled the step for.
    """

    def __init__(self, context: TrainingContext) -> None:
        self.context = context
        self.compiled_for: set[int] = set()
        self.optimiser = _adamw(context)
        self.precision = context.training_step.precision
        self.progress = Progress()
        decay = context.config.ema_decay
        self.average = AveragedWeights(context.model, decay) if decay else None
        self.metrics: dict[str, float] = {}
        self.start_counting()

    def start_counting(self) -> None:
        """Forget the counts of a part of an epoch."""
        self.start_epoch()
        self.bad_frames = BadFrames(self.context.training_step.representation.bad_frames)

    def start_epoch(self) -> None:
        """Count the next epoch from its first step."""
        self.tally = EpochTally(self.context.training_step.counts)

    def state_dict(self) -> dict[str, Any]:
        """Return the fields of a ``Checkpoint``, except the name of the run.

        ``model`` has the weights that are validated: with ``ema_decay`` the average. Then ``training`` has those that
        are trained. Both share batch norm's statistics, which are the average's, because training reads none.
        ``standing`` and ``pass`` are the names that checkpoints of format 3 have for progress and tally.
        """
        context, average = self.context, self.average
        return {
            "config": context.config.to_mapping(),
            "split_fingerprint": context.split_facts.split_fingerprint,
            "trained_on": [facts.to_mapping() for facts in context.lineage.trained_on],
            "epoch": self.progress.epoch,
            "steps_done": self.tally.steps_done,
            "metrics": self.metrics,
            "model": {**context.model.state_dict(), **(average.state_dict() if average else {})},
            "criterion": context.criterion.state_dict(),
            "training": {
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
                "standing": self.progress.to_mapping(),
                "pass": self.tally.state_dict(),
                "bad_frames": self.bad_frames.state_dict(),
                "random": _random_state(context.device),
                "micro_batch_frames": context.micro_batch_frames,
                **({"weights": context.model.state_dict(), "updates": average.updates} if average else {}),
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken, on this device."""
        context, training = self.context, state["training"]
        context.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average = AveragedWeights(context.model, context.config.ema_decay, updates=training["updates"])
            context.model.load_state_dict(training["weights"])
        context.criterion.load_state_dict(state["criterion"])
        self.metrics = dict(state["metrics"])
        self.optimiser.load_state_dict(training["optimiser"])
        self.precision.scaler.load_state_dict(training["scaler"])
        self.progress = Progress.from_mapping(training["standing"])
        if self.metrics and "val/loss_mod" not in self.metrics and context.criterion.log_variance is not None:
            # The loss of an older version had the learned variances in it.
            self.progress = self.progress.without_loss(context.config)
        self.tally.load_state_dict(training["pass"])
        self.bad_frames.load_state_dict(training["bad_frames"])
        torch.set_rng_state(training["random"]["cpu"])
        if context.device.type == "cuda" and training["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(training["random"]["cuda"], context.device)

    def validated_weights(self) -> contextlib.AbstractContextManager[None]:
        """Put the weights that are validated into the model, and those that are trained back at the end."""
        return contextlib.nullcontext() if self.average is None else self.average.in_model()

    def require_finite(self) -> None:
        """Refuse a state that must not be saved.

        Raises:
            Diverged: a weight, a running mean or a task weight is not finite.
        """
        context, steps_done, epoch = self.context, self.tally.steps_done, self.progress.epoch
        state = {**context.model.state_dict(), **context.criterion.state_dict()}
        if names := [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]:
            when = f"step {steps_done} of epoch {epoch + 1}" if steps_done else f"epoch {epoch}"
            raise Diverged(
                f"weights that are not finite after {when}: {len(names)}, such as {names[0]}; learning rate up to "
                f"{context.config.max_lr:.3g}"
            )


def _adamw(context: TrainingContext) -> torch.optim.AdamW:
    """Return AdamW that decays matrices and kernels only.

    Biases, norms and log-variances need no decay, nor does what a backbone names in ``no_weight_decay()``: position
    embeddings, class tokens, Swin's tables of relative positions.
    """
    named = [*context.model.named_parameters(), *context.criterion.named_parameters()]
    backbone = getattr(context.model, "backbone", None)
    patterns = [f"backbone.{name}" for name in getattr(backbone, "no_weight_decay", tuple)()]
    decayed, others = list[Tensor](), list[Tensor]()
    for name, parameter in named:
        is_exempt = parameter.ndim < 2 or any(fnmatchcase(name, pattern) for pattern in patterns)
        (others if is_exempt else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": context.config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=context.config.base_lr, fused=True)


def _random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of torch's generators, which dropout draws from; shuffling has its own stream in every epoch."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}
