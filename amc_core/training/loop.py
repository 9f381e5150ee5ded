"""One trial, from its configuration to its test scores and checkpoints. It knows nothing of W&B or of signals.

``train`` prepares, resumes, runs the epochs and finishes. A pass over frames is in steps.py, everything that changes on
the way in state.py.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from amc_core.config import TrialConfig
from amc_core.data.duplicates import duplicates_warning
from amc_core.data.radioml import RadioMLFile
from amc_core.files import remove_partial_files
from amc_core.metric_names import EPOCH_METRICS, FINAL_METRICS
from amc_core.training.checkpoint import BEST, LAST, best_by, keep_as, load_checkpoint, set_aside
from amc_core.training.epoch_lines import epoch_line, start_line, test_line
from amc_core.training.evaluation import Evaluation
from amc_core.training.evaluation_files import EVALUATION, epoch_stem, keep_epochs, write_evaluation
from amc_core.training.pictures import draw_pictures
from amc_core.training.preparation import prepare, run_facts
from amc_core.training.save_and_resume import EpochWriter, epoch_writer, resume, save_last
from amc_core.training.schedules import epoch_positions, level_draws
from amc_core.training.state import Diverged, TrainingState
from amc_core.training.steps import evaluate, renew_batch_statistics, train_epoch

_NATURAL_ENDS = frozenset({"completed", "patience"})


class Recorder(Protocol):
    """The place that takes a trial's numbers."""

    def config(self, facts: Mapping[str, Any]) -> None:
        """Take the facts of the whole run; called once, before the first epoch."""

    def log(self, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one epoch: metric_names.EPOCH_METRICS, detail_metrics, and some OCCASIONAL_METRICS."""

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Take the facts of the end."""


@dataclass(frozen=True)
class TrialResult:
    """The end of a trial, and its peak."""

    end: str  # completed, patience, or the reason that should_stop returned
    epochs: int  # complete ones
    best_epoch: int | None  # of the highest val/combined_acc, whatever select_by is
    best_value: float | None
    checkpoint: Path | None  # best.pt, chosen by select_by
    test: Mapping[str, float] | None  # metrics of that checkpoint on the test part
    pictures: tuple[Path, ...]  # PNG files of the test; without a test, of this trial's best validation


@dataclass
class _Outputs:
    run_dir: Path
    record: Recorder
    tell: Callable[[str], None]  # prints a line
    pictures: list[Path] = field(default_factory=list)


def _never() -> str | None:
    return None


def _tell_nobody(_line: str) -> None:
    pass


def train(
    config: TrialConfig,
    *,
    run_dir: Path,
    record: Recorder,
    should_stop: Callable[[], str | None] = _never,
    tell: Callable[[str], None] = _tell_nobody,
    progress: bool = False,
) -> TrialResult:
    """Run one trial to its end.

    Args:
        config: what to compute.
        run_dir: folder for the checkpoints (see checkpoint.py), ``evaluation/`` and pictures; made if missing.
        record: receives facts, one row of metrics per epoch, and the summary.
        should_stop: asked between optimiser steps and between batches of an evaluation. If it returns a reason, the
            trial saves last.pt at once and ends without a test.
        tell: prints lines while a large file is read, one at the start, one an epoch, and one of the test.
        progress: show a bar on stderr.

    Raises:
        DataError: the data file cannot be used.
        ConfigError: the model cannot be built, or the checkpoint to start from is of another trial, network or split.
        CheckpointError: that checkpoint is missing or damaged.
        Diverged: the loss or a weight is not finite.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    remove_partial_files(run_dir)  # as large as a checkpoint, where an earlier attempt was killed while it saved
    outputs = _Outputs(run_dir, record, tell)
    test: Evaluation | None = None
    with RadioMLFile(config.data, storage=config.storage) as data:
        context, parent = prepare(config, data, tell)
        state = TrainingState(context)
        if parent and config.resume_from:
            resume(state, run_dir, *parent)
        else:
            set_aside(run_dir)
        facts = run_facts(context)
        record.config(facts)
        tell(start_line(facts))
        n_heldout = facts["n_val"] + facts["n_test"]
        if warning := duplicates_warning(facts["duplicates_across_parts"], n_heldout, config.data):
            sys.stderr.write(f"{warning}\n")
        with _progress_bar(config.epochs, enabled=progress) as show:
            with epoch_writer(run_dir) as writer:
                end = _run_epochs(state, outputs, writer, should_stop, show)
            if end in _NATURAL_ENDS:
                outcome = _test(state, outputs, should_stop)
                end, test = (outcome, None) if isinstance(outcome, str) else (end, outcome)
    return _finish(state, outputs, end, test)


def _run_epochs(
    state: TrainingState,
    outputs: _Outputs,
    writer: EpochWriter,
    should_stop: Callable[[], str | None],
    show: Callable[[float], None],
) -> str:
    """Train and validate epoch by epoch; return the end reason."""
    config = state.context.config
    warned = False

    def asked_to_stop() -> str | None:
        writer.proceed()  # the epoch before this one is logged as soon as it is on the disk
        return should_stop()

    begin_s, begin_epoch = time.monotonic(), state.progress.epoch
    while (end := state.progress.natural_end(config)) is None:
        positions_M = _training_positions(state)
        if reason := train_epoch(state, positions_M, should_stop=asked_to_stop, show=show):
            writer.finish()
            save_last(state, outputs.run_dir)
            state.bad_frames.finish("train")
            return reason
        bad_train = state.bad_frames.finish("train")
        validation = _validate(state, positions_M, asked_to_stop)
        if isinstance(validation, str):
            writer.finish()
            save_last(state, outputs.run_dir)
            return validation
        bad_val = state.bad_frames.finish("val")
        _require_finite_validation(state, validation)

        training = state.tally.counts.evaluation()
        state.progress = state.progress.after_epoch(config, combined_acc=validation.combined_acc, loss=validation.loss)
        bad = {"train/bad_frames": bad_train, "val/bad_frames": bad_val}
        state.metrics = {
            **_epoch_metrics(state, training, validation),
            **{name: count for name, count in bad.items() if count},
        }
        state.start_epoch()
        epoch_s = (time.monotonic() - begin_s) / (state.progress.epoch - begin_epoch)
        line = epoch_line(state.metrics, config, state.progress, epoch_s)
        writer.write(state, _then_log(state, outputs, validation, line))
        if any(bad.values()) and not warned:
            warned = True
            sys.stderr.write(
                f"{bad_train} of {training.n_frames:,} training and {bad_val} of {validation.n_frames:,} validation "
                "frames hold NaN or infinite samples; the model sees zeros instead. Check the file: "
                f"amc-data audit {config.data}\n"
            )
    return end


def _training_positions(state: TrainingState) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the next epoch's training frames in their order.

    Every epoch has its own random stream, so that its frames depend on (seed, epoch) alone.
    """
    config, selection, train_M = state.context.config, state.context.selection, state.context.split.train
    epoch = state.progress.epoch + 1
    rng = np.random.default_rng([config.seed, epoch])
    level_M = selection.snr[train_M]
    frames_L = np.bincount(level_M, minlength=len(selection.levels_db))
    return train_M[epoch_positions(level_M, level_draws(config, epoch=epoch, frames_L=frames_L), rng)]


def _validate(
    state: TrainingState, positions_M: np.ndarray[tuple[int], np.dtype[np.int64]], should_stop: Callable[[], str | None]
) -> Evaluation | str:
    """Evaluate the epoch's weights on the validation part, always on every level; return a reason to stop instead.

    Batch norm's statistics are renewed first, on the first training frames of the epoch's random order.
    """
    sample_M = positions_M[: state.context.config.batch_norm_frames]
    with state.validated_weights():
        if reason := renew_batch_statistics(state, sample_M, should_stop=should_stop):
            return reason
        return evaluate(state, state.context.split.val, should_stop=should_stop)


def _require_finite_validation(state: TrainingState, validation: Evaluation) -> None:
    task_losses = torch.tensor([validation.loss_mod, validation.loss_snr], device=state.context.device)
    minimised = float(
        state.context.criterion.weighted(task_losses).detach()
    )  # shows learned variances that have diverged, too
    if not math.isfinite(minimised):
        state.require_finite()  # the name of a weight says more than a loss
        raise Diverged(
            f"the validation loss is not finite ({minimised}) after epoch {state.progress.epoch + 1}, learning "
            f"rate up to {state.context.config.max_lr:.3g}"
        )


def _epoch_metrics(state: TrainingState, training: Evaluation, validation: Evaluation) -> dict[str, float]:
    criterion = state.context.criterion
    weight_mod, weight_snr = criterion.weights().tolist()
    variances = criterion.variances()
    sigma2 = {} if variances is None else dict(zip(("sigma2/mod", "sigma2/snr"), variances.tolist(), strict=True))
    return {
        "epoch": state.progress.epoch,
        "lr": state.optimiser.param_groups[0]["lr"],
        **{name: value for part, value in training.summary().items() if (name := f"train/{part}") in EPOCH_METRICS},
        **{f"val/{name}": value for name, value in validation.summary().items()},
        **validation.detail(),
        "gap/combined_acc": training.combined_acc - validation.combined_acc,
        "weight/mod": weight_mod,
        "weight/snr": weight_snr,
        **sigma2,
        **state.tally.gradient_norms(),
        "throughput/frames_per_s": training.n_frames / state.tally.seconds,
        **({"throughput/compile_s": state.tally.compile_s} if state.tally.compile_s else {}),
        "best/combined_acc": state.progress.combined_acc.value or 0.0,
    }


def _then_log(state: TrainingState, outputs: _Outputs, validation: Evaluation, line: str) -> Callable[[], None]:
    """Return what to do once the epoch's last.pt is on the disk; it logs last, so a logged epoch is on the disk."""
    run_dir, select_by = outputs.run_dir, state.context.config.select_by
    progress, metrics = state.progress, state.metrics
    epoch, improved = progress.epoch, progress.improved()

    def log() -> None:
        for criterion in improved:
            keep_as(run_dir / LAST, best_by(criterion))
            if criterion == select_by:
                keep_as(run_dir / LAST, BEST)
        write_evaluation(run_dir, epoch_stem(epoch), validation, facts=metrics)
        keep_epochs(run_dir, {epoch, progress.combined_acc.epoch, progress.loss.epoch})
        if select_by in improved:  # at once, because a trial that crashes later draws nothing at its end
            outputs.pictures = draw_pictures(run_dir / EVALUATION, validation, title=f"val, epoch {epoch}")
        outputs.record.log(metrics)
        outputs.tell(line)

    return log


def _test(state: TrainingState, outputs: _Outputs, should_stop: Callable[[], str | None]) -> Evaluation | str:
    """Evaluate the selected checkpoint on the test part, once; return the evaluation, or a reason to stop."""
    context = state.context
    checkpoint = load_checkpoint(outputs.run_dir / BEST)
    context.model.load_state_dict(checkpoint.model)
    context.criterion.load_state_dict(checkpoint.criterion)
    test = evaluate(state, state.context.split.test, should_stop=should_stop)
    if isinstance(test, Evaluation):
        state.bad_frames.finish("test")
        facts = {"checkpoint": BEST, "checkpoint_epoch": checkpoint.epoch, "select_by": context.config.select_by}
        write_evaluation(outputs.run_dir, "test", test, facts=facts)
    return test


def _finish(state: TrainingState, outputs: _Outputs, end: str, test: Evaluation | None) -> TrialResult:
    progress = state.progress
    selected = progress.selected(state.context.config)
    facts: dict[str, Any] = {
        "best_epoch": progress.combined_acc.epoch or None,
        "best_loss_epoch": progress.loss.epoch or None,
        "checkpoint_epoch": selected.epoch or None,
        "bad_frames": state.bad_frames.total(),
    }
    test_metrics: dict[str, float] | None = None
    if test is not None:
        outputs.pictures = draw_pictures(outputs.run_dir / EVALUATION, test, title="test")
        test_metrics = {
            name: value for part, value in test.summary().items() if (name := f"test/{part}") in FINAL_METRICS
        }
        facts |= {"test_checkpoint": BEST, "test_checkpoint_epoch": selected.epoch, **test_metrics}
        outputs.tell(test_line(test_metrics, selected.epoch))
    outputs.record.summary(facts)
    return TrialResult(
        end=end,
        epochs=progress.epoch,
        best_epoch=progress.combined_acc.epoch or None,
        best_value=progress.combined_acc.value,
        checkpoint=outputs.run_dir / BEST if selected.epoch else None,
        test=test_metrics,
        pictures=tuple(outputs.pictures),
    )


@contextlib.contextmanager
def _progress_bar(n_epochs: int, *, enabled: bool) -> Iterator[Callable[[float], None]]:
    """Lend a function of the epochs done (fractions count) that draws a bar on stderr."""
    if not enabled:
        yield lambda epochs_done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=n_epochs)
        yield lambda epochs_done: bar.update(
            task, completed=epochs_done, description=f"epoch {math.ceil(epochs_done)}/{n_epochs}"
        )
