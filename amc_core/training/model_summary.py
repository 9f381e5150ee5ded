"""The cost of a configuration, without a data file: layers, parameters, multiply-accumulates, frames per second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from amc_core.config import TrialConfig
from amc_core.data.radioml import FRAME_LENGTH, RadioMLFile
from amc_core.inputs.representations import Representation, input_shape, laid_out
from amc_core.models.classifier import build_model
from amc_core.modulations import FILE_CLASSES, class_names
from amc_core.training.precision import Precision
from amc_sweeps.number_formats import counted

_LEVEL_STEP_DB = 2  # of RadioML 2018.01A
_FRAMES = 64  # of a batch for the timing: enough for all cores, few enough for a large network
_SECONDS = 1.0  # of each timing at least


@dataclass(frozen=True)
class Layer:
    """One direct part of the network."""

    name: str
    kind: str
    n_parameters: int
    macs: int  # per frame


@dataclass(frozen=True)
class Summary:
    """A network and its input, counted and timed."""

    input_shape: tuple[int, ...]
    n_modulations: int
    n_levels: int
    layers: tuple[Layer, ...]
    n_parameters: int
    macs: int  # per frame, forward
    device: str  # and the type of numbers, unless that is float32
    input_frames_per_s: float  # IQ to input
    model_frames_per_s: float  # input to outputs, no gradients

    def as_text(self) -> str:
        """Return a table for people."""
        rows = [("layer", "kind", "parameters", "MMAC"), *map(_row, self.layers)]
        rows.append(("all", "", f"{self.n_parameters:,}", f"{self.macs / 1e6:,.2f}"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}" for row in rows
        ]
        shape = " x ".join(map(str, self.input_shape))
        return "\n".join(
            [
                f"input {shape}; {self.n_modulations} modulations, {counted(self.n_levels, 'SNR level')}",
                *lines,
                f"IQ to input {self.input_frames_per_s:,.0f} frames/s, forward pass {self.model_frames_per_s:,.0f} "
                f"frames/s ({self.device}, {counted(torch.get_num_threads(), 'thread')}, batches of {_FRAMES})",
            ]
        )


def summarise(config: TrialConfig) -> Summary:
    """Build a configuration's network with random weights, count its parts and time it.

    Device, precision and memory layout are those of a training.

    Raises:
        ConfigError: the model cannot be built.
        DataError: label_set is ``file``, and the file cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    n_modulations = _count_modulations(config)
    n_levels = (config.snr_max_db - config.snr_min_db) // _LEVEL_STEP_DB + 1
    model = build_model(config, n_modulations=n_modulations, n_levels=n_levels).eval()
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision = Precision(config, device)
    representation = Representation(config).to(device)
    iq_BTC = torch.randn(_FRAMES, FRAME_LENGTH, 2, generator=torch.Generator().manual_seed(0)).to(device)
    input_BX = laid_out(representation(iq_BTC))

    def forward() -> None:
        with precision.autocast():
            model(input_BX)

    macs = count_macs(model, input_BX[:1])
    with torch.no_grad():
        return Summary(
            input_shape=input_shape(config),
            n_modulations=n_modulations,
            n_levels=n_levels,
            layers=_layers(model, macs),
            n_parameters=_count_parameters(model),
            macs=macs[""],
            device=f"{device}, {str(precision.dtype).removeprefix('torch.')}" if precision.enabled else str(device),
            input_frames_per_s=_FRAMES / _seconds(lambda: representation(iq_BTC), device),
            model_frames_per_s=_FRAMES / _seconds(forward, device),
        )


def _count_modulations(config: TrialConfig) -> int:
    if config.label_set != FILE_CLASSES:
        return len(class_names(config.label_set))
    with RadioMLFile(config.data) as data:
        return len(class_names(data.label_set(config.label_set)))


def count_macs(model: nn.Module, input_BX: Tensor) -> dict[str, int]:
    """Return multiply-accumulates of a forward pass by module path; the total is under ''.

    Matrix products, convolutions, attention and recurrent layers are counted; sums, norms and activations are not, as
    usual.
    """
    # The counter does not know the CPU's fused attention kernel; SDPBackend.MATH uses two matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _flop_counter() as counter:
        model(input_BX)
    root = type(model).__name__
    counts = {name: sum(operations.values()) // 2 for name, operations in counter.get_flop_counts().items()}
    return {"": counter.get_total_flops() // 2} | {
        name.removeprefix(f"{root}."): count for name, count in counts.items() if name.startswith(f"{root}.")
    }


def _flop_counter() -> FlopCounterMode:
    """Return torch's counter, which also counts recurrent layers that one kernel computes."""
    kernels = {torch.ops.aten.mkldnn_rnn_layer: _mkldnn_flops, torch.ops.aten._cudnn_rnn: _cudnn_flops}
    return FlopCounterMode(display=False, custom_mapping=kernels)


def _mkldnn_flops(input_shape: Sequence[int], *shapes: Sequence[int], **_others: object) -> int:
    return _cudnn_flops(input_shape, shapes[:2])


def _cudnn_flops(
    input_shape: Sequence[int], weights: Sequence[Sequence[int]], *_shapes: object, **_others: object
) -> int:
    """Return two operations for every weight at every step of every frame; biases are not counted."""
    return 2 * input_shape[0] * input_shape[1] * sum(math.prod(shape) for shape in weights if len(shape) == 2)


def _layers(model: nn.Module, macs: dict[str, int]) -> tuple[Layer, ...]:
    """Return the backbone's direct parts and the heads, without parts that have no parameters."""
    layers = []
    for name, module in model.named_children():
        parts = list(module.named_children()) if name == "backbone" else []
        # A backbone that is one sequence is listed by its blocks.
        if len(parts) == 1 and isinstance(parts[0][1], nn.Sequential):
            prefix = f"{parts[0][0]}."
            parts = [(prefix + inner, block) for inner, block in parts[0][1].named_children()]
        for path, part in [(f"{name}.{inner}", block) for inner, block in parts] or [(name, module)]:
            if n_parameters := _count_parameters(part):
                layers.append(Layer(path, type(part).__name__, n_parameters, macs.get(path, 0)))
    return tuple(layers)


def _row(layer: Layer) -> tuple[str, str, str, str]:
    return layer.name, layer.kind, f"{layer.n_parameters:,}", f"{layer.macs / 1e6:,.2f}"


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    work()
    shortest = float("inf")
    end = time.perf_counter() + _SECONDS
    while shortest == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
