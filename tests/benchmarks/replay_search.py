"""What would each engine propose next, after the runs of a recorded sweep?

    python tests/benchmarks/replay_search.py [FILE] [--sweep ID] [--after RUNS] [--seeds 3] [--sweeps PYTHON]

FILE is an export file (amc-sweep export). Without one, it is a simulated sweep of 40 runs drawn at random, of which a
part crashed; then the table also says how good each proposal truly is. The runs are told in the order of their
creation; --after takes the first ones. No engine learns from a run that does not fit the sweep's parameters.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see bench_search.py
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from machine import add_write_options, keep_table, unlike_committed
from search_engines import engines
from search_surfaces import COLUMNS, Outcome, Surface, training_surface
from training_surface import MIXED, final_accuracy, simulate

from amc_analysis.analyse import rank_runs
from amc_analysis.reading.export_file import records_of
from amc_analysis.runs.parameters import text_of
from amc_server.bayes.space import Space
from amc_server.scheduling.prior_runs import fit
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.searched_parameters import searched_parameters
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.export_file import read
from amc_sweeps.runs.records import SweepRecord
from amc_sweeps.values import look_up

SIMULATED = (7, 40)  # seed and number of runs


def main(arguments: list[str] | None = None) -> None:
    """Print the table; of the simulated sweep keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--sweep", help="the id, if the file has several")
    parser.add_argument("--after", type=int, help="runs; default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sweeps", metavar="PYTHON", help="see bench_search.py")
    parser.add_argument("--engines", help="names, separated by commas; default all")
    add_write_options(parser, "replay_search")
    options = parser.parse_args(arguments)
    best = training_surface("", COLUMNS["no crashes"]).best
    record = simulate(*SIMULATED, MIXED) if options.file is None else recorded(options.file, options.sweep)
    regret = None if options.file else lambda config: best - final_accuracy(config)
    chosen = {
        name: engine
        for name, engine in engines(options.sweeps).items()
        if options.engines is None or name in options.engines.split(",")
    }
    text = "\n".join(table(record, chosen, after=options.after, seeds=options.seeds, regret=regret))
    print(text)
    worse = unlike_committed(parser, options, {"sweeps": options.sweeps or "PYTHON"})
    keep_table("replay_search", text, options, worse=worse, hidden={str(options.sweeps): "PYTHON"})


def recorded(file: Path, sweep: str | None) -> SweepRecord:
    """Return the sweep of an export file; of several the one with this id."""
    found = [
        record
        for record in records_of(read(file.read_text()), read_at=datetime.now(UTC))
        if record.sweep_id and sweep in (None, record.sweep_id)
    ]
    if len(found) != 1:
        raise SystemExit(f"choose one with --sweep: {', '.join(record.sweep_id for record in found) or 'none'}")
    return found[0]


def table(
    record: SweepRecord,
    chosen: Mapping[str, Callable[[Surface, int], Any]],
    *,
    after: int | None,
    seeds: int,
    regret: Callable[[Mapping[str, Any]], float] | None,
) -> list[str]:
    """Return the proposals of each engine, in Markdown: those of a parameter in one cell, in the order of the seeds.

    Args:
        record: the sweep.
        chosen: engines by name.
        after: how many runs have ended; None: all.
        seeds: proposals of each engine.
        regret: how far a configuration truly lies below the best one, in points; None: nobody knows.
    """
    config = parse({**record.config, "method": "bayes"}, is_new=False)
    parameters, space = dict(record.config["parameters"]), Space(config)
    surface = Surface(record.sweep_id, parameters, 0.0, lambda *_: Outcome("", (), None, 0.0))
    told = [run for run in outcomes_of(record)[:after] if space.place(fit(run[0], config)[0]) is not None]
    names = searched_parameters(record.config)
    crashed = sum(outcome.state != "finished" for _, outcome in told)
    lines = [
        f"What each engine proposes next, with {counted(seeds, 'seed')}, after {counted(len(told), 'run')} of which "
        f"{crashed} did not finish."
        + (
            ""
            if regret is None
            else " Regret: points by which a proposal is truly below the best configuration, the mean over the seeds."
        ),
        "",
        f"| engine | {' | '.join(names)} |" + ("" if regret is None else " regret |"),
        "|---" * (1 + len(names) + (regret is not None)) + "|",
    ]
    for name, engine in chosen.items():
        proposals = []
        for seed in range(seeds):
            search = engine(surface, seed)
            for values, outcome in told:
                search.tell(fit(values, config)[0], outcome)
            proposals.append(search.ask())
            if hasattr(search, "close"):
                search.close()
        cells = [", ".join(text_of(look_up(proposal, parameter)) for proposal in proposals) for parameter in names]
        cells += [] if regret is None else [f"{statistics.mean(map(regret, proposals)):.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def outcomes_of(record: SweepRecord) -> list[tuple[Mapping[str, Any], Outcome]]:
    """Return configuration and outcome of every run, in the order of their creation; higher is better."""
    sign = 1 if record.metric.goal == "maximize" else -1
    entries = {entry.run.run_id: entry for entry in rank_runs(record).ranked}
    found = []
    for run in record.runs:
        entry = entries[run.run_id]
        values = run.curve or ([] if entry.peak is None else [entry.peak])  # a log may give the peak alone
        curve = tuple(sign * value for value in values)
        found.append((run.config, Outcome(run.state, curve, entry.diagnosis, max(curve, default=0.0))))
    return found


if __name__ == "__main__":
    main()
