"""Compiling a step, before the epoch that needs it."""

from __future__ import annotations

import sys

import torch

from amc_core.config import RECURRENT_NETWORKS, TrialConfig
from amc_core.data.feed import Batch
from amc_core.training.step.frame_step import FrameStep

_PASSES_OF_CUDA_GRAPHS = 3  # torch runs a new graph as it is first, records it then, and replays it from then on


def is_compiled(config: TrialConfig) -> bool:
    """Whether the configuration asks for compiled steps and the network allows them; if not, it says so."""
    if config.compile and config.model_type in RECURRENT_NETWORKS:
        sys.stderr.write(f"compile: {config.model_type} runs uncompiled: torch.compile leaves recurrent layers out\n")
        return False
    return config.compile


def compile_steps(steps: tuple[FrameStep, ...], device: torch.device) -> None:
    """Let torch compile each step in its first pass of a size. On CUDA, torch's own CUDA graphs run the kernels."""
    torch.compiler.reset()  # graphs of another trial of this process, which would count as recompilations
    on_cuda = device.type == "cuda"
    for step in steps:
        step.compile(dynamic=False, mode="reduce-overhead" if on_cuda else None)
        step.has_cuda_graphs = on_cuda


def warm_up(step: FrameStep, batch: Batch, *, trains: bool) -> None:
    """Compile a step for batches of this size.

    Weights, statistics, counts, gradients and random numbers are afterwards as they were. Gradients are then absent.
    """
    before = {name: buffer.clone() for name, buffer in step.named_buffers()}
    device = batch.frames.device
    step.model.train(trains)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for _ in range(_PASSES_OF_CUDA_GRAPHS if step.has_cuda_graphs else 1):
            step.begin()
            with torch.set_grad_enabled(trains):
                loss = step(batch)
                if trains:
                    loss.backward()
            step.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in step.named_buffers():
            buffer.copy_(before[name])
