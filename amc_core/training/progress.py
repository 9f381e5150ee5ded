"""Progress of a trial over its complete epochs, and when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from amc_core.config import TrialConfig
from amc_core.training.schedules import Plateau


@dataclass(frozen=True)
class BestEpoch:
    """The best epoch by one criterion."""

    epoch: int = 0  # 0: none yet
    value: float | None = None


@dataclass(frozen=True)
class Progress:
    """Complete epochs, the best ones by both criteria, and the plateau schedule's state."""

    epoch: int = 0
    combined_acc: BestEpoch = BestEpoch()  # highest on the validation part
    loss: BestEpoch = BestEpoch()  # lowest
    plateau: Plateau = field(default_factory=Plateau)

    def after_epoch(self, config: TrialConfig, *, combined_acc: float, loss: float) -> Progress:
        """Return the progress after one more epoch with these validation values."""
        epoch = self.epoch + 1
        score = combined_acc if config.select_by == "combined_acc" else -loss
        in_warmup = epoch <= config.warmup_epochs
        return replace(
            self,
            epoch=epoch,
            combined_acc=(
                BestEpoch(epoch, combined_acc)
                if self.combined_acc.value is None or combined_acc > self.combined_acc.value
                else self.combined_acc
            ),
            loss=BestEpoch(epoch, loss) if self.loss.value is None or loss < self.loss.value else self.loss,
            plateau=self.plateau if in_warmup else self.plateau.after(config, score),
        )

    def on_another_split(self) -> Progress:
        """Return the progress of a trial that continues with other validation frames: no epoch is the best one yet.

        The plateau's reductions of the learning rate stay, because they belong to the training.
        """
        plateau = replace(self.plateau, best=None, bad_epochs=0)
        return replace(self, combined_acc=BestEpoch(), loss=BestEpoch(), plateau=plateau)

    def without_loss(self, config: TrialConfig) -> Progress:
        """Return the progress of a trial whose losses so far mean something else than those that follow."""
        by_loss = config.select_by == "loss"
        plateau = replace(self.plateau, best=None, bad_epochs=0) if by_loss else self.plateau
        return replace(self, loss=BestEpoch(), plateau=plateau)

    def improved(self) -> tuple[str, ...]:
        """Return the criteria by which the last epoch is the best one."""
        return tuple(name for name in ("combined_acc", "loss") if getattr(self, name).epoch == self.epoch > 0)

    def selected(self, config: TrialConfig) -> BestEpoch:
        """Return the best epoch by the criterion that picks the checkpoint."""
        return self.combined_acc if config.select_by == "combined_acc" else self.loss

    def natural_end(self, config: TrialConfig) -> str | None:
        """Return ``patience`` or ``completed`` where the trial is over, None where it continues."""
        if is_exhausted(config, epoch=self.epoch, best_epoch=self.selected(config).epoch):
            return "patience"
        return "completed" if self.epoch >= config.epochs else None

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Progress:
        return cls(
            epoch=values["epoch"],
            combined_acc=BestEpoch(**values["combined_acc"]),
            loss=BestEpoch(**values["loss"]),
            plateau=Plateau(**values["plateau"]),
        )


def protected_epochs(config: TrialConfig) -> int:
    """Return how many epochs patience never interrupts: the warmup and the first min_cycles cycles.

    The validation score falls while a cycle's learning rate rises, and recovers as the rate falls again. A patience
    that counts through the rise ends trials before their peak. A cosine is one cycle of all epochs, whose best epochs
    come last. A constant rate has no cycles.
    """
    cycles = 0
    if config.lr_schedule == "triangular2":
        cycles = config.min_cycles * config.epochs_per_cycle
    elif config.lr_schedule == "cosine" and config.min_cycles:
        cycles = config.epochs
    return max(config.warmup_epochs, cycles)


def is_exhausted(config: TrialConfig, *, epoch: int, best_epoch: int) -> bool:
    """Whether patience ends training after ``epoch`` (1 is the first); a ``best_epoch`` of 0 means none so far."""
    if config.patience is None or not best_epoch or epoch < protected_epochs(config):
        return False
    return epoch - best_epoch >= config.patience
