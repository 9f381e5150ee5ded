"""The number format of a forward pass: float32, bfloat16 or float16."""

from __future__ import annotations

import torch

from amc_core.config import TrialConfig


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
        return torch.autocast(self._device_type, dtype=self.dtype, enabled=self.enabled)
