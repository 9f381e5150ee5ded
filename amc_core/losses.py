"""The loss of the two tasks and how they are weighted."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MultiTaskLoss"]


class MultiTaskLoss(nn.Module):
    """Cross-entropy of modulation and SNR, weighted by learned uncertainty.

    ``loss = sum_i exp(-s_i) CE_i + s_i / 2`` with one learned log-variance ``s_i`` a task: A. Kendall, Y. Gal,
    R. Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, equation 10. The loss may become
    negative, because ``s_i / 2`` may.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))  # modulation, SNR

    def forward(
        self, modulation_logits_BK: Tensor, snr_logits_BK: Tensor, modulation_B: Tensor, snr_B: Tensor
    ) -> Tensor:
        """Return the scalar loss, in float32 also under autocast."""
        task_losses = torch.stack(
            [
                functional.cross_entropy(modulation_logits_BK.float(), modulation_B),
                functional.cross_entropy(snr_logits_BK.float(), snr_B),
            ]
        )
        return (torch.exp(-self.log_variance) * task_losses + self.log_variance / 2).sum()

    def weights(self) -> Tensor:
        """Return the tasks' weights as shares that sum to 1 (modulation, SNR), on the device."""
        return torch.softmax(-self.log_variance.detach(), dim=0)
