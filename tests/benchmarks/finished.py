"""Results of a study's jobs in a file, so that a study that was ended goes on where it was."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

FILE = "finished.jsonl"


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add the options --folder, --finished-only and --processes."""
    parser.add_argument("--folder", type=Path, help="keep finished jobs here; started again, do the missing ones")
    parser.add_argument("--finished-only", action="store_true", help="begin no job: the table of what is in --folder")
    parser.add_argument("--processes", type=int, default=1, help="that do jobs side by side, one thread each")


def finished_jobs(
    options: argparse.Namespace, jobs: Mapping[str, Callable[[], Any]], show: Callable[[str, Any], None]
) -> dict[str, Any]:
    """Do the jobs that have no result in the folder, and return all results by job, in the order of the jobs.

    Args:
        options: with the options of ``add_folder_options``. Without a folder nothing is kept.
        jobs: by name; each returns JSON.
        show: called with each job and its result.
    """
    torch.set_num_threads(1)
    file = options.folder / FILE if options.folder else None
    kept = (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file and file.exists() else []
    )
    results = {job: result for job, result in kept if job in jobs}
    for job, result in results.items():
        show(job, result)

    def keep(job: str, result: Any) -> None:
        line = json.dumps([job, result])
        results[job] = json.loads(line)[1]  # the same as from the file: keys are text
        show(job, results[job])
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(line + "\n")

    missing = {} if options.finished_only else {job: work for job, work in jobs.items() if job not in results}
    if options.processes == 1:
        for job, work in missing.items():
            keep(job, work())
    else:
        with ProcessPoolExecutor(options.processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            futures = {pool.submit(work): job for job, work in missing.items()}
            for future in as_completed(futures):
                keep(futures[future], future.result())
    return {job: results[job] for job in jobs if job in results}


def not_done(jobs: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return how many jobs of a study have no result, as a sentence for its table; nothing if all have one."""
    missing = len(jobs) - len(results)
    return f" {missing} of this study's {len(jobs)} trainings are not done." if missing else ""
