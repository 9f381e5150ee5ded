"""The number format of a forward pass: float32, bfloat16 or float16; and the fastest kernels for it."""

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


def use_fast_kernels(config: TrialConfig, device: torch.device) -> None:
    """Let a GPU use its fastest kernels; on the CPU nothing changes.

    cuDNN tries its kernels once for each size of a batch, of which a trial has few. Without ``amp``, matrix products
    are computed in TF32 (10 bits of mantissa) where the GPU has it, as cuDNN computes convolutions by default. With
    ``amp`` only the heads and the carrier search are left in float32, and these need its precision.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("highest" if config.amp else "high")
