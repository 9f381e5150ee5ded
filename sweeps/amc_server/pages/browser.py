"""The pages at every address that the client prints, so that no link is dead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from starlette.requests import Request

from amc_server.clock import Clock
from amc_server.errors import Refused
from amc_server.pages.run_data import run_data
from amc_server.pages.run_facts import run_facts
from amc_server.pages.sweep_rows import SweepRow, SweepRows
from amc_server.pages.templates import render
from amc_server.store.reader import Reader
from amc_server.store.records import ENTITY, Project, Run, Sweep
from amc_server.store.storage import Storage
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.run_states import state_word

SWEEPS_A_PROJECT = 10  # on the first page
MOST_LOOSE_RUNS = 500  # without a sweep, on a project's page
MOST_ROWS = 5000  # of a run, that are looked at for unreadable ones
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")


class Pages:
    """The pages; every method returns HTML."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._rows = SweepRows(storage.run_changes)

    def projects(self, request: Request) -> str:
        """Return the list of projects."""
        commits = self._storage.commits
        with self._storage.read() as store:
            rows = []
            for project in store.projects(ENTITY):
                sweeps, counts = store.sweeps(project.pk), store.run_states(project.pk)
                shown = self._sweep_rows(store, sweeps[:SWEEPS_A_PROJECT], counts, commits)
                loose = sum(counts.get(None, {}).values())
                rows.append((project, shown, len(sweeps) - len(shown), counted(loose, "run") if loose else ""))
        return render("projects.html", title="Projects", rows=rows)

    def project(self, request: Request) -> str:
        """Return a project's sweeps, and its runs without a sweep."""
        commits = self._storage.commits
        with self._storage.read() as store:
            project = _project(store, request)
            counts = store.run_states(project.pk)
            sweeps = self._sweep_rows(store, store.sweeps(project.pk), counts, commits)
            runs = store.runs_of_no_sweep(project.pk, MOST_LOOSE_RUNS)
            more = sum(counts.get(None, {}).values()) - len(runs)
        return render("project.html", title=project.name, project=project, sweeps=sweeps, runs=runs, more=more)

    def _sweep_rows(
        self, store: Reader, sweeps: Sequence[Sweep], counts: Mapping[int | None, Mapping[str, int]], commits: int
    ) -> list[SweepRow]:
        return [self._rows.row(store, sweep, counts.get(sweep.pk, {}), commits) for sweep in sweeps]

    def sweep(self, request: Request) -> str:
        """Return the frame of a sweep's page; its script asks for the runs."""
        with self._storage.read() as store:
            project = _project(store, request)
            sweep = sweep_at(store, request.path_params)
        return render(
            "sweep.html",
            title=sweep.display_name or sweep.id,
            project=project,
            sweep=sweep,
            state=state_word(sweep.state),
            address=_address(project, "sweeps", sweep.id),
            runs_address=_address(project, "runs", ""),
            token=request.state.token,
            takes_agents=not sweep.is_closed,
        )

    def run(self, request: Request) -> str:
        """Return the page of a run; its script asks for rows and log lines."""
        with self._storage.read() as store:
            project = _project(store, request)
            run = run_of(store, request.path_params)
            sweep = store.sweep_by_key(run.sweep) if run.sweep is not None else None
            facts = run_facts(store, project, sweep, run, self._clock.wall())
            files = store.files(run.pk)
            problems = [
                *(f"{column} is unreadable: {reason}" for column, reason in run.problems.items()),
                *_unreadable_rows(store, run),
                *([sweep.problem] if sweep and sweep.problem else []),
            ]
        return render(
            "run.html",
            title=run.display_name or run.id,
            project=project,
            sweep=sweep,
            run=run,
            problems=problems,
            address=_address(project, "runs", run.id),
            files_address="/files" + _address(project, run.id, ""),
            sentence=facts.sentence,
            facts=facts.rows,
            commands=facts.commands,
            settings=facts.settings,
            summary=facts.summary,
            files=files,
            pictures=[file for file in files if file.name.lower().endswith(PICTURES)],
        )

    def run_data(self, path: Mapping[str, str], query: Mapping[str, str]) -> bytes:
        """Return what a run's page asks for: rows and lines after those that it has."""

        def number(name: str) -> int:
            text = query.get(name, "")
            return int(text) if text.isdecimal() and len(text) < 11 else -1

        with self._storage.read() as store:
            after = (number("rows"), number("events"), number("console"))
            return run_data(store, run_of(store, path), after, number("every"))


def sweep_at(store: Reader, path: Mapping[str, str]) -> Sweep:
    """Return the sweep at an address.

    Raises:
        Refused: there is none.
    """
    project = store.project(path["entity"], path["project"])
    sweep = store.sweep(project.pk, path["sweep"]) if project else None
    if sweep is None:
        raise Refused(f"there is no sweep {path['sweep']} in {path['entity']}/{path['project']}", status=404)
    return sweep


def run_of(store: Reader, path: Mapping[str, str]) -> Run:
    """Return the run at an address.

    Raises:
        Refused: there is none.
    """
    run = store.run_at(path["entity"], path["project"], path["run"])
    if run is None:
        raise Refused(f"there is no run {path['run']} in {path['entity']}/{path['project']}", status=404)
    return run


def _address(project: Project, *rest: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in (project.entity, project.name, *rest))


def _project(store: Reader, request: Request) -> Project:
    entity, name = request.path_params["entity"], request.path_params["project"]
    project = store.project(entity, name)
    if project is None:
        raise Refused(f"there is no project {entity}/{name}", status=404)
    return project


def _unreadable_rows(store: Reader, run: Run) -> list[str]:
    stored = store.count_history(run.pk, 0, MOST_ROWS)
    lost = stored - len(store.history(run.pk, limit=stored))
    return [f"{counted(lost, 'row')} of the history {'is' if lost == 1 else 'are'} unreadable"] if lost > 0 else []
