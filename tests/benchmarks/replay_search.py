"""What would each engine have proposed next, after the runs of a recorded sweep?

    python tests/benchmarks/replay_search.py FILE [--sweep ID] [--after RUNS] [--seeds 3] [--sweeps PYTHON]

FILE is an export file (amc-sweep export). The runs are told in the order of their creation; --after takes the first so
many of them. What an engine cannot be told, such as a run outside of the sweep's space, it does not learn.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from search_engines import engines
from search_surfaces import Outcome, Surface

from amc_analysis.analyse import rank_runs
from amc_analysis.reading.export_file import records_of
from amc_server.scheduling.prior_runs import fit
from amc_sweeps.grammar.parse import parse
from amc_sweeps.runs.export_file import read
from amc_sweeps.values import printable


def main() -> None:
    """Print one line an engine and seed: the configuration that it proposes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--sweep", help="the id, if the file has several")
    parser.add_argument("--after", type=int, help="runs; default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sweeps", metavar="PYTHON", help="see bench_search.py")
    options = parser.parse_args()
    records = [
        record
        for record in records_of(read(options.file.read_text()), read_at=datetime.now(UTC))
        if record.sweep_id and options.sweep in (None, record.sweep_id)
    ]
    if len(records) != 1:
        raise SystemExit(f"choose one with --sweep: {', '.join(record.sweep_id for record in records) or 'none'}")
    (record,) = records
    config = parse({**record.config, "method": "bayes"}, is_new=False)
    sign = 1 if record.metric.goal == "maximize" else -1
    diagnoses = {entry.run.run_id: entry.diagnosis for entry in rank_runs(record).ranked}
    surface = Surface(record.sweep_id, dict(record.config["parameters"]), 0.0, lambda *_: Outcome("", (), None, 0.0))
    for run in record.runs[: options.after]:
        print(f"{run.run_id}: {run.state}, {diagnoses[run.run_id].cause}, {len(run.curve)} values")
    for name, engine in engines(options.sweeps).items():
        for seed in range(options.seeds):
            search = engine(surface, seed)
            for run in record.runs[: options.after]:
                curve = tuple(sign * value for value in run.curve)
                outcome = Outcome(run.state, curve, diagnoses[run.run_id], max(curve, default=0.0))
                search.tell(fit(run.config, config)[0], outcome)
            print(f"{name}, seed {seed}: {printable(search.ask())}")
            if hasattr(search, "close"):
                search.close()


if __name__ == "__main__":
    main()
