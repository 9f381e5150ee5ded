"""The recorded sweeps with their runs ranked, read from their files without a server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from amc_analysis.analyse import rank_runs
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.runs.history import History
from amc_analysis.runs.records import RunWithHistory
from amc_sweeps.runs import export_file
from amc_sweeps.runs.claims import read_recorded
from amc_sweeps.runs.records import Metric, Point, RunRecord, SweepRecord

FOLDER = Path(__file__).parents[2] / "sweeps" / "recorded"
METRIC = Metric("val/combined_acc", "maximize")


def recorded(name: str) -> AnalysedSweep:
    """Return sweeps/recorded/NAME.yaml with its runs ranked."""
    export = export_file.read((FOLDER / f"{name}.yaml").read_text())
    sweep = export.sweeps[0] if export.sweeps else {}
    texts = [read_recorded(sweep.get("description"))]
    texts += [read_recorded(run.get("notes"), run_id=run["id"]) for run in export.runs]
    claims = [text for text in texts if text is not None]
    return rank_runs(
        SweepRecord(
            sweep_id=sweep.get("id", ""),
            entity="local",
            project=export.project,
            config=sweep.get("config", {}),
            state=sweep.get("state", ""),
            metric=METRIC,
            runs=tuple(map(_run, export.runs)),
            read_at=datetime(2026, 1, 1, tzinfo=UTC),
            kind="sweep" if sweep else "project",
            claims=tuple(claim for text in claims for claim in text.claims),
            runs_total=claims[0].runs_total if sweep and claims else None,
        )
    )


def _run(run: dict[str, Any] | export_file.Record) -> RunRecord:
    rows = run.get("history") or []
    points = tuple(Point(row[METRIC.name], epoch=float(row["epoch"])) for row in rows if METRIC.name in row)
    return RunWithHistory(
        run_id=run["id"],
        name=run.get("name") or run["id"],
        state=run["state"],
        config=run.get("config", {}),
        summary=run.get("summary", {}),
        points=points,
        history=History.from_rows(rows),
    )
