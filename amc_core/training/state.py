"""The parts of a trial that stay the same while it runs (TrainingContext), and those that change (TrainingState).

In names: B frames of a batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from amc_core.config import TrialConfig
from amc_core.data.feed import Batch, Feed
from amc_core.data.radioml import Selection
from amc_core.data.splits import Split
from amc_core.inputs.augmentation import Augmentation
from amc_core.inputs.representations import Representation
from amc_core.training.averaged_weights import AveragedWeights
from amc_core.training.evaluation import Evaluation
from amc_core.training.lineage import Lineage, SplitFacts
from amc_core.training.losses import MultiTaskLoss
from amc_core.training.precision import Precision
from amc_core.training.progress import Progress


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
    augmentation: Augmentation | None  # of training frames
    representation: Representation
    feed: Feed
    model: nn.Module  # owns the weights
    forward: Callable[[Tensor], tuple[Tensor, Tensor]]  # the model, or its compiled form
    criterion: MultiTaskLoss
    micro_batch_frames: int  # frames per forward pass
    has_batch_norm: bool  # it normalises by the frames of a forward pass


class EpochTally:
    """Counts of one pass over frames: steps, time, losses, gradient norms and joint confusion, kept on the device.

    Only ``is_finite``, ``evaluation`` and reading a state wait for the device.
    """

    def __init__(self, selection: Selection, device: torch.device) -> None:
        self._modulations = selection.modulations
        self._levels_db = selection.levels_db
        self.steps_done = 0
        self.seconds = 0.0
        self.compile_s, self._compile_frames = 0.0, 0  # of the steps that compiled the network
        # Over frames: the minimised loss, MultiTaskLoss.measured (3), the frames.
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)
        self._norms = torch.zeros(3, dtype=torch.float64, device=device)  # sum, number and largest of gradient norms
        n_cells = (len(self._modulations) * len(self._levels_db)) ** 2
        self._joint = torch.zeros(n_cells, dtype=torch.int64, device=device)
        self._ones = torch.ones(0, dtype=torch.int64, device=device)

    def add_compilation(self, seconds: float, n_frames: int) -> None:
        """Count a step as one that compiled the network: minutes, and it says nothing about the speed."""
        self.compile_s += seconds
        self._compile_frames += n_frames

    def frames_per_s(self, n_frames: int) -> float:
        """Return the speed of the steps so far, without those that compiled, unless there are no others.

        Args:
            n_frames: of all steps.
        """
        rest = n_frames - self._compile_frames
        return rest / (self.seconds - self.compile_s) if rest > 0 else n_frames / self.seconds

    @torch.no_grad()
    def add(
        self, loss: Tensor, measured: Tensor, guess: tuple[Tensor, Tensor], modulation_B: Tensor, snr_B: Tensor
    ) -> None:
        """Count one batch: its minimised loss, ``MultiTaskLoss.measured``, and the guessed against the true classes."""
        n_modulations, n_levels = len(self._modulations), len(self._levels_db)
        true_B = snr_B.add(modulation_B, alpha=n_levels)
        guess_B = guess[1].add(guess[0], alpha=n_levels)
        if len(self._ones) != len(snr_B):
            self._ones = torch.ones_like(snr_B)
        # Whole numbers, so that the order in which a GPU adds them does not matter.
        self._joint.scatter_add_(0, guess_B.add(true_B, alpha=n_modulations * n_levels), self._ones)
        losses = torch.cat([loss[None], measured, measured.new_ones(1)])
        self._sums.add_(losses, alpha=len(snr_B))  # in float64, as the sums are

    @torch.no_grad()
    def add_gradient(self, norm: Tensor) -> None:
        """Count the gradient norm of one optimiser step; one that is not finite is left out.

        float16 with a scaled loss skips steps whose gradient overflowed.
        """
        is_finite = torch.isfinite(norm)
        kept = torch.where(is_finite, norm, 0.0)
        self._norms[:2] += torch.stack([kept, is_finite.to(kept.dtype)])
        self._norms[2] = torch.maximum(self._norms[2], kept)

    @torch.no_grad()
    def classify(
        self,
        batches: Generator[Batch, None, None],
        forward: Callable[[Tensor], tuple[Tensor, Tensor]],
        criterion: MultiTaskLoss,
        precision: Precision,
        *,
        should_stop: Callable[[], str | None],
    ) -> str | None:
        """Classify every batch and count it; return a reason to stop, or None."""
        with contextlib.closing(batches):
            for batch in batches:
                if reason := should_stop():
                    return reason
                with precision.autocast():
                    output = forward(batch.input)
                measured = criterion.measured(criterion.task_losses(*output, batch.modulation, batch.snr))
                self.add(measured[0], measured, criterion.guess(*output), batch.modulation, batch.snr)
        return None

    def is_finite(self) -> bool:
        """Whether every minimised loss so far was finite: a sum keeps NaN and infinity."""
        return math.isfinite(float(self._sums[0]))

    def gradient_norms(self) -> dict[str, float]:
        """Return the mean and the largest gradient norm of the steps so far, before clipping."""
        total, number, largest = self._norms.tolist()
        return {"grad_norm/mean": total / max(number, 1.0), "grad_norm/max": largest}

    def evaluation(self) -> Evaluation:
        """Return the evaluation of the frames that were counted so far."""
        shape = (len(self._modulations), len(self._levels_db)) * 2
        joint_KLKL = self._joint.cpu().numpy().reshape(shape)
        _, *losses, n_frames = self._sums.tolist()
        loss, loss_mod, loss_snr = (value / max(n_frames, 1.0) for value in losses)
        return Evaluation(
            modulations=self._modulations,
            levels_db=self._levels_db,
            joint=joint_KLKL.copy(),  # the tensor may change after this
            loss=loss,
            loss_mod=loss_mod,
            loss_snr=loss_snr,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint in the middle of the pass needs."""
        return {
            "steps_done": self.steps_done,
            "seconds": self.seconds,
            "compilation": (self.compile_s, self._compile_frames),
            "sums": self._sums,
            "norms": self._norms,
            "joint": self._joint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.steps_done, self.seconds = int(state["steps_done"]), float(state["seconds"])
        self.compile_s, self._compile_frames = state.get("compilation", (0.0, 0))  # older checkpoints lack it
        self._joint.copy_(state["joint"])
        if "sums" in state:  # an older checkpoint has another sum; the losses are then those of the rest of the epoch
            self._sums.copy_(state["sums"])
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
        compiled_for: numbers of frames of training passes that this process has compiled the network for.
    """

    def __init__(self, context: TrainingContext) -> None:
        self.context = context
        self.compiled_for: set[int] = set()
        self.optimiser = _adamw(context)
        self.precision = Precision(context.config, context.device)
        self.progress = Progress()
        decay = context.config.ema_decay
        self.average = AveragedWeights(context.model, decay) if decay else None
        self.metrics: dict[str, float] = {}
        self.start_counting()

    def start_counting(self) -> None:
        """Forget the counts of a part of an epoch."""
        self.start_epoch()
        self.bad_frames = BadFrames(self.context.representation.bad_frames)

    def start_epoch(self) -> None:
        """Count the next epoch from its first step."""
        self.tally = EpochTally(self.context.selection, self.context.device)

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
