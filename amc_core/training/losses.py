"""The losses of the two tasks, their weights, and the SNR level that an output means.

In names: B frames of a batch, K classes of a task (SNR levels, lowest first), ``rank`` the place of a level on the SNR
axis in steps of the grid: 0 for the lowest level, 15 for 30 dB of 0..30 dB in steps of 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_core.config import REGRESSION_LOSSES, TrialConfig


class SnrLoss(nn.Module):
    """The loss of the SNR task.

    With p the softmax over levels, t the true level, d(k, t) the distance of two levels in steps of the grid, v the
    predicted and r the true rank, the loss of a frame is

    - ``cross_entropy``: ``-log p_t``
    - ``ordinal``: ``(v - r)^2`` with ``v = sum_k p_k rank_k``
    - ``smooth_l1``: of ``v - r``, quadratic up to one step of the grid and linear beyond (R. Girshick, "Fast R-CNN",
      ICCV 2015)
    - ``l1``: the expected distance ``sum_k p_k d(k, t)``; of a regression head ``|v - r|``
    - ``d2``: ``-log p_t + alpha sum_k p_k d(k, t)^2``: a far guess costs more than a near one
    - ``inverse_d2``: ``-log p_t + alpha sum_{k != t} p_k / d(k, t)^2``: a near guess costs more; the 2025
      research log used it by mistake

    ``target_spread`` w > 0 (cross_entropy, d2, inverse_d2) replaces ``-log p_t`` by ``sum_k q_k log(q_k / p_k)`` with
    the soft target ``q_k = exp(-d(k, t)^2 / (2 w^2)) / sum_j exp(-d(j, t)^2 / (2 w^2))``. It is 0 at its best value, as
    ``-log p_t`` is, so the task weights see no constant. Source: R. Diaz, A. Marathe, "Soft Labels for Ordinal
    Regression", CVPR 2019, with phi = d^2 / (2 w^2).

    These are the losses of scale ``levels``. There a distance term is up to 225 (16 levels), which hides the other task
    and moves the guesses to the posterior mean. Scale ``unit`` divides every distance term by the largest value that it
    can have between two levels, so that alpha means the same for each loss. Cross-entropy is never scaled.

    A regression head outputs ``v / rank_max``: one number per frame, 0 for the lowest level and 1 for the highest.

    Args:
        kind: a name above.
        alpha: weight of the distance penalty of ``d2`` and ``inverse_d2``.
        scale: ``unit`` or ``levels``.
        levels_db: SNR of the levels, dB, increasing.
        regression: whether the head outputs one number instead of logits.
        target_spread: standard deviation of the soft target in steps of the grid; 0: the true level alone.
    """

    _ranks: Tensor  # (K,)
    _penalties: Tensor  # (K, K): of a guess, by the true level
    _targets: Tensor  # (K, K): share of a level, by the true level

    def __init__(
        self,
        kind: str,
        *,
        alpha: float,
        scale: str,
        levels_db: Sequence[int],
        regression: bool,
        target_spread: float = 0.0,
    ) -> None:
        super().__init__()
        if regression and kind not in REGRESSION_LOSSES:
            raise ValueError(f"{kind} needs a class for every level, a regression head outputs one number")
        self._kind, self._alpha, self._regression = kind, alpha, regression
        self._is_soft = target_spread > 0
        rank_K = _ranks(levels_db)
        distance_KK = (rank_K[:, None] - rank_K[None, :]).abs()
        penalty_KK = _penalty(kind, distance_KK)
        largest = float(rank_K[-1])
        worst_value = {"ordinal": largest**2, "smooth_l1": largest - 0.5, "l1": largest}.get(kind, 1.0)
        unit = scale == "unit"
        self._rank_max = largest
        self._divisor = worst_value if unit and largest > 0 else 1.0
        if unit and float(penalty_KK.max()) > 0:
            penalty_KK = penalty_KK / penalty_KK.max()
        self.register_buffer("_ranks", rank_K, persistent=False)
        self.register_buffer("_penalties", penalty_KK, persistent=False)
        spread = target_spread or 1.0
        self.register_buffer("_targets", torch.softmax(-(distance_KK / spread).square() / 2, dim=1), persistent=False)

    def forward(self, snr_output_BK: Tensor, snr_B: Tensor) -> Tensor:
        """Return each frame's loss (B,) of logits (B, K), or of values (B, 1) of a regression head, in float32."""
        output_BK = snr_output_BK.float()
        if self._kind == "cross_entropy":
            return self._log_loss(output_BK, snr_B)
        if self._kind in {"d2", "inverse_d2"}:
            return self._log_loss(output_BK, snr_B) + self._alpha * self._expected_penalty(output_BK, snr_B)
        if self._kind == "l1" and not self._regression:
            return self._expected_penalty(output_BK, snr_B)
        rank_B, true_B = self._value(output_BK), self._ranks[snr_B]
        if self._kind == "ordinal":
            return functional.mse_loss(rank_B, true_B, reduction="none") / self._divisor
        if self._kind == "smooth_l1":
            return functional.smooth_l1_loss(rank_B, true_B, reduction="none") / self._divisor
        return functional.l1_loss(rank_B, true_B, reduction="none") / self._divisor

    @torch.no_grad()
    def guess(self, snr_output_BK: Tensor) -> Tensor:
        """Return the index of the level (B,) that an output means.

        It is the nearest level if the loss trains a value, and the most probable one if the loss trains probabilities.
        """
        if not self._regression and self._kind not in {"ordinal", "smooth_l1"}:
            return snr_output_BK.argmax(dim=1)
        # The nearest level is the number of midpoints between neighbours below the value.
        midpoints_K = (self._ranks[1:] + self._ranks[:-1]) / 2
        return torch.bucketize(self._value(snr_output_BK.float()), midpoints_K)

    def _value(self, output_BK: Tensor) -> Tensor:
        if self._regression:
            return output_BK[:, 0] * self._rank_max
        return torch.softmax(output_BK, dim=1) @ self._ranks

    def _log_loss(self, logits_BK: Tensor, snr_B: Tensor) -> Tensor:
        if not self._is_soft:
            return functional.cross_entropy(logits_BK, snr_B, reduction="none")
        log_share_BK = functional.log_softmax(logits_BK, dim=1)
        return functional.kl_div(log_share_BK, self._targets[snr_B], reduction="none").sum(dim=1)

    def _expected_penalty(self, logits_BK: Tensor, snr_B: Tensor) -> Tensor:
        return (torch.softmax(logits_BK, dim=1) * self._penalties[snr_B]).sum(dim=1)


class MultiTaskLoss(nn.Module):
    """The losses of modulation and SNR, weighted.

    ``kendall``: ``loss = sum_i exp(-s_i) L_i + s_i / 2`` with one learned log-variance ``s_i`` a task: A. Kendall,
    Y. Gal, R. Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, equation 10. ``s_i / 2`` may
    be negative, and so may the loss. Their form for a regression has L / 2, which only shifts ``s_i`` by log 2.

    ``fixed``: ``w L_modulation + (1 - w) L_snr`` with w = ``task_weight_mod``.
    """

    _fixed_weights: Tensor
    _plain_weights: Tensor

    def __init__(self, config: TrialConfig, levels_db: Sequence[int]) -> None:
        super().__init__()
        self.snr_loss = SnrLoss(
            config.snr_loss,
            alpha=config.snr_loss_alpha,
            scale=config.snr_loss_scale,
            levels_db=levels_db,
            regression=config.snr_layer == "regression",
            target_spread=config.snr_target_spread,
        )
        weights = torch.tensor([config.task_weight_mod, 1.0 - config.task_weight_mod])
        self.register_buffer("_fixed_weights", weights, persistent=False)
        is_learned = config.task_weighting == "kendall"
        self.register_buffer("_plain_weights", torch.ones(2) if is_learned else weights, persistent=False)
        self.log_variance = nn.Parameter(torch.zeros(2)) if is_learned else None  # modulation, SNR

    def forward(
        self, modulation_logits_BK: Tensor, snr_output_BK: Tensor, modulation_B: Tensor, snr_B: Tensor
    ) -> Tensor:
        """Return the scalar that training minimises, in float32 also under autocast."""
        return self.weighted(self.task_losses(modulation_logits_BK, snr_output_BK, modulation_B, snr_B))

    def task_losses(
        self,
        modulation_logits_BK: Tensor,
        snr_output_BK: Tensor,
        modulation_B: Tensor,
        snr_B: Tensor,
        is_counted_B: Tensor | None = None,
    ) -> Tensor:
        """Return the losses (2,) of modulation and SNR, means over the frames that count, in float32."""
        modulation_loss_B = functional.cross_entropy(modulation_logits_BK.float(), modulation_B, reduction="none")
        losses_2B = torch.stack([modulation_loss_B, self.snr_loss(snr_output_BK, snr_B)])
        if is_counted_B is None:
            return losses_2B.mean(dim=1)
        return torch.where(is_counted_B, losses_2B, 0.0).sum(dim=1) / is_counted_B.sum()

    def weighted(self, task_losses: Tensor) -> Tensor:
        """Return the scalar that training minimises, of the losses (2,) of both tasks."""
        if self.log_variance is None:
            return (self._fixed_weights * task_losses).sum()
        return (torch.exp(-self.log_variance) * task_losses + self.log_variance / 2).sum()

    def measured(self, task_losses: Tensor) -> Tensor:
        """Return (3,): the loss by which epochs and runs are compared, then the losses of modulation and SNR.

        The first is a sum whose weights never change: 1 and 1 for ``kendall``, which is the minimised loss at unit
        variances, and the given weights for ``fixed``. The minimised loss of ``kendall`` also falls by learning the
        variances, so it says nothing about which epoch is better.
        """
        return torch.cat([(self._plain_weights * task_losses).sum()[None], task_losses])

    @torch.no_grad()
    def guess(self, modulation_logits_BK: Tensor, snr_output_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices (B,) of the guessed modulation and SNR level."""
        return modulation_logits_BK.argmax(dim=1), self.snr_loss.guess(snr_output_BK)

    def variances(self) -> Tensor | None:
        """Return the learned variances (modulation, SNR) of ``kendall`` on the device; None for ``fixed``."""
        return None if self.log_variance is None else self.log_variance.detach().exp()

    def weights(self) -> Tensor:
        """Return the tasks' weights (modulation, SNR) as shares that sum to 1, on the device."""
        if self.log_variance is None:
            return self._fixed_weights
        return torch.softmax(-self.log_variance.detach(), dim=0)


def _ranks(levels_db: Sequence[int]) -> Tensor:
    """Return the levels in steps of the smallest gap between two of them, the lowest at 0."""
    levels_K = torch.tensor(levels_db, dtype=torch.float32)
    step_db = float(levels_K.diff().min()) if len(levels_db) > 1 else 1.0
    return (levels_K - levels_K[0]) / step_db


def _penalty(kind: str, distance_KK: Tensor) -> Tensor:
    if kind == "d2":
        return distance_KK.square()
    if kind == "inverse_d2":
        return torch.where(distance_KK > 0, distance_KK.square().reciprocal(), 0.0)
    return distance_KK
