"""One training step of every backbone of the sweeps on the CPU: whether it learns, and its cost.

Each backbone runs in its own process, so that the peak memory is its own: a forward pass, a backward pass and one step
of AdamW on a small batch. A backbone that fails is a row of the table, and the exit code is 1.

    python tests/benchmarks/bench_backbones.py [--batch 4] [--models swin_t,resnet18] [--sizes 64]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import product

import torch
from machine import add_write_options, describe_machine, keep_table, unlike_committed

from amc_core.config import TrialConfig
from amc_core.inputs.representations import input_shape
from amc_core.models.classifier import build_model
from amc_core.training.losses import MultiTaskLoss
from amc_core.training.model_summary import count_macs

MODELS = ("resnet18", "resnet34", "resnet50", "vit_b_16", "swin_t", "swin_s", "swin_b")
SIZES = (32, 64, 128)
LEVELS_DB = tuple(range(0, 32, 2))


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--models", type=lambda text: text.split(","), default=MODELS)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=SIZES)
    parser.add_argument("--one", metavar="MODEL:SIZE", help="compute this one here and print its figures as JSON")
    add_write_options(parser, "backbones")
    options = parser.parse_args()
    if options.one:
        model_type, _, size = options.one.partition(":")
        print(json.dumps(one_step(model_type, int(size), options.batch)))
        return
    rows, failed = [], []
    for model_type, size in product(options.models, options.sizes):
        command = [sys.executable, __file__, "--one", f"{model_type}:{size}", "--batch", str(options.batch)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            failed.append(f"{model_type}, {size} px: {ended.stderr.strip().splitlines()[-1]}")
            rows.append(f"| {model_type} | {size} | | | failed | | |")
        else:
            found = json.loads(ended.stdout)
            rows.append(
                f"| {model_type} | {size} | {found['parameters']:,} | {found['macs'] / 1e6:,.0f} | "
                f"{found['loss_before']:.2f} to {found['loss_after']:.2f} | {found['seconds']:.1f} | "
                f"{found['peak_gib']:.2f} |"
            )
        print(rows[-1], flush=True)
    n_channels = input_shape(TrialConfig(representation="synced"))[0]
    text = "\n".join(
        [
            f"synced ({n_channels} channels), 17 x 16 classes, batches of {options.batch}: forward, backward, three "
            f"steps of AdamW on one batch; the loss before and after them. {describe_machine()}",
            "",
            "| backbone | px | parameters | MMAC a frame | loss | s for three steps | peak memory, GiB |",
            "|---|---|---|---|---|---|---|",
            *rows,
            *(["", *failed] if failed else []),
        ]
    )
    keep_table("backbones", text, options, worse=unlike_committed(parser, options))
    if failed:
        raise SystemExit("\n".join(failed))


def one_step(model_type: str, size: int, batch: int) -> dict[str, float]:
    """Train on one batch and return time and memory."""
    torch.manual_seed(0)
    config = TrialConfig(model_type=model_type, image_size=size, representation="synced", batch_size=batch)
    model = build_model(config, n_modulations=17, n_levels=len(LEVELS_DB))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion = MultiTaskLoss(config, LEVELS_DB)
    optimiser = torch.optim.AdamW([*model.parameters(), *criterion.parameters()], lr=1e-4, fused=True)
    images = torch.randn(batch, *input_shape(config)).contiguous(memory_format=torch.channels_last)
    modulation, snr = torch.randint(17, (batch,)), torch.randint(len(LEVELS_DB), (batch,))
    losses = []
    model.train()
    model.dropout.p = 0.0  # the loss of the same batch can be compared
    started = time.perf_counter()
    for _ in range(4):
        optimiser.zero_grad(set_to_none=True)
        loss = criterion(*model(images), modulation, snr)
        losses.append(float(loss.detach()))
        if len(losses) == 4:
            break
        loss.backward()
        without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        if without or not torch.isfinite(loss):
            raise SystemExit(f"no gradient for {without[:3]}, loss {losses[-1]}")
        optimiser.step()
    seconds = time.perf_counter() - started
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
    if not losses[-1] < losses[0]:
        raise SystemExit(f"the loss of the batch did not fall: {losses}")
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": count_macs(model.eval(), images[:1])[""],
        "loss_before": losses[0],
        "loss_after": losses[-1],
        "seconds": seconds,
        "peak_gib": peak_gib,
    }


if __name__ == "__main__":
    main()
