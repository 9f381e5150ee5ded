"""Losses and joint confusion of one pass over frames.

In names: B frames of a batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from amc_core.data.radioml import Selection
from amc_core.training.evaluation import Evaluation


class Counts(nn.Module):
    """Sums of losses and the joint confusion, kept on the device.

    The tensors stay the same from pass to pass, because CUDA graphs know them by their addresses. Only ``is_finite``
    and ``evaluation`` wait for the device.
    """

    sums: Tensor  # over frames: the minimised loss, MultiTaskLoss.measured (3), the frames
    joint: Tensor  # number of frames by true modulation and level, then guessed modulation and level

    def __init__(self, selection: Selection) -> None:
        super().__init__()
        self._modulations = selection.modulations
        self._levels_db = selection.levels_db
        n_cells = (len(self._modulations) * len(self._levels_db)) ** 2
        self.register_buffer("sums", torch.zeros(5, dtype=torch.float64), persistent=False)
        self.register_buffer("joint", torch.zeros(n_cells, dtype=torch.int64), persistent=False)

    def reset(self) -> None:
        """Begin another pass."""
        self.sums.zero_()
        self.joint.zero_()

    @torch.no_grad()
    def add(
        self,
        loss: Tensor,
        measured: Tensor,
        guess: tuple[Tensor, Tensor],
        modulation_B: Tensor,
        snr_B: Tensor,
        is_counted_B: Tensor | None = None,
    ) -> None:
        """Count one batch.

        Args:
            loss: the minimised one, a mean over the frames that count.
            measured: ``MultiTaskLoss.measured`` of the same frames.
            guess: indices of modulation and level (B,).
            modulation_B: true ones.
            snr_B: true ones.
            is_counted_B: which frames count; None: all.
        """
        n_modulations, n_levels = len(self._modulations), len(self._levels_db)
        true_B = snr_B.add(modulation_B, alpha=n_levels)
        guess_B = guess[1].add(guess[0], alpha=n_levels)
        cell_B = guess_B.add(true_B, alpha=n_modulations * n_levels)
        losses = torch.cat([loss[None], measured, measured.new_ones(1)])
        # Whole numbers, so that the order in which a GPU adds them does not matter. Losses are summed in float64.
        if is_counted_B is None:
            self.joint.scatter_add_(0, cell_B, torch.ones_like(cell_B))
            self.sums.add_(losses, alpha=len(snr_B))
        else:
            self.joint.scatter_add_(0, cell_B, is_counted_B.to(cell_B.dtype))
            self.sums.addcmul_(losses.double(), is_counted_B.sum().double())

    def is_finite(self) -> bool:
        """Whether every minimised loss so far was finite: a sum keeps NaN and infinity."""
        return math.isfinite(float(self.sums[0]))

    def evaluation(self) -> Evaluation:
        """Return the evaluation of the frames that were counted so far."""
        shape = (len(self._modulations), len(self._levels_db)) * 2
        joint_KLKL = self.joint.cpu().numpy().reshape(shape)
        _, *losses, n_frames = self.sums.tolist()
        loss, loss_mod, loss_snr = (value / max(n_frames, 1.0) for value in losses)
        return Evaluation(
            modulations=self._modulations,
            levels_db=self._levels_db,
            joint=joint_KLKL.copy(),  # the tensor may change after this
            loss=loss,
            loss_mod=loss_mod,
            loss_snr=loss_snr,
        )
