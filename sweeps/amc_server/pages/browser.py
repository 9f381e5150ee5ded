"""The pages at every address that the client prints, so that no link is dead."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from amc_server.errors import Refused
from amc_server.pages.templates import render
from amc_server.store.reader import Reader
from amc_server.store.records import ENTITY, Project, Run
from amc_server.store.storage import Storage
from amc_sweeps.number_formats import counted
from amc_sweeps.values import as_finite, look_up

CONSOLE_LINES = 200
CURVE_WIDTH, CURVE_HEIGHT = 600, 160
MOST_CURVES, MOST_ROWS = 6, 5000  # curves that are drawn, and rows that are read, of a run without a sweep


@dataclass(frozen=True)
class Chart:
    """A drawn learning curve."""

    name: str
    points: str  # of an SVG polyline
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, name: str, curve: Sequence[float]) -> Chart:
        """Draw a curve of at least two values."""
        low, high = min(curve), max(curve)
        height = (high - low) or 1.0
        points = " ".join(
            f"{CURVE_WIDTH * index / (len(curve) - 1):.1f},{CURVE_HEIGHT * (1 - (value - low) / height):.1f}"
            for index, value in enumerate(curve)
        )
        return cls(name, points, low, high, len(curve))


@dataclass(frozen=True)
class Row:
    """A run as a table shows it."""

    run: Run
    peak: float | None
    last: float | None


class Pages:
    """The pages; every method returns HTML."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def projects(self, request: Request) -> str:
        """Return the list of projects."""
        with self._storage.read() as store:
            rows = [(project, store.sweeps(project.pk)) for project in store.projects(ENTITY)]
        return render("projects.html", title="Projects", rows=rows)

    def project(self, request: Request) -> str:
        """Return a project's sweeps, and its runs without a sweep."""
        with self._storage.read() as store:
            project = _project(store, request)
            sweeps = [(sweep, store.count_runs_of_sweep(sweep.pk)) for sweep in store.sweeps(project.pk)]
            rows = [Row(run, None, None) for run in store.runs(project.pk) if run.sweep is None]
        return render("project.html", title=project.name, project=project, sweeps=sweeps, rows=rows, metric=None)

    def sweep(self, request: Request) -> str:
        """Return a sweep's runs, best peak first."""
        with self._storage.read() as store:
            project = _project(store, request)
            sweep = store.sweep(project.pk, request.path_params["sweep"])
            if sweep is None:
                raise Refused(f"there is no sweep {request.path_params['sweep']} in {project.name}", status=404)
            config = sweep.readable_config
            metric = config.metric if config else None
            goal = metric.goal if metric else "minimize"
            curves = store.curves(sweep.pk)
            name = metric.name if metric else None
            rows = [_row(run, curves.get(run.pk, []), goal, name) for run in store.runs_of_sweep(sweep.pk)]
        sign = -1 if goal == "maximize" else 1
        rows.sort(key=lambda row: (row.peak is None, sign * (row.peak or 0.0)))
        return render(
            "sweep.html",
            title=sweep.display_name or sweep.id,
            project=project,
            sweep=sweep,
            rows=rows,
            metric=metric,
            takes_agents=not sweep.is_closed,
        )

    def run(self, request: Request) -> str:
        """Return the page of a run."""
        with self._storage.read() as store:
            project = _project(store, request)
            run = store.run(project.pk, request.path_params["run"])
            if run is None:
                raise Refused(f"there is no run {request.path_params['run']} in {project.name}", status=404)
            sweep = store.sweep_by_key(run.sweep) if run.sweep is not None else None
            config = sweep.readable_config if sweep else None
            metric = config.metric if config else None
            curve = store.curve(run.pk)
            curves = {metric.name: curve} if metric else _curves_without_sweep(store, run)
            facts = {
                "row": _row(run, curve, metric.goal if metric else "minimize", metric.name if metric else None),
                "sweep": sweep,
                "config": run.config_values(),
                "summary": run.summary_values,
                "problems": [
                    *(f"{column} is unreadable: {reason}" for column, reason in run.problems.items()),
                    *_unreadable_rows(store, run),
                    *([sweep.problem] if sweep and sweep.problem else []),
                ],
                "files": store.files(run.pk),
                "console": [line.body.rstrip("\n") for line in store.console_tail(run.pk, CONSOLE_LINES)],
            }
        return render(
            "run.html",
            title=run.display_name or run.id,
            project=project,
            metric=metric,
            charts=[Chart.of(name, values) for name, values in curves.items() if len(values) > 1],
            **facts,
        )


def _project(store: Reader, request: Request) -> Project:
    entity, name = request.path_params["entity"], request.path_params["project"]
    project = store.project(entity, name)
    if project is None:
        raise Refused(f"there is no project {entity}/{name}", status=404)
    return project


def _row(run: Run, curve: Sequence[float], goal: str, metric: str | None) -> Row:
    """Return a run's row. Imported runs may lack a curve; then the value in the summary is shown."""
    if not curve:
        value = as_finite(look_up(run.summary_values, metric)) if metric else None
        return Row(run, value, value)
    return Row(run, max(curve) if goal == "maximize" else min(curve), curve[-1])


def _unreadable_rows(store: Reader, run: Run) -> list[str]:
    stored = store.count_history(run.pk, 0, MOST_ROWS)
    lost = stored - len(store.history(run.pk, limit=stored))
    return [f"{counted(lost, 'row')} of the history {'is' if lost == 1 else 'are'} unreadable"] if lost > 0 else []


def _curves_without_sweep(store: Reader, run: Run) -> dict[str, list[float]]:
    """Return the first few numbers that a run logs: without a sweep no metric is the chosen one."""
    rows = [json.loads(text) for text in store.history(run.pk, limit=MOST_ROWS)]
    names = list(dict.fromkeys(name for row in rows for name in row if not name.startswith("_")))
    curves = {name: [value for row in rows if (value := as_finite(look_up(row, name))) is not None] for name in names}
    chart_names = [name for name in names if len(curves[name]) > 1 and name != "epoch"]
    return {name: curves[name] for name in chart_names[:MOST_CURVES]}
