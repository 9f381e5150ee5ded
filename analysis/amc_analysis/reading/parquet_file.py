"""Records as one Parquet file, which notebooks, colleagues and machines without the server can read.

There is one row per logged row: ``record`` (the number of the sweep in the file), ``run`` (its id), ``row`` (from 0),
then one float64 column per metric: null where the row does not hold it, NaN where NaN was logged. Sweeps and runs are
JSON in the file's metadata under ``amc-analyze``. pyarrow is imported when a file is written or read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from amc_analysis.reading.reader import assemble
from amc_analysis.reading.serialisation import run_from_json, run_to_json, sweep_from_json, sweep_to_json
from amc_analysis.reading.sources import Selection, SweepMetadata
from amc_analysis.runs.history import Column, History
from amc_analysis.runs.records import SweepUnreadableError, history_of
from amc_core.files import whole_file
from amc_sweeps.runs.records import SweepRecord

KEY = b"amc-analyze"
VERSION = 1
MAGIC = b"PAR1"

Histories = Mapping[tuple[int, str], History]  # by the record's number and the run's id


def save(path: Path, records: Sequence[SweepRecord]) -> None:
    """Write records to a file, whole or not at all.

    Raises:
        OSError: when it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    runs = [(number, run) for number, record in enumerate(records) for run in record.runs]
    lengths = [history_of(run).length for _, run in runs]
    starts = np.cumsum([0, *lengths])
    columns: dict[str, Any] = {
        "record": pa.array(np.repeat([number for number, _ in runs], lengths).astype(np.int32)),
        "run": pa.array(np.repeat([run.run_id for _, run in runs], lengths)).dictionary_encode(),
        "row": pa.array(np.concatenate([np.arange(length) for length in lengths] or [np.empty(0, np.int64)])),
    }
    for name in dict.fromkeys(name for _, run in runs for name in history_of(run).columns):
        values, absent = np.zeros(starts[-1]), np.ones(starts[-1], bool)
        for start, (_, run) in zip(starts, runs, strict=False):
            column = history_of(run).column(name)
            values[start + column.rows] = column.values
            absent[start + column.rows] = False
        columns[name if name not in columns else f"{name} "] = pa.array(values, mask=absent)
    metadata = {"version": VERSION, "records": [_record_to_json(record) for record in records]}
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(metadata, default=str).encode()})
    with whole_file(path) as partial:
        parquet.write_table(table, partial, compression="zstd")


def load(path: Path, *, metric: str | None = None, goal: str | None = None) -> list[SweepRecord]:
    """Return the records of a file.

    Args:
        path: a file that ``save`` wrote.
        metric: another metric than the records' own.
        goal: where it is not the sweep's own.

    Raises:
        SweepUnreadableError: when ``save`` did not write it, or wrote another version.
        MetricError: see ``reader.assemble``.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        metadata = json.loads((table.schema.metadata or {})[KEY])
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise SweepUnreadableError(f"{path} was not written by amc-analyze --save: {error}") from error
    if metadata["version"] != VERSION:
        raise SweepUnreadableError(
            f"{path} has version {metadata['version']} of the format; this amc-analyze reads version {VERSION}"
        )
    histories = _histories(table)
    return [
        _record_from_json(content, number, histories, metric=metric, goal=goal)
        for number, content in enumerate(metadata["records"])
    ]


def _record_to_json(record: SweepRecord) -> dict[str, Any]:
    sweep = SweepMetadata(**{field.name: getattr(record, field.name) for field in fields(SweepMetadata)})
    return {
        "kind": record.kind,
        "head": sweep_to_json(sweep),
        "runs": [run_to_json(run) for run in record.runs],
        "metric": {"name": record.metric.name, "goal": record.metric.goal},
        "read_at": record.read_at.isoformat(),
    }


def _record_from_json(
    content: dict[str, Any], number: int, histories: Histories, *, metric: str | None, goal: str | None
) -> SweepRecord:
    sweep = sweep_from_json(content["head"])
    runs = [run_from_json(run, histories.get((number, run["run_id"]), History())) for run in content["runs"]]
    run_ids = tuple(run.run_id for run in runs) if content["kind"] == "runs" else None
    selection = Selection(sweep.entity, sweep.project, sweep.sweep_id or None, run_ids)
    if metric is None:
        metric, goal = content["metric"]["name"], goal or content["metric"]["goal"]
    read_at = datetime.fromisoformat(content["read_at"])
    return assemble(sweep, runs, selection, metric=metric, goal=goal, read_at=read_at)


def _histories(table: Any) -> Histories:
    records = table.column("record").to_numpy()
    runs = table.column("run").combine_chunks()
    codes, run_ids = runs.indices.to_numpy(zero_copy_only=False), runs.dictionary.to_pylist()
    ends = np.flatnonzero((np.diff(records) != 0) | (np.diff(codes) != 0)) + 1
    bounds = [0, *ends.tolist(), table.num_rows] if table.num_rows else [0]
    metrics: dict[str, tuple[Any, Any]] = {}
    for name in table.column_names[3:]:
        column = table.column(name).combine_chunks()
        metrics[name] = column.is_valid().to_numpy(zero_copy_only=False), column.to_numpy(zero_copy_only=False)
    histories = {}
    for start, end in pairwise(bounds):
        columns = {}
        for name, (is_valid, values) in metrics.items():
            rows = np.flatnonzero(is_valid[start:end])
            if len(rows):
                columns[name.rstrip(" ")] = Column(rows, values[start:end][rows])
        histories[int(records[start]), run_ids[codes[start]]] = History(end - start, columns)
    return histories
