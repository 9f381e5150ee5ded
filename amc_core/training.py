"""One trial: frames in, checkpoints and numbers out. Knows nothing of W&B or of signals; its caller does.

In names: B frames of a batch, T = 1024 samples, C = I and Q or image channels, H = W = image_size, M frames of the
selection.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from amc_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from amc_core.config import TrialConfig
from amc_core.curriculum import epoch_positions, level_weights
from amc_core.losses import MultiTaskLoss
from amc_core.models import build_model
from amc_core.modulations import LABEL_SETS
from amc_core.patience import is_exhausted
from amc_core.provenance import device_name, git_commit
from amc_core.radioml import RadioMLFile, Selection, select
from amc_core.representations import Representation
from amc_core.schedules import learning_rate
from amc_core.splits import split_fingerprint, stratified_split

__all__ = ["Diverged", "Recorder", "TrialResult", "train"]

# How many steps may pass before the NaN guard looks. A look waits for the GPU, so that it should be rare there; on the
# CPU it is free.
_GUARD_EVERY = {"cuda": 50, "cpu": 1}


class Diverged(RuntimeError):  # noqa: N818 - what happened, not what was done wrong
    """The loss or a weight is NaN or infinite; no checkpoint of that state was written."""


class Recorder(Protocol):
    """Where a trial's numbers go."""

    def config(self, facts: Mapping[str, Any]) -> None:
        """Take what holds for the whole run; called once, before the first epoch."""

    def log(self, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one epoch: exactly metric_names.EPOCH_METRICS."""

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Take what is known at the end."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended, and its peak."""

    end: str  # completed, patience, or what should_stop said
    epochs: int  # complete ones
    best_epoch: int | None  # of the highest val/combined_acc, whatever select_by is
    best_value: float | None
    checkpoint: Path | None  # best.pt, chosen by select_by
    test: Mapping[str, float] | None  # metrics of that checkpoint on the test part


def _never() -> str | None:
    return None


def train(
    config: TrialConfig,
    *,
    run_dir: Path,
    record: Recorder,
    should_stop: Callable[[], str | None] = _never,
    progress: bool = False,
) -> TrialResult:
    """Run one trial to its end.

    Args:
        config: what to compute.
        run_dir: folder for best.pt and last.pt; made if missing.
        record: receives facts, one row of metrics an epoch, and the summary.
        should_stop: asked between optimiser steps; a reason saves last.pt and ends the trial without a test.
        progress: show a bar on stderr.

    Raises:
        DataError: the data file cannot be used.
        ConfigError: the model cannot be built.
        Diverged: the loss or a weight is not finite.
    """
    # --- Data: which frames, which part, named by fingerprints ---
    run_dir.mkdir(parents=True, exist_ok=True)
    data = RadioMLFile(config.data, storage=config.storage)
    selection = select(
        data,
        label_set=config.label_set,
        columns=LABEL_SETS[config.label_set],
        snr_min_db=config.snr_min_db,
        snr_max_db=config.snr_max_db,
    )
    split = stratified_split(selection, config.split, config.split_seed)
    fingerprint = split_fingerprint(data.fingerprint, selection, config.split, config.split_seed)

    # --- Model, loss, optimiser: seeded before the first weight is drawn ---
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(config, n_modulations=len(selection.columns), n_levels=len(selection.levels_db))
    # Convolutions on tensor cores and in oneDNN want channels last.
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trial = _Trial(
        config=config,
        device=device,
        feed=_Feed(data, selection, device),
        model=model,
        forward=torch.compile(model) if config.compile else model,
        representation=Representation(config).to(device),
        criterion=MultiTaskLoss().to(device),
        levels_db=torch.tensor(selection.levels_db, dtype=torch.float32, device=device),
    )
    optimiser = _optimiser(trial)
    precision = _Precision(config, device)
    record.config(
        {
            "split_fingerprint": fingerprint,
            "data_fingerprint": data.fingerprint,
            "label_set": config.label_set,
            "n_train": len(split.train),
            "n_val": len(split.val),
            "n_test": len(split.test),
            "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seed": config.seed,
            "select_by": config.select_by,
            "device_name": device_name(device),
            "git_commit": git_commit(),
            "parent_run": None,
            "parent_split_fingerprint": None,
        }
    )

    def snapshot(epoch: int, metrics: Mapping[str, float]) -> Checkpoint:
        return Checkpoint(
            config=config.to_mapping(),
            epoch=epoch,
            split_fingerprint=fingerprint,
            metrics=dict(metrics),
            model=model.state_dict(),
            criterion=trial.criterion.state_dict(),
        )

    # --- Epochs ---
    best_path, last_path = run_dir / "best.pt", run_dir / "last.pt"
    peak_epoch: int | None = None
    peak_value: float | None = None
    selected_epoch = 0
    selected_value = -math.inf
    metrics: dict[str, float] = {}
    end, epoch = "completed", 0
    with data, _bar(config.epochs, enabled=progress) as show:
        while epoch < config.epochs:
            # Train: every epoch has its own stream, so that its frames depend on (seed, epoch) alone.
            rng = np.random.default_rng([config.seed, epoch + 1])
            weights = level_weights(config, epoch=epoch + 1, n_levels=len(selection.levels_db))
            positions_M = split.train[epoch_positions(selection.snr[split.train], weights, rng)]
            started = time.perf_counter()
            training = _train_epoch(trial, optimiser, precision, positions_M, epoch, should_stop, show)
            if isinstance(training, str):
                end = training
                save_checkpoint(last_path, snapshot(epoch, metrics))
                break
            frames_per_s = len(positions_M) / (time.perf_counter() - started)

            # Validate: always on every level.
            validation = _evaluate(trial, precision, split.val)
            epoch += 1
            _require_finite(trial, validation["loss"], epoch)
            if peak_value is None or validation["combined_acc"] > peak_value:
                peak_epoch, peak_value = epoch, validation["combined_acc"]
            weight_mod, weight_snr = trial.criterion.weights().tolist()
            metrics = {
                "epoch": epoch,
                "lr": optimiser.param_groups[0]["lr"],
                **{f"train/{name}": training[name] for name in ("loss", "combined_acc", "mod_acc", "snr_acc")},
                **{f"val/{name}": value for name, value in validation.items()},
                "weight/mod": weight_mod,
                "weight/snr": weight_snr,
                "throughput/frames_per_s": frames_per_s,
                "best/combined_acc": peak_value,
            }

            # Checkpoint first, then tell: what was logged can be found on disk.
            value = validation["combined_acc"] if config.select_by == "combined_acc" else -validation["loss"]
            if value > selected_value:
                selected_epoch, selected_value = epoch, value
                save_checkpoint(best_path, snapshot(epoch, metrics))
            save_checkpoint(last_path, snapshot(epoch, metrics))
            record.log(metrics)
            if is_exhausted(config, epoch=epoch, best_epoch=selected_epoch):
                end = "patience"
                break

        # --- Test: the selected checkpoint, once, and only for trials that ended by themselves ---
        test: dict[str, float] | None = None
        if end in {"completed", "patience"}:
            checkpoint = load_checkpoint(best_path, device=device)
            model.load_state_dict(checkpoint.model)
            trial.criterion.load_state_dict(checkpoint.criterion)
            tested = _evaluate(trial, precision, split.test)
            test = {f"test/{name}": value for name, value in tested.items() if name != "loss"}

    facts: dict[str, Any] = {
        "best_epoch": peak_epoch,
        "checkpoint_epoch": selected_epoch or None,
        "bad_frames": int(trial.representation.bad_frames),
    }
    if test is not None:
        facts |= {"test_checkpoint_epoch": selected_epoch, **test}
    record.summary(facts)
    return TrialResult(
        end=end,
        epochs=epoch,
        best_epoch=peak_epoch,
        best_value=peak_value,
        checkpoint=best_path if selected_epoch else None,
        test=test,
    )


@dataclass(frozen=True)
class _Trial:
    """What stays the same while a trial runs."""

    config: TrialConfig
    device: torch.device
    feed: _Feed
    model: nn.Module  # owns the weights
    forward: Callable[[Tensor], tuple[Tensor, Tensor]]  # the model, or its compiled form
    representation: Representation
    criterion: MultiTaskLoss
    levels_db: Tensor

    def images(self, iq_BTC: Tensor) -> Tensor:
        image_BCHW: Tensor = self.representation(iq_BTC)
        return image_BCHW.contiguous(memory_format=torch.channels_last)


class _Precision:
    """Mixed precision on CUDA: bfloat16 where the GPU computes in it, else float16 with a scaled loss."""

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        self.enabled = config.amp and device.type == "cuda"
        native_bfloat16 = self.enabled and torch.cuda.get_device_capability(device) >= (8, 0)
        self._device_type = device.type
        self._dtype = torch.bfloat16 if native_bfloat16 or not self.enabled else torch.float16
        # Only float16 has so little range that gradients vanish in it.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.enabled and not native_bfloat16)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self._device_type, dtype=self._dtype, enabled=self.enabled)


class _Feed:
    """Frames of a selection, batch by batch on the device, the next one read while the model computes."""

    def __init__(self, data: RadioMLFile, selection: Selection, device: torch.device) -> None:
        self._data = data
        self._rows_M = selection.rows
        self._modulation_M = torch.from_numpy(selection.modulation)
        self._snr_M = torch.from_numpy(selection.snr)
        self._device = device

    def batches(self, chunks: list[npt.NDArray[np.int64]]) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
        """Yield (frames (B, T, C), modulation (B,), SNR (B,)) of every chunk of positions."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="frames") as reader:
            ahead = reader.submit(self._read, chunks[0])
            for following in [*chunks[1:], None]:
                batch = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following)
                iq_BTC, modulation_B, snr_B = (tensor.to(self._device, non_blocking=True) for tensor in batch)
                yield iq_BTC, modulation_B, snr_B

    def _read(self, positions_B: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        index_B = torch.from_numpy(positions_B)
        iq_BTC = torch.from_numpy(self._data.frames(self._rows_M[positions_B]))
        batch = (iq_BTC, self._modulation_M[index_B], self._snr_M[index_B])
        if self._device.type == "cuda":  # only pinned memory is copied without waiting
            return batch[0].pin_memory(), batch[1].pin_memory(), batch[2].pin_memory()
        return batch


class _Totals:
    """Sums over an epoch, kept on the device and read once."""

    def __init__(self, levels_db: Tensor) -> None:
        self._levels_db = levels_db
        self._sums = torch.zeros(5, dtype=torch.float64, device=levels_db.device)
        self._n_frames = 0

    @torch.no_grad()
    def add(self, loss: Tensor, logits: tuple[Tensor, Tensor], modulation_B: Tensor, snr_B: Tensor) -> None:
        snr_guess_B = logits[1].argmax(dim=1)
        mod_right_B = logits[0].argmax(dim=1) == modulation_B
        snr_right_B = snr_guess_B == snr_B
        error_db_B = (self._levels_db[snr_guess_B] - self._levels_db[snr_B]).abs()
        self._sums += torch.stack(
            [
                loss.double() * len(snr_B),
                (mod_right_B & snr_right_B).sum(),
                mod_right_B.sum(),
                snr_right_B.sum(),
                error_db_B.double().sum(),
            ]
        )
        self._n_frames += len(snr_B)

    def means(self) -> dict[str, float]:
        """Wait for the device and return the epoch's means."""
        names = ("loss", "combined_acc", "mod_acc", "snr_acc", "snr_mae_db")
        return dict(zip(names, (self._sums / self._n_frames).tolist(), strict=True))


def _optimiser(trial: _Trial) -> torch.optim.AdamW:
    # Biases, norms and the log-variances have no scale to be decayed to; only matrices and kernels are.
    parameters = [*trial.model.parameters(), *trial.criterion.parameters()]
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.ndim >= 2],
            "weight_decay": trial.config.weight_decay,
        },
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=trial.config.base_lr, fused=trial.device.type == "cuda")


def _train_epoch(
    trial: _Trial,
    optimiser: torch.optim.Optimizer,
    precision: _Precision,
    positions_M: npt.NDArray[np.int64],
    epoch: int,
    should_stop: Callable[[], str | None],
    show: Callable[[int, int, int], None],
) -> dict[str, float] | str:
    """Train on the positions in their order; return the means, or the reason to stop. ``epoch`` are complete."""
    config = trial.config
    steps = _chunks(positions_M, config.batch_size)
    if len(steps) > 1 and len(steps[-1]) < config.batch_size:
        # Batch norm on a few left-over frames is noise, and on one an error; the next shuffle brings them back.
        steps.pop()
    micro = config.micro_batch_size or config.batch_size
    micro_steps = [np.array_split(step, math.ceil(len(step) / micro)) for step in steps]

    trial.model.train()
    totals = _Totals(trial.levels_db)
    first_bad_step = torch.full((), len(steps), device=trial.device)  # on the device: noticing NaN must not wait
    guard_every = _GUARD_EVERY[trial.device.type]
    batches = trial.feed.batches([chunk for chunks in micro_steps for chunk in chunks])
    with contextlib.closing(batches):
        for step, chunks in enumerate(micro_steps):
            if reason := should_stop():
                return reason
            rate = learning_rate(config, epoch + step / len(steps))
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)

            for chunk in chunks:
                iq_BTC, modulation_B, snr_B = next(batches)
                image_BCHW = trial.images(iq_BTC)
                with precision.autocast():
                    logits = trial.forward(image_BCHW)
                loss = trial.criterion(*logits, modulation_B, snr_B)
                precision.scaler.scale(loss * (len(chunk) / len(steps[step]))).backward()
                totals.add(loss.detach(), logits, modulation_B, snr_B)
                bad_step = torch.where(torch.isfinite(loss.detach()), len(steps), step)
                first_bad_step = torch.minimum(first_bad_step, bad_step)

            # The guard looks before the step, so that on the CPU the weights of a diverged step are never taken.
            if (step % guard_every == 0 or step == len(steps) - 1) and (bad := int(first_bad_step)) < len(steps):
                raise Diverged(
                    f"the training loss is not finite in epoch {epoch + 1}, step {bad + 1} of {len(steps)}, learning "
                    f"rate {learning_rate(config, epoch + bad / len(steps)):.3g}"
                )
            if config.grad_clip_norm is not None:
                precision.scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(trial.model.parameters(), config.grad_clip_norm)
            precision.scaler.step(optimiser)
            precision.scaler.update()
            show(epoch, step + 1, len(steps))
    return totals.means()


@torch.no_grad()
def _evaluate(trial: _Trial, precision: _Precision, positions_M: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the means over the positions: loss, combined_acc, mod_acc, snr_acc, snr_mae_db."""
    trial.model.eval()
    totals = _Totals(trial.levels_db)
    size = trial.config.micro_batch_size or trial.config.batch_size
    for iq_BTC, modulation_B, snr_B in trial.feed.batches(_chunks(positions_M, size)):
        with precision.autocast():
            logits = trial.forward(trial.images(iq_BTC))
        totals.add(trial.criterion(*logits, modulation_B, snr_B), logits, modulation_B, snr_B)
    return totals.means()


def _require_finite(trial: _Trial, val_loss: float, epoch: int) -> None:
    """Refuse a state that no checkpoint may hold.

    Raises:
        Diverged: the validation loss, a weight or a running mean is not finite.
    """
    names = [name for name, tensor in trial.model.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    where = f"after epoch {epoch}, learning rate up to {trial.config.max_lr:.3g}"
    if names:
        raise Diverged(f"{len(names)} weights are not finite {where}, the first is {names[0]}")
    if not math.isfinite(val_loss):
        raise Diverged(f"the validation loss is not finite ({val_loss}) {where}")


def _chunks(positions_M: npt.NDArray[np.int64], size: int) -> list[npt.NDArray[np.int64]]:
    return [positions_M[start : start + size] for start in range(0, len(positions_M), size)]


@contextlib.contextmanager
def _bar(n_epochs: int, *, enabled: bool) -> Iterator[Callable[[int, int, int], None]]:
    """Lend a function of (complete epochs, steps done, steps an epoch) that draws a bar on stderr."""
    if not enabled:
        yield lambda epoch, step, n_steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("training", total=n_epochs)
        yield lambda epoch, step, n_steps: progress.update(
            task, completed=epoch + step / n_steps, description=f"epoch {epoch + 1}/{n_epochs}"
        )
