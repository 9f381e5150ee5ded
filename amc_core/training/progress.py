"""Where a trial stands after its complete epochs: all that later decisions look back on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from amc_core.config import TrialConfig
from amc_core.training.patience import is_exhausted
from amc_core.training.schedules import Plateau

__all__ = ["Best", "Standing"]


@dataclass(frozen=True)
class Best:
    """The best epoch by one criterion."""

    epoch: int = 0  # 0: none yet
    value: float | None = None


@dataclass(frozen=True)
class Standing:
    """Complete epochs, the best ones by both criteria, and the plateau schedule's state."""

    epoch: int = 0
    combined_acc: Best = Best()  # highest on the validation part
    loss: Best = Best()  # lowest
    plateau: Plateau = field(default_factory=Plateau)

    def after_epoch(self, config: TrialConfig, *, combined_acc: float, loss: float) -> Standing:
        """Return the standing after one more epoch with these validation values."""
        epoch = self.epoch + 1
        selected = combined_acc if config.select_by == "combined_acc" else -loss
        in_warmup = epoch <= config.warmup_epochs
        return replace(
            self,
            epoch=epoch,
            combined_acc=(
                Best(epoch, combined_acc)
                if self.combined_acc.value is None or combined_acc > self.combined_acc.value
                else self.combined_acc
            ),
            loss=Best(epoch, loss) if self.loss.value is None or loss < self.loss.value else self.loss,
            plateau=self.plateau if in_warmup else self.plateau.after(config, selected),
        )

    def on_another_split(self) -> Standing:
        """Return the standing of a trial that goes on with other frames to validate: no epoch is the best one yet.

        How often a plateau has reduced the learning rate stays: that belongs to the training, not to its judgement.
        """
        return replace(self, combined_acc=Best(), loss=Best(), plateau=replace(self.plateau, best=None, bad_epochs=0))

    def improved(self) -> tuple[str, ...]:
        """Return the criteria by which the last epoch is the best one."""
        return tuple(name for name in ("combined_acc", "loss") if getattr(self, name).epoch == self.epoch > 0)

    def selected(self, config: TrialConfig) -> Best:
        """Return the best epoch by the criterion that picks the checkpoint."""
        return self.combined_acc if config.select_by == "combined_acc" else self.loss

    def natural_end(self, config: TrialConfig) -> str | None:
        """Return ``patience`` or ``completed`` where the trial is over, None where it goes on."""
        if is_exhausted(config, epoch=self.epoch, best_epoch=self.selected(config).epoch):
            return "patience"
        return "completed" if self.epoch >= config.epochs else None

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Standing:
        """Read what to_mapping wrote."""
        return cls(
            epoch=values["epoch"],
            combined_acc=Best(**values["combined_acc"]),
            loss=Best(**values["loss"]),
            plateau=Plateau(**values["plateau"]),
        )
