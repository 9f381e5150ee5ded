"""Time to read 1,000 runs x 150 epochs x 40 metrics: by the bulk operation, from the cache, and by W&B's plain loop.

    python tests/benchmarks/bench_reading.py [--runs 1000] [--sample 50] [--write]

The runs are written into a data folder through the server's own storage. Everything after that uses the real server,
real HTTP and, for the loop, the real client. Reading means that every row of every column is in memory as numbers; the
imports are not timed. The loop is the one in W&B's documentation, ``for run in sweep.runs: list(run.scan_history())``.
It is timed on the first runs of the same sweep and scaled up. The analyses are whole commands, with the start of Python
and the report. The script prints a Markdown table; --write saves it in results/reading.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
from machine import describe_machine, write_table

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("tests/support", "sweeps", "agents", "analysis", "")]

from embedded_server import EmbeddedServer  # noqa: E402 - the path is set above

from amc_analysis.reading.reader import read  # noqa: E402
from amc_analysis.reading.sources import Selection  # noqa: E402
from amc_analysis.reading.whole_histories import BulkSource  # noqa: E402
from amc_analysis.runs.records import history_of  # noqa: E402
from amc_server.store.records import Line  # noqa: E402
from amc_server.store.storage import Storage  # noqa: E402

EPOCHS, METRICS = 150, 40
REPEATS = 3
CONFIG = {
    "method": "random",
    "program": "train.py",
    "metric": {"name": "val/combined_acc", "goal": "maximize"},
    "parameters": {"max_lr": {"min": 0.0, "max": 1.0}, "batch_size": {"values": [64, 128, 256]}},
}
FEW = 30  # runs of the sweep whose first screen is timed
COMMAND = [sys.executable, "-c", "from amc_analysis.cli import main; main()"]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--sample", type=int, default=50, help="number of runs that the plain loop reads")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "data", {"bench001": arguments.runs, "bench030": FEW})
        rows = measured(Path(folder), arguments.runs, arguments.sample)
    load = ", ".join(f"{value:.1f}" for value in psutil.getloadavg())
    lines = [
        f"{arguments.runs:,} runs x {EPOCHS} epochs x {METRICS} metrics, and W&B's three columns. "
        f"{describe_machine()} Load average at the end {load}.",
        "",
        "| what | measured | target |",
        "|---|---|---|",
        *(f"| {what} | {value} | {target} |" for what, value, target in rows),
    ]
    print("\n".join(lines))
    if arguments.write:
        command = (
            f"python tests/benchmarks/bench_reading.py --runs {arguments.runs} --sample {arguments.sample} --write"
        )
        write_table("reading", "\n".join(lines), command=command)


def measured(folder: Path, runs: int, sample: int) -> list[tuple[str, str, str]]:
    """Return rows of (what, measured, target)."""
    with EmbeddedServer(folder / "data") as server:
        source = BulkSource(server.base_url, server.key)
        selection = Selection("local", "bench", "bench001")
        record = read(source, selection)
        values = sum(len(column) for run in record.runs for column in history_of(run).columns.values())
        assert values == runs * EPOCHS * (METRICS + 3), values
        bulk_s = [timed(lambda: read(source, selection)) for _ in range(REPEATS)]
        names = {f"WANDB_{name}": str(folder / name.lower()) for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "DIR")}
        os.environ.update({**server.environment(WANDB_SILENT="true", HOME=str(folder)), **names})
        loop_s = plain_loop_s(sample)
        environment = {**os.environ, **EmbeddedServer.process_environment(), "HOME": str(folder)}
        environment |= server.environment(HOME=str(folder), XDG_CACHE_HOME=str(folder / "cache")) | {
            "PYTHONPATH": EmbeddedServer.process_environment()["PYTHONPATH"]
        }
        # An installed package is compiled, whatever the environment says about writing bytecode.
        environment |= {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}

        def analyse(*options: str, sweep: str = "bench001") -> None:
            command = [*COMMAND, f"local/bench/{sweep}", *options]
            subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)

        def first_screen_s() -> float:
            command = [*COMMAND, "local/bench/bench030"]
            begin = time.perf_counter()
            with subprocess.Popen(
                command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                assert process.stdout is not None
                assert any(b"more runs: --top 0 shows all" in line for line in process.stdout)
                shown_s = time.perf_counter() - begin
                process.stdout.read()
            return shown_s

        first_s = timed(analyse)
        second_s = [timed(analyse) for _ in range(REPEATS)]
        offline_s = timed(lambda: analyse("--offline"))
        analyse(sweep="bench030")
        screen_s = [first_screen_s() for _ in range(REPEATS)]
        few_s = [timed(lambda: analyse(sweep="bench030")) for _ in range(REPEATS)]
        cache_bytes = sum(path.stat().st_size for path in (folder / "cache").rglob("*.sqlite3"))
    bulk, second = statistics.median(bulk_s), statistics.median(second_s)
    return [
        ("bulk operation, after imports, every column", f"{bulk:.2f} s (median of {REPEATS})", ""),
        (f"plain loop of the public API, {sample} runs", f"{1000 * loop_s / sample:.1f} ms a run", ""),
        (f"the same for {runs:,} runs", f"{loop_s / sample * runs:.1f} s", ""),
        ("bulk operation against the loop", f"{loop_s / sample * runs / bulk:.0f} times as fast", "at least 20"),
        ("amc-analyze, whole command, first time", f"{first_s:.2f} s", ""),
        ("amc-analyze again, without new rows", f"{second:.2f} s (median of {REPEATS})", "under 1.5 s"),
        ("amc-analyze --offline", f"{offline_s:.2f} s", ""),
        (
            f"amc-analyze again on {FEW} runs, until the ranking stands",
            f"{statistics.median(screen_s):.2f} s (median of {REPEATS})",
            "under 1 s",
        ),
        ("the same, whole command", f"{statistics.median(few_s):.2f} s (median of {REPEATS})", ""),
        ("cache on disk", f"{cache_bytes / 1e6:.0f} MB", ""),
    ]


def plain_loop_s(sample: int) -> float:
    """Return how long the loop takes for the first runs, without import and login."""
    import wandb

    api = wandb.Api()
    sweep = api.sweep("local/bench/bench001")
    begin = time.perf_counter()
    for count, run in enumerate(sweep.runs, start=1):
        rows = list(run.scan_history())
        assert len(rows) == EPOCHS
        if count == sample:
            break
    return time.perf_counter() - begin


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def fill(folder: Path, sweeps: Mapping[str, int]) -> None:
    """Write sweeps with finished runs, by id their number, into a data folder."""
    rng = random.Random(1)
    others = [f"metric_{number:02}" for number in range(METRICS - 4)]
    storage = Storage(folder)
    begin = 1.75e9
    with storage.write() as store:
        project = store.insert("projects", entity="local", name="bench", created_at=begin)
        for sweep_id, runs in sweeps.items():
            sweep = store.insert(
                "sweeps",
                project=project,
                id=sweep_id,
                state="FINISHED",
                config=json.dumps(CONFIG),
                seed=1,
                created_at=begin,
                updated_at=begin,
            )
            for number in range(runs):
                rows = [
                    {
                        "epoch": epoch,
                        "val/combined_acc": rng.random(),
                        "train/loss": rng.random(),
                        "lr": rng.random(),
                        **{name: rng.random() for name in others},
                        "_step": epoch - 1,
                        "_runtime": 60.0 * epoch,
                        "_timestamp": begin + 60.0 * epoch,
                    }
                    for epoch in range(1, EPOCHS + 1)
                ]
                config = {"max_lr": rng.random(), "batch_size": rng.choice([64, 128, 256]), "epochs": EPOCHS}
                pk = store.insert(
                    "runs",
                    project=project,
                    id=f"{sweep_id}{number:05}",
                    sweep=sweep,
                    origin="search",
                    number=number,
                    state="finished",
                    started=1,
                    exit_code=0,
                    config=json.dumps({name: {"value": value} for name, value in config.items()}),
                    summary=json.dumps(rows[-1]),
                    history_lines=EPOCHS,
                    created_at=begin + number,
                    heartbeat_at=begin + number,
                )
                store.put_history(pk, [Line(line, json.dumps(row), line) for line, row in enumerate(rows)])
    storage.close()


if __name__ == "__main__":
    main()
