"""One pass over frames: optimiser steps, renewing batch norm's statistics, or an evaluation. Each can be asked to stop.

In names: B frames of a batch, M positions in the selection.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from amc_core.data.feed import Batch, Positions
from amc_core.inputs.augmentation import epoch_draws
from amc_core.training.batch_statistics import keeps_statistics, measured_moments, replace_statistics
from amc_core.training.evaluation import Evaluation
from amc_core.training.micro_batches import divide_batch, explained_few_frames
from amc_core.training.schedules import learning_rate
from amc_core.training.state import Diverged, TrainingState
from amc_core.training.step.compilation import warm_up

# Steps between two checks for NaN. A check waits for the GPU, so it is rare there; on the CPU it is free.
_STEPS_PER_CHECK = {"cuda": 50, "cpu": 1}


def train_epoch(
    state: TrainingState,
    positions_M: Positions,
    *,
    should_stop: Callable[[], str | None],
    show: Callable[[float], None],
) -> str | None:
    """Train on the positions in their order, from step ``state.tally.steps_done`` on; return a reason to stop, or None.

    Args:
        should_stop: asked before every optimiser step. A stop leaves whole steps: the tally, the weights, the optimiser
            and torch's random numbers are those after the last one.
        show: called with the number of epochs done (fractions count).

    Raises:
        Diverged: the loss is not finite.
        ConfigError: batch norm needs more frames.
    """
    context, tally = state.context, state.tally
    steps = _batches(positions_M, context.config.batch_size)
    if len(steps) > 1 and len(steps[-1]) < context.config.batch_size:
        # Batch norm of a few frames is noise, of one frame an error. The next shuffle uses these frames again.
        steps.pop()
    micro_steps = [divide_batch(step, context.micro_batch_frames) for step in steps]
    steps_per_check = _STEPS_PER_CHECK[context.device.type]
    steps_checked = tally.steps_done

    chunks = [chunk for step in micro_steps[tally.steps_done :] for chunk in step]
    draws_MX = _random_draws(state)
    tally.compile_s += _compile(state, chunks, draws_MX)

    context.model.train()
    start = time.perf_counter() - tally.seconds
    batches = context.feed.batches(chunks, draws_MX=draws_MX)
    with contextlib.closing(batches):
        for step in range(tally.steps_done, len(steps)):
            if reason := should_stop():
                _require_finite_loss(state, steps_checked, step, len(steps))  # the last check may be long ago
                return reason
            _set_learning_rate(state, step / len(steps))
            _accumulate_gradients(state, batches, micro_steps[step])
            # Check before the step, so that on the CPU no diverged step reaches the weights.
            if step % steps_per_check == 0 or step == len(steps) - 1:
                _require_finite_loss(state, steps_checked, step + 1, len(steps))
                steps_checked = step + 1
            _step_optimiser(state)
            tally.steps_done = step + 1
            tally.seconds = time.perf_counter() - start
            show(state.progress.epoch + (step + 1) / len(steps))
    return None


@torch.no_grad()
def renew_batch_statistics(
    state: TrainingState, positions_M: Positions, *, should_stop: Callable[[], str | None]
) -> str | None:
    """Replace batch norm's running statistics by those of these frames; return a reason to stop, or None.

    They are not put back: training normalises by the batch and never reads them, and so the checkpoint has the
    statistics of its validation. The batches have the size of those in training. Their frames are not augmented, as in
    validation. No random number is drawn, and bad frames are not counted again. A stop leaves the statistics as they
    were.
    """
    context = state.context
    if not len(positions_M) or not keeps_statistics(context.model):
        return None
    chunks = divide_batch(positions_M, context.micro_batch_frames)
    batches = context.feed.batches(chunks)
    with state.bad_frames.paused(), contextlib.closing(batches), measured_moments(context.model) as moments:
        for batch in batches:
            if reason := should_stop():
                return reason
            input_BX = context.evaluation_step.model_input(batch)
            with state.precision.autocast():
                context.model(input_BX)  # a compiled step would be compiled once more for this
    replace_statistics(moments)
    return None


def evaluate(
    state: TrainingState, positions_M: Positions, *, should_stop: Callable[[], str | None]
) -> Evaluation | str:
    """Classify every position once; return the evaluation, or a reason to stop."""
    context, size = state.context, state.context.evaluation_frames
    batches = context.feed.batches(_batches(positions_M, size), size=size)
    return context.evaluation_step.classify(batches, should_stop=should_stop)


def _random_draws(state: TrainingState) -> npt.NDArray[np.float32] | None:
    """Return the random numbers that change training frames in this epoch."""
    context = state.context
    if not context.config.augment:
        return None
    return epoch_draws(len(context.selection.rows), seed=context.config.seed, epoch=state.progress.epoch + 1)


def _compile(state: TrainingState, chunks: list[Positions], draws_MX: npt.NDArray[np.float32] | None) -> float:
    """Compile the steps for sizes of training chunks that are new, and once for evaluations; return the seconds."""
    context = state.context
    chunk_of = {len(chunk): chunk for chunk in chunks if len(chunk) not in state.compiled_for}
    if not context.is_compiled or not chunk_of:
        return 0.0
    began_s = time.perf_counter()
    for size, chunk in chunk_of.items():
        batches = context.feed.batches([chunk], draws_MX=draws_MX)
        with contextlib.closing(batches), explained_few_frames(context.config, size):
            warm_up(context.training_step, next(batches), trains=True)
    if not state.compiled_for:
        size = context.evaluation_frames
        with contextlib.closing(context.feed.batches([chunks[0][:size]], size=size)) as batches:
            warm_up(context.evaluation_step, next(batches), trains=False)
    state.compiled_for.update(chunk_of)
    return time.perf_counter() - began_s


def _set_learning_rate(state: TrainingState, part_of_epoch: float) -> None:
    progress = state.progress
    rate = learning_rate(state.context.config, progress.epoch + part_of_epoch, reductions=progress.plateau.reductions)
    for group in state.optimiser.param_groups:
        group["lr"] = rate


def _accumulate_gradients(state: TrainingState, batches: Iterator[Batch], chunks: list[Positions]) -> None:
    """Run forward and backward passes over the chunks of one optimiser step, and count their guesses."""
    context, scaler = state.context, state.precision.scaler
    n_frames = sum(len(chunk) for chunk in chunks)
    state.optimiser.zero_grad(set_to_none=True)
    context.training_step.begin()
    for chunk in chunks:
        batch = next(batches)
        with explained_few_frames(context.config, len(chunk)):
            loss = context.training_step(batch)
        if len(chunks) > 1:
            loss = loss * (len(chunk) / n_frames)
        scaler.scale(loss).backward()


def _step_optimiser(state: TrainingState) -> None:
    scaler, largest_norm = state.precision.scaler, state.context.config.grad_clip_norm
    scaler.unscale_(state.optimiser)
    model = state.context.model
    if largest_norm is None:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    else:
        norm = nn.utils.clip_grad_norm_(model.parameters(), largest_norm)
    state.tally.add_gradient(norm)
    scaler.step(state.optimiser)
    scaler.update()
    if state.average is not None:
        state.average.update()


def _require_finite_loss(state: TrainingState, steps_checked: int, step: int, n_steps: int) -> None:
    """Raise Diverged where the loss of a step after ``steps_checked``, up to ``step``, is not finite."""
    if not state.tally.counts.is_finite():
        first = steps_checked + 1
        place = f"step {step}" if first >= step else f"one of the steps {first} to {step}"
        raise Diverged(
            f"the training loss is not finite in epoch {state.progress.epoch + 1}, {place} of {n_steps}, learning rate "
            f"{state.optimiser.param_groups[0]['lr']:.3g}"
        )


def _batches(positions_M: Positions, size: int) -> list[Positions]:
    return [positions_M[start : start + size] for start in range(0, len(positions_M), size)]
