"""Records in a Parquet file: they are loaded as they were saved, and other programs can read the numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from sweep_records import run, sweep

from amc_analysis.reading.parquet_file import KEY, load, save
from amc_analysis.runs.history import History
from amc_analysis.runs.records import SweepUnreadableError, history_of, with_history, with_metric
from amc_sweeps.runs.records import SweepRecord


def record() -> SweepRecord:
    """Return a sweep whose runs logged different metrics in different rows."""
    rows = [{"epoch": 1, "val/combined_acc": 0.5, "lr": 1.0}, {"val/combined_acc": math.nan, "run": 7.0}, {}]
    uneven = with_metric(with_history(run("uneven"), History.from_rows(rows)), "val/combined_acc")
    nothing = with_metric(with_history(run("nothing", state="crashed"), History()), "val/combined_acc")
    config = {"metric": {"name": "val/combined_acc", "goal": "maximize"}}
    return sweep(uneven, nothing, config=config, runs_total=None)


def test_saved_records_are_loaded_unchanged(tmp_path: Path) -> None:
    save(tmp_path / "saved.parquet", [record(), record()])
    first, second = load(tmp_path / "saved.parquet")
    assert (first.sweep_id, first.metric, first.read_at) == (record().sweep_id, record().metric, record().read_at)
    for loaded in (first, second):
        uneven, nothing = loaded.runs
        assert history_of(nothing).length == 0
        assert nothing.state == "crashed"
        assert history_of(uneven).length == 3
        assert history_of(uneven).column("run").values.tolist() == [7.0]
        assert history_of(uneven).column("lr").rows.tolist() == [0]
        assert [repr(point.value) for point in uneven.points] == ["0.5", "nan"]


def test_other_programs_see_null_for_absent_values_and_nan_for_nan(tmp_path: Path) -> None:
    import pandas as pd
    from pyarrow import parquet

    save(tmp_path / "saved.parquet", [record()])
    table = parquet.read_table(tmp_path / "saved.parquet")
    assert table.column("val/combined_acc").null_count == 1
    frame = pd.read_parquet(tmp_path / "saved.parquet")
    assert frame["run"].tolist() == ["uneven"] * 3
    assert frame["row"].tolist() == [0, 1, 2]
    metadata = json.loads(table.schema.metadata[b"amc-analyze"])
    assert [entry["run_id"] for entry in metadata["records"][0]["runs"]] == ["uneven", "nothing"]


def test_a_loaded_file_can_be_ranked_by_another_metric(tmp_path: Path) -> None:
    save(tmp_path / "saved.parquet", [record()])
    (loaded,) = load(tmp_path / "saved.parquet", metric="lr", goal="minimize")
    assert loaded.runs[0].curve == [1.0]


def test_another_file_or_version_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "text.parquet").write_text("PAR1 not really")
    with pytest.raises(SweepUnreadableError, match="was not written by amc-analyze --save"):
        load(tmp_path / "text.parquet")
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(SweepUnreadableError, match="was not written by amc-analyze --save"):
        load(tmp_path / "foreign.parquet")
    newer = pa.table({"a": [1]}).replace_schema_metadata({KEY: b'{"version": 2, "records": []}'})
    parquet.write_table(newer, tmp_path / "newer.parquet")
    with pytest.raises(SweepUnreadableError, match="has version 2 of the format; this amc-analyze reads version 1"):
        load(tmp_path / "newer.parquet")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        save(tmp_path / "no" / "saved.parquet", [record()])
    save(tmp_path / "saved.parquet", [record()])
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["saved.parquet"]
