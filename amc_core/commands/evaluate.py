"""amc-data evaluate: score a checkpoint on a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amc_core.command_line import OutputFile, OutputFolder, refuse_one_file_twice
from amc_core.commands.terminal import open_file, progress_bar
from amc_core.modulations import label_set_text
from amc_sweeps.number_formats import counted, listed, percent

if TYPE_CHECKING:
    from amc_core.evaluate_checkpoint import CheckpointScores, LoadedCheckpoint

_MOST_MISTAKES = 3  # in a line of the table
_LEAST = 0.005  # share of a class that is listed


@click.command("evaluate")
@click.argument("checkpoint_path", type=click.Path(path_type=Path), metavar="CHECKPOINT")
@click.option(
    "--data",
    "file",
    type=click.Path(path_type=Path),
    envvar="AMC_DATA",
    show_envvar=True,
    help="Any file in RadioML's layout. Default: the file that the checkpoint was trained on.",
)
@click.option(
    "--part",
    type=click.Choice(["test", "val", "train", "all"]),
    help="Part of the checkpoint's own split. Default: test of its own file, all of another file.",
)
@click.option(
    "--without-training-frames",
    is_flag=True,
    help="Leave out frames that the checkpoint was trained on, and copies of them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything, with both confusion matrices, as JSON.")
@click.option(
    "--csv",
    "csv_path",
    type=OutputFile(),
    help="Write a row per modulation, family and SNR level: scores, and how often each class was guessed.",
)
@click.option(
    "--pictures",
    type=OutputFolder(),
    help="Draw both confusion matrices and the accuracy by SNR into this folder, as PNG files.",
)
def evaluate_command(
    checkpoint_path: Path,
    file: Path | None,
    part: str | None,
    without_training_frames: bool,
    as_json: bool,
    csv_path: Path | None,
    pictures: Path | None,
) -> None:
    """Score a checkpoint on its own test part, or on any other file.

    CHECKPOINT is a file that a trial wrote, or the folder of a run, which stands for its best.pt. Representation,
    network, classes and SNR levels are those of the checkpoint. Frames of other classes and levels are left out, and
    counted. The scores of frames that the checkpoint was trained on are too high, so those are counted, too;
    --without-training-frames leaves them out.

    \b
    amc-data evaluate runs/local-1
    amc-data evaluate runs/local-1/best_loss.pt --data recorded.hdf5 --json

    Exit codes: 0 done, 1 the checkpoint or the file cannot be used, 2 the arguments cannot be used.
    """
    from amc_core.config import ConfigError
    from amc_core.evaluate_checkpoint import PartError, evaluate_checkpoint, open_checkpoint
    from amc_core.training.checkpoint import CheckpointError

    try:
        checkpoint = open_checkpoint(checkpoint_path)
        file = file or Path(checkpoint.config.data)
        refuse_one_file_twice([csv_path], read=[checkpoint.path, file])
        with open_file(file) as data, ExitStack() as stack:
            advance: Callable[[int], None] | None = None

            def show(by: int, n_frames: int) -> None:
                nonlocal advance
                if advance is None:
                    advance = stack.enter_context(progress_bar("classifying", "frames", n_frames))
                advance(by)

            scores = evaluate_checkpoint(
                checkpoint, data, part, without_training_frames=without_training_frames, advance=show
            )
            path = data.path
    except PartError as error:
        raise click.UsageError(f"--part {part}: {error}") from error
    except (CheckpointError, ConfigError) as error:
        raise click.ClickException(str(error)) from error
    _write(checkpoint, path, scores, csv_path, pictures)
    if as_json:
        content = {**_origin(checkpoint, path), **scores.facts(), **_content(scores)}
        click.echo(json.dumps(content, indent=2))
        return
    for line in _lines(checkpoint, path, scores):
        click.echo(line)


def _origin(checkpoint: LoadedCheckpoint, file: Path) -> dict[str, Any]:
    content = checkpoint.content
    return {
        "checkpoint": str(checkpoint.path),
        "run": content.run,
        "epoch": content.epoch,
        "split_fingerprint": content.split_fingerprint,
        "data": str(file),
    }


def _content(scores: CheckpointScores) -> dict[str, Any]:
    """Return the evaluation without the scores of classes and levels that have no frame here."""
    content = scores.evaluation.to_mapping()
    kinds = ("by_modulation", "by_family", "by_snr")
    return {**content, **{kind: [score for score in content[kind] if score["n_frames"]] for kind in kinds}}


def _write(
    checkpoint: LoadedCheckpoint, file: Path, scores: CheckpointScores, csv_path: Path | None, pictures: Path | None
) -> None:
    from amc_core.training.evaluation_files import replace_csv
    from amc_core.training.pictures import draw_pictures

    try:
        if csv_path is not None:
            replace_csv(csv_path, *_table(_content(scores)))
        if pictures is not None:
            title = f"{checkpoint.content.run}, {file.name}, {scores.part}"
            draw_pictures(pictures, scores.evaluation, title=title)
    except OSError as error:
        raise click.ClickException(f"{error.filename or csv_path or pictures}: {error.strerror or error}") from error


def _table(content: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of the CSV file: all frames first, then every class with its line of the confusion."""
    from amc_core.training.evaluation_files import SCORE_COLUMNS, score_rows

    classes = {"modulation": content["modulations"], "snr": content["snr_levels_db"]}
    guessed = {kind: [f"guessed {name}{' dB' * (kind == 'snr')}" for name in names] for kind, names in classes.items()}
    columns = [*SCORE_COLUMNS, "snr_acc", *guessed["modulation"], *guessed["snr"]]
    rows: list[dict[str, Any]] = [{"kind": "all", **content}]
    for row in score_rows(content):
        if (kind := row["kind"]) in classes:
            counts = content[f"{kind}_confusion"][classes[kind].index(row["name"])]
            row |= dict(zip(guessed[kind], counts, strict=True))
        if kind == "snr":
            row["snr_acc"] = row["recall"]
        rows.append(row)
    return columns, [[row.get(column, "") for column in columns] for row in rows]


def _lines(checkpoint: LoadedCheckpoint, file: Path, scores: CheckpointScores) -> list[str]:
    content, config, own = _content(scores), checkpoint.config, checkpoint.own_split
    lines = [
        f"{checkpoint.path}: epoch {checkpoint.content.epoch} of run {checkpoint.content.run}, {config.model_type} on "
        f"{config.representation}, label_set {label_set_text(own.label_set)}, "
        f"{counted(len(own.levels_db), 'SNR level')}, "
        f"{own.levels_db[0]}..{own.levels_db[-1]} dB",
        f"{file}, part {scores.part}: {counted(content['n_frames'], 'frame')}",
        *_notes(scores),
        "",
        f"{'':>12}  {'frames':>9}  {'both right':>10}  {'modulation':>10}  {'SNR':>7}  {'SNR error':>9}",
        _accuracies("all", content, content["snr_acc"]),
        *(_accuracies(f"{level['snr_db']} dB", level, level["recall"]) for level in content["by_snr"]),
        f"modulation: {percent(content['mod_acc_mean'], 2)} in the mean over these levels, "
        f"{percent(content['mod_acc_peak'], 2)} at the best one",
    ]
    levels = [f"{level} dB" for level in content["snr_levels_db"]]
    kinds = (("modulation", content["modulations"]), ("SNR", levels))
    for (title, names), confusion in zip(kinds, ("modulation_confusion", "snr_confusion"), strict=True):
        width = max(12, *map(len, names))
        lines += ["", f"{title:>{width}}  {'frames':>9}  {'right':>7}  most often mistaken for"]
        lines += _mistakes(names, content[confusion], width)
    return lines


def _notes(scores: CheckpointScores) -> list[str]:
    """Return what must be known to read the scores."""
    n_frames, notes = scores.evaluation.n_frames, []
    if scores.n_trained_on is None:
        notes.append("whether it has copies of training frames is unknown: the file of its training is not here")
    elif scores.n_trained_on:
        share = f"{scores.n_trained_on:,} of {counted(n_frames, 'frame')}"
        way = "leave them out with --without-training-frames"
        notes.append(f"{share} were in its training part, so the scores are too high: {way}")
    if scores.n_without:
        notes.append(f"left out: {counted(scores.n_without, 'frame')} that it was trained on")
    if scores.n_left_out:
        notes.append(f"left out: {counted(scores.n_left_out, 'frame')} of classes or SNR levels that it does not know")
    missing = [*scores.missing_classes, *(f"{level} dB" for level in scores.missing_levels_db)]
    if missing:
        notes.append(f"no frame here is of {listed(missing, most=24)}: the scores say nothing about these")
    if scores.n_bad_frames:
        notes.append(f"{counted(scores.n_bad_frames, 'frame')} with NaN or infinite samples; the model sees zeros")
    return [f"  {note}" for note in notes]


def _accuracies(name: str, scores: Mapping[str, Any], snr_acc: float) -> str:
    return (
        f"{name:>12}  {scores['n_frames']:>9,}  {percent(scores['combined_acc'], 2):>10}  "
        f"{percent(scores['mod_acc'], 2):>10}  {percent(snr_acc, 2):>7}  {scores['snr_mae_db']:>6.2f} dB"
    )


def _mistakes(names: Sequence[str], confusion: Sequence[Sequence[int]], width: int) -> list[str]:
    """Return a line per true class that has frames, with the classes that it is taken for."""
    lines = []
    for place, (name, counts) in enumerate(zip(names, confusion, strict=True)):
        n_frames = sum(counts)
        if not n_frames:
            continue
        guesses = sorted(((count / n_frames, names[guess]) for guess, count in enumerate(counts) if guess != place))
        wrong = [f"{guess} {percent(share)}" for share, guess in guesses[: -_MOST_MISTAKES - 1 : -1] if share >= _LEAST]
        lines.append(f"{name:>{width}}  {n_frames:>9,}  {percent(counts[place] / n_frames, 2):>7}  {', '.join(wrong)}")
    return [line.rstrip() for line in lines]
