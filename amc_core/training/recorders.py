"""A trial's numbers as plain files, without W&B; and, with or without it, the evaluation of an epoch."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amc_core.files import write_whole
from amc_core.training.evaluation import Evaluation


class FileRecorder:
    """Write config.json, history.jsonl (a line an epoch) and summary.json; print the start and every epoch on stderr.

    A reader never sees half a JSON value. A second trial in the same folder starts a new history.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._config: dict[str, Any] = {}
        self._summary: dict[str, Any] = {}
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "history.jsonl").write_text("", encoding="utf-8")

    def config(self, facts: Mapping[str, Any]) -> None:
        """Add facts that hold for the whole run."""
        self._config.update(facts)
        _replace(self.run_dir / "config.json", self._config)
        if "frames_in" in facts:
            sys.stderr.write(_start_line(facts) + "\n")

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append one epoch."""
        with (self.run_dir / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(metrics)) + "\n")
        sys.stderr.write(_epoch_line(metrics) + "\n")
        sys.stderr.flush()
        self.summary(metrics)

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Add or replace last values."""
        self._summary.update(facts)
        _replace(self.run_dir / "summary.json", self._summary)


def write_evaluation(run_dir: Path, stem: str, evaluation: Evaluation, *, facts: Mapping[str, Any]) -> Path:
    """Write ``evaluation/STEM.json`` with everything, and the same as five CSV tables; return the folder.

    ``STEM_metrics.csv`` has a row a single value, the facts first; ``STEM_scores.csv`` a row a modulation, family and
    SNR level; ``STEM_attractors.csv`` a row a level that an attractor swallows, with the share of its frames;
    ``STEM_modulation_confusion.csv`` and ``STEM_snr_confusion.csv`` a row a true class and a column a guessed one. A
    continued trial replaces the files of the epochs that it computes again.

    Args:
        facts: values to add, such as the metrics of the epoch or the checkpoint.
    """
    folder = run_dir / "evaluation"
    folder.mkdir(exist_ok=True)
    content = evaluation.to_mapping()
    _replace(folder / f"{stem}.json", {**facts, **content})
    single = {**facts, "n_frames": evaluation.n_frames, **evaluation.summary()}
    _replace_csv(folder / f"{stem}_metrics.csv", ("metric", "value"), single.items())
    swallowed = [
        (attractor.snr_db, true_db, share)
        for attractor in evaluation.attractors
        for true_db, share in attractor.swallowed.items()
    ]
    _replace_csv(folder / f"{stem}_attractors.csv", ("attractor_db", "true_db", "share"), swallowed)
    columns = ("kind", "name", "n_frames", "precision", "recall", "f1", "combined_acc", "mod_acc")
    kinds = {"modulation": content["by_modulation"], "family": content["by_family"], "snr": content["by_snr"]}
    rows = [
        {"kind": kind, "name": score.get("name", score.get("snr_db")), **score}
        for kind, scores in kinds.items()
        for score in scores
    ]
    table = [[row.get(column, "") for column in columns] for row in rows]
    _replace_csv(folder / f"{stem}_scores.csv", columns, table)
    for task, classes in (("modulation", content["modulations"]), ("snr", content["snr_levels_db"])):
        counts = [[name, *row] for name, row in zip(classes, content[f"{task}_confusion"], strict=True)]
        _replace_csv(folder / f"{stem}_{task}_confusion.csv", ("true", *classes), counts)
    return folder


def _start_line(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['n_train']:,} / {facts['n_val']:,} / {facts['n_test']:,} frames (train / val / test) from "
        f"{facts['frames_in']}, {facts['n_parameters']:,} parameters, {facts['micro_batch_frames']} frames a forward "
        f"pass, on {facts['device_name']}"
    )


def _epoch_line(metrics: Mapping[str, float]) -> str:
    names = ("train/combined_acc", "val/combined_acc", "val/mod_acc", "val/snr_acc")
    accuracies = "  ".join(f"{name} {metrics[name]:.2%}" for name in names)
    return f"epoch {metrics['epoch']:.0f}  lr {metrics['lr']:.2e}  val/loss {metrics['val/loss']:.4f}  {accuracies}"


def _replace(path: Path, values: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(dict(values), indent=2) + "\n")


def _replace_csv(path: Path, header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_whole(path, text.getvalue())
