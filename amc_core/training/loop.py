"""One trial: frames in, checkpoints and numbers out. Knows nothing of W&B or of signals; its caller does.

The loop reads down the page; a pass over frames is in steps.py, what comes from a checkpoint is judged in lineage.py.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from amc_core.config import TrialConfig
from amc_core.data.bad_frames import BadFrames
from amc_core.data.feed import Feed
from amc_core.data.radioml import RadioMLFile, select
from amc_core.data.splits import split_fingerprint, stratified_split
from amc_core.inputs.representations import Representation
from amc_core.machine.memory import keep_freed_memory
from amc_core.machine.provenance import device_name, git_commit
from amc_core.models.classifier import build_model
from amc_core.modulations import LABEL_SETS
from amc_core.training.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    best_by,
    keep_as,
    load_checkpoint,
    save_checkpoint,
    set_aside,
)
from amc_core.training.curriculum import epoch_positions, level_weights
from amc_core.training.evaluation import Evaluation
from amc_core.training.lineage import SplitFacts, find_parent, load_weights, require_same_trial, trace
from amc_core.training.losses import MultiTaskLoss
from amc_core.training.micro_batches import micro_batch_frames
from amc_core.training.pictures import draw_pictures
from amc_core.training.progress import Standing
from amc_core.training.recorders import write_evaluation
from amc_core.training.restore import inherit_best, random_state, restore
from amc_core.training.schedules import learning_rate
from amc_core.training.steps import Diverged, Pass, Precision, Trial, evaluate, make_optimiser, train_epoch

__all__ = ["Diverged", "Recorder", "TrialResult", "train"]

_NATURAL_ENDS = frozenset({"completed", "patience"})


class Recorder(Protocol):
    """Where a trial's numbers go."""

    def config(self, facts: Mapping[str, Any]) -> None:
        """Take what holds for the whole run; called once, before the first epoch."""

    def log(self, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one epoch: metric_names.EPOCH_METRICS, detail_metrics, and some OCCASIONAL_METRICS."""

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
    pictures: tuple[Path, ...]  # PNG files of the test, or of this trial's best validation where there was none


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
        run_dir: folder for the checkpoints (see checkpoint.py), ``evaluation/`` and pictures; made if missing.
        record: receives facts, one row of metrics an epoch, and the summary.
        should_stop: asked between optimiser steps and between batches of an evaluation; a reason saves last.pt there
            and then, and ends the trial without a test.
        progress: show a bar on stderr.

    Raises:
        DataError: the data file cannot be used.
        ConfigError: the model cannot be built, or the checkpoint to start from is of another trial, network or split.
        CheckpointError: that checkpoint is missing or damaged.
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

    # --- Parent: where the weights come from, and whether they may ---
    found = find_parent(config)
    parent = found[1] if found else None
    own_split = SplitFacts.of(
        config, levels_db=selection.levels_db, split_fingerprint=fingerprint, data_fingerprint=data.fingerprint
    )
    lineage = trace(config, own_split, parent, data, selection, split)
    resumed = parent if config.resume_from else None
    if resumed is not None:
        require_same_trial(config, resumed, own_split)

    # --- Model, loss, optimiser: seeded before the first weight is drawn ---
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()
    frames_in = data.hold(selection.rows, device)
    model = build_model(config, n_modulations=len(selection.columns), n_levels=len(selection.levels_db))
    if found:
        load_weights(model, found[1], found[0], fresh_heads=lineage.fresh_heads)
    # Convolutions on tensor cores and in oneDNN want channels last.
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = torch.compile(model) if config.compile else model
    representation = Representation(config).to(device)
    example_1X = representation(torch.zeros(1, 1024, 2, device=device))
    micro_frames = micro_batch_frames(config, device, model, forward, example_1X)
    if resumed is not None and resumed.config["micro_batch_size"] == config.micro_batch_size:
        # Batch norm is to see batches of the same size, unless this GPU has less room than the one before.
        was = int(resumed.training["micro_batch_frames"])
        if micro_frames < was:
            _tell(
                f"resume_from: {was} frames a forward pass do not fit here, {micro_frames} do; a network with batch "
                "norm will not give the numbers of an uninterrupted trial"
            )
        micro_frames = min(was, micro_frames)
    trial = Trial(
        config=config,
        device=device,
        selection=selection,
        feed=Feed(data, selection, representation, device),
        model=model,
        forward=forward,
        criterion=MultiTaskLoss(config, selection.levels_db).to(device),
        micro_batch_frames=micro_frames,
    )
    optimiser = make_optimiser(trial)
    precision = Precision(config, device)
    standing = Standing()
    done = Pass(selection, device)
    bad_frames = BadFrames(representation.bad_frames)
    metrics: dict[str, float] = {}
    if found and resumed is not None:
        standing = restore(trial, optimiser, precision, resumed)
        metrics = dict(resumed.metrics)
        if resumed.split_fingerprint == fingerprint:
            inherit_best(found[0], resumed, config, run_dir)
            done.load_state_dict(resumed.training["pass"])
            bad_frames.load_state_dict(resumed.training["bad_frames"])
        else:  # other frames validate, and the interrupted epoch has other ones
            set_aside(run_dir)
            standing = standing.on_another_split()
    else:
        set_aside(run_dir)
    record.config(
        {
            "split_fingerprint": fingerprint,
            "data_fingerprint": data.fingerprint,
            "label_set": config.label_set,
            "n_train": len(split.train),
            "n_val": len(split.val),
            "n_test": len(split.test),
            "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "micro_batch_frames": trial.micro_batch_frames,
            "frames_in": frames_in,
            "seed": config.seed,
            "select_by": config.select_by,
            "device_name": device_name(device),
            "git_commit": git_commit(),
            **lineage.facts(),
        }
    )

    def save_last() -> None:
        _require_finite(trial, done.steps_done, standing.epoch)
        checkpoint = Checkpoint(
            run=run_dir.name,
            config=config.to_mapping(),
            epoch=standing.epoch,
            steps_done=done.steps_done,
            split_fingerprint=fingerprint,
            trained_on=[facts.to_mapping() for facts in lineage.trained_on],
            metrics=metrics,
            model=model.state_dict(),
            criterion=trial.criterion.state_dict(),
            training={
                "optimiser": optimiser.state_dict(),
                "scaler": precision.scaler.state_dict(),
                "standing": standing.to_mapping(),
                "pass": done.state_dict(),
                "bad_frames": bad_frames.state_dict(),
                "random": random_state(device),
                "micro_batch_frames": trial.micro_batch_frames,
            },
        )
        save_checkpoint(run_dir / LAST, checkpoint)

    if resumed is not None and resumed.split_fingerprint != fingerprint:
        save_last()  # in the parent's own folder, nothing that can be continued is left beside what was set aside

    # --- Epochs ---
    test: Evaluation | None = None
    pictures: list[Path] = []
    told = False
    with data, _bar(config.epochs, enabled=progress) as show:
        while (end := standing.natural_end(config)) is None:
            # Train: every epoch has its own stream, so that its frames depend on (seed, epoch) alone.
            epochs_done, reductions = standing.epoch, standing.plateau.reductions
            rng = np.random.default_rng([config.seed, epochs_done + 1])
            weights = level_weights(config, epoch=epochs_done + 1, n_levels=len(selection.levels_db))
            positions_M = split.train[epoch_positions(selection.snr[split.train], weights, rng)]
            end = train_epoch(
                trial,
                optimiser,
                precision,
                positions_M,
                done=done,
                rate=lambda part, start=epochs_done, times=reductions: learning_rate(  # type: ignore[misc]
                    config, start + part, reductions=times
                ),
                where=f"epoch {epochs_done + 1}",
                should_stop=should_stop,
                show=lambda part, start=epochs_done: show(start + part),  # type: ignore[misc]
            )
            if end is not None:
                save_last()
                bad_frames.finish("train")
                break

            # Validate: always on every level.
            bad = {"train/bad_frames": bad_frames.finish("train")}
            outcome = evaluate(trial, precision, split.val, should_stop=should_stop)
            if isinstance(outcome, str):
                end = outcome
                save_last()
                break
            bad["val/bad_frames"] = bad_frames.finish("val")
            validation, training = outcome, done.evaluation()
            if not math.isfinite(validation.loss):
                _require_finite(trial, 0, epochs_done + 1)  # a weight says more
                raise Diverged(
                    f"the validation loss is not finite ({validation.loss}) after epoch {epochs_done + 1}, learning "
                    f"rate up to {config.max_lr:.3g}"
                )
            standing = standing.after_epoch(config, combined_acc=validation.combined_acc, loss=validation.loss)
            weight_mod, weight_snr = trial.criterion.weights().tolist()
            metrics = {
                "epoch": standing.epoch,
                "lr": optimiser.param_groups[0]["lr"],
                **{f"train/{name}": value for name, value in training.summary().items() if name != "snr_mae_db"},
                **{f"val/{name}": value for name, value in validation.summary().items()},
                **validation.detail(),
                **{name: count for name, count in bad.items() if count},
                "gap/combined_acc": training.combined_acc - validation.combined_acc,
                "weight/mod": weight_mod,
                "weight/snr": weight_snr,
                "throughput/frames_per_s": training.n_frames / done.seconds,
                "best/combined_acc": standing.combined_acc.value or 0.0,
            }

            # Checkpoint first, then tell: what was logged can be found on disk.
            done = Pass(selection, device)
            save_last()
            for criterion in standing.improved():
                keep_as(run_dir / LAST, best_by(criterion))
                if criterion == config.select_by:
                    keep_as(run_dir / LAST, BEST)
            write_evaluation(run_dir, f"epoch_{standing.epoch:04d}", validation, facts=metrics)
            if config.select_by in standing.improved():  # now: a trial that crashes later draws nothing at its end
                pictures = draw_pictures(run_dir, validation, title=f"val, epoch {standing.epoch}")
            record.log(metrics)
            if any(bad.values()) and not told:
                told = True
                _tell(
                    f"{bad['train/bad_frames']} of {training.n_frames:,} training and {bad['val/bad_frames']} of "
                    f"{validation.n_frames:,} validation frames hold NaN or infinite samples, and an empty image "
                    f"stands for them: amc-data audit {config.data}"
                )

        # --- Test: the selected checkpoint, once, and only for trials that ended by themselves ---
        if end in _NATURAL_ENDS:
            checkpoint = load_checkpoint(run_dir / BEST)
            model.load_state_dict(checkpoint.model)
            trial.criterion.load_state_dict(checkpoint.criterion)
            outcome = evaluate(trial, precision, split.test, should_stop=should_stop)
            if isinstance(outcome, str):
                end = outcome
            else:
                test = outcome
                bad_frames.finish("test")
                facts = {"checkpoint": BEST, "checkpoint_epoch": checkpoint.epoch, "select_by": config.select_by}
                write_evaluation(run_dir, "test", test, facts=facts)

    # --- What is left of it ---
    if test is not None:
        pictures = draw_pictures(run_dir, test, title="test")
    selected = standing.selected(config)
    facts = {
        "best_epoch": standing.combined_acc.epoch or None,
        "best_loss_epoch": standing.loss.epoch or None,
        "checkpoint_epoch": selected.epoch or None,
        "bad_frames": bad_frames.total(),
    }
    tested: dict[str, float] | None = None
    if test is not None:
        tested = {f"test/{name}": value for name, value in test.summary().items() if name != "loss"}
        facts |= {"test_checkpoint": BEST, "test_checkpoint_epoch": selected.epoch, **tested}
    record.summary(facts)
    return TrialResult(
        end=end,
        epochs=standing.epoch,
        best_epoch=standing.combined_acc.epoch or None,
        best_value=standing.combined_acc.value,
        checkpoint=run_dir / BEST if selected.epoch else None,
        test=tested,
        pictures=tuple(pictures),
    )


def _require_finite(trial: Trial, steps_done: int, epochs_done: int) -> None:
    """Refuse a state that no checkpoint may hold, however it came to be saved.

    Raises:
        Diverged: a weight, a running mean or a task weight is not finite.
    """
    state = {**trial.model.state_dict(), **trial.criterion.state_dict()}
    if names := [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]:
        when = f"step {steps_done} of epoch {epochs_done + 1}" if steps_done else f"epoch {epochs_done}"
        raise Diverged(
            f"{len(names)} weights are not finite after {when}, learning rate up to {trial.config.max_lr:.3g}, "
            f"the first is {names[0]}"
        )


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def _bar(n_epochs: int, *, enabled: bool) -> Iterator[Callable[[float], None]]:
    """Lend a function of the epochs done (fractions count) that draws a bar on stderr."""
    if not enabled:
        yield lambda epochs_done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("training", total=n_epochs)
        yield lambda epochs_done: progress.update(
            task, completed=epochs_done, description=f"epoch {math.ceil(epochs_done)}/{n_epochs}"
        )
