"""The evaluation of an epoch as files: their names, in a run's folder and with W&B, and their content (no torch).

Six files an epoch would be 259,200 for 288 runs of 150 epochs, and many disks limit the number of files. So only the
best epochs and the last one have files of their own. The others are lines of one file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amc_core.files import append_durably, write_whole

if TYPE_CHECKING:
    from amc_core.training.evaluation import Evaluation

EVALUATION = "evaluation"  # folder of these files and of the pictures, in a run's folder
SCORE_COLUMNS = ("kind", "name", "n_frames", "precision", "recall", "f1", "combined_acc", "mod_acc", "snr_mae_db")
EARLIER_EPOCHS = f"{EVALUATION}/earlier_epochs.jsonl"  # the validations of epochs without files of their own
BEST_FILE = f"{EVALUATION}/best.json"  # with W&B: a copy of the epoch with the highest val/combined_acc so far

_TABLES = ("metrics", "scores", "attractors", "modulation_confusion", "snr_confusion")
_EPOCH_NAME = re.compile(r"epoch_(\d{4,})\.json")


def epoch_stem(epoch: int) -> str:
    """Return the part that the names of all files of one epoch's validation begin with."""
    return f"epoch_{epoch:04d}"


def epoch_file(epoch: int) -> str:
    """Return the file of one epoch's validation, which ``write_evaluation`` writes."""
    return f"{EVALUATION}/{epoch_stem(epoch)}.json"


def write_evaluation(run_dir: Path, stem: str, evaluation: Evaluation, *, facts: Mapping[str, Any]) -> Path:
    """Write ``evaluation/STEM.json`` with everything, and the same as five CSV tables; return the folder.

    - ``STEM_metrics.csv``: a row per value, the facts first
    - ``STEM_scores.csv``: a row per modulation, family and SNR level
    - ``STEM_attractors.csv``: a row per level that an attractor swallows, with the share of its frames
    - ``STEM_modulation_confusion.csv``, ``STEM_snr_confusion.csv``: a row per true class, a column per guessed class

    A continued trial replaces the files of the epochs that it computes again. ``keep_epochs`` takes them away later.

    Args:
        facts: values to add, such as the metrics of the epoch or the checkpoint.
    """
    folder = run_dir / EVALUATION
    folder.mkdir(exist_ok=True)
    content = evaluation.to_mapping()
    write_whole(folder / f"{stem}.json", json.dumps({**facts, **content}, indent=2) + "\n")
    metrics = {**facts, "n_frames": evaluation.n_frames, **evaluation.summary()}
    replace_csv(folder / f"{stem}_metrics.csv", ("metric", "value"), metrics.items())
    swallowed = [
        (attractor.snr_db, true_db, share)
        for attractor in evaluation.attractors
        for true_db, share in attractor.swallowed.items()
    ]
    replace_csv(folder / f"{stem}_attractors.csv", ("attractor_db", "true_db", "share"), swallowed)
    table = [[row.get(column, "") for column in SCORE_COLUMNS] for row in score_rows(content)]
    replace_csv(folder / f"{stem}_scores.csv", SCORE_COLUMNS, table)
    for task, classes in (("modulation", content["modulations"]), ("snr", content["snr_levels_db"])):
        counts = [[name, *row] for name, row in zip(classes, content[f"{task}_confusion"], strict=True)]
        replace_csv(folder / f"{stem}_{task}_confusion.csv", ("true", *classes), counts)
    return folder


def score_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per modulation, family and SNR level of ``Evaluation.to_mapping()``; SCORE_COLUMNS are in them."""
    kinds = {"modulation": content["by_modulation"], "family": content["by_family"], "snr": content["by_snr"]}
    return [
        {"kind": kind, "name": score.get("name", score.get("snr_db")), **score}
        for kind, scores in kinds.items()
        for score in scores
    ]


def replace_csv(path: Path, header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV table whole; an old file is replaced."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_whole(path, text.getvalue())


def keep_epochs(run_dir: Path, epochs: Collection[int]) -> None:
    """Move the validations of all other epochs into EARLIER_EPOCHS, a line each.

    Their files are removed once the lines are on disk. After a kill in between, the next call writes the lines again.
    """
    folder = run_dir / EVALUATION
    lines: dict[str, bytes] = {}  # by stem
    for path in sorted(folder.glob("epoch_*.json")):
        match = _EPOCH_NAME.fullmatch(path.name)
        if match and int(match[1]) not in epochs:
            with contextlib.suppress(ValueError, FileNotFoundError):  # a damaged file stays as it is
                lines[path.stem] = json.dumps(json.loads(path.read_bytes()), separators=(",", ":")).encode()
    if not lines:
        return
    append_durably(run_dir / EARLIER_EPOCHS, lines.values())
    for stem in lines:
        for table in _TABLES:
            (folder / f"{stem}_{table}.csv").unlink(missing_ok=True)
        (folder / f"{stem}.json").unlink(missing_ok=True)


def read_epoch(run_dir: Path, epoch: int) -> bytes | None:
    """Return the validation of one epoch as JSON, from its own file or from EARLIER_EPOCHS; None where there is none.

    An epoch that was computed again has two lines; the later one counts.
    """
    try:
        return (run_dir / epoch_file(epoch)).read_bytes()
    except OSError:
        found = None
    with contextlib.suppress(OSError), (run_dir / EARLIER_EPOCHS).open("rb") as file:
        for line in file:
            if b'"epoch":%d' % epoch in line and _epoch_of(line) == epoch:
                found = line
    return found


def _epoch_of(line: bytes) -> Any:
    """Return the epoch of a line of EARLIER_EPOCHS; None for one that a kill cut off, and for another program's."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content.get("epoch") if isinstance(content, dict) else None
