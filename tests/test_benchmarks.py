"""Benchmarks compare their results with limits; a worse run does not replace a committed table."""

from __future__ import annotations

import argparse
import configparser
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from amc_sweeps.grammar.hyperband import HyperbandConfig
from amc_sweeps.runs import export_file

ROOT = Path(__file__).parents[1]
NAMES = ("machine", "bench_images", "replay", "bench_search", "search_engines", "replay_search")
FAST = {
    "np.histogram2d": 8_000.0,
    "fast-histogram": 80_000.0,
    "constellation (cpu, numba)": 250_000.0,
    "synced (cpu, numba)": 15_001.0,
}


@pytest.fixture(scope="module")
def benchmarks() -> dict[str, ModuleType]:
    sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
    try:
        return {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"np.histogram2d": 9_000.0}, ["27.8 times as fast as np.histogram2d, wanted are 30"]),
        ({"fast-histogram": 90_000.0}, ["2.8 times as fast as fast-histogram, wanted are 3"]),
        ({"synced (cpu, numba)": 14_000.0}, ["makes 14,000 frames/s, wanted are 15,000"]),
        (
            {"constellation (cpu, numba)": 200_000.0},
            ["25.0 times as fast as np.histogram2d", "2.5 times as fast as fast-histogram"],
        ),
    ],
)
def test_images_that_are_too_slow_fail_their_benchmark(
    benchmarks: dict[str, ModuleType], changed: dict[str, float], expected: list[str]
) -> None:
    missed = benchmarks["bench_images"].missed_aims(FAST | changed, {})
    assert len(missed) == len(expected)
    assert all(part in sentence for part, sentence in zip(expected, missed, strict=True))


def test_only_installed_libraries_are_compared_but_points_always(
    benchmarks: dict[str, ModuleType],
) -> None:
    missed_aims = benchmarks["bench_images"].missed_aims
    alone = {name: rate for name, rate in FAST.items() if name != "fast-histogram"}
    assert missed_aims(alone, {"constellation (cpu, torch)": 1e-5, "fast-histogram": 0.1}) == []
    (missed,) = missed_aims({}, {"constellation (cpu, torch)": 2e-5})
    assert "2.0e-05 of the points elsewhere" in missed


@pytest.mark.parametrize(
    ("arguments", "written", "expected_output"),
    [
        ([], True, ""),
        (["--frames", "10"], False, "stays as it is: --frames 10 instead of 20; --write replaces it"),
        (["--frames", "10", "--write"], True, ""),
        (["--no-write"], False, "stays as it is: --no-write"),
        (["--other", "/opt/python"], False, "--other /opt/python instead of None"),
        (["--other", "/opt/python", "--write"], True, ""),
        (["--other=/opt/python", "--write"], True, ""),
    ],
)
def test_a_table_is_replaced_by_a_run_of_the_same_size_or_with_write(
    benchmarks: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    written: bool,
    expected_output: str,
) -> None:
    machine = benchmarks["machine"]
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bench_this.py", *arguments])
    (tmp_path / "this.md").write_text("committed")
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--other")
    machine.add_write_options(parser, "this")
    options = parser.parse_args(arguments)
    worse = machine.unlike_committed(parser, options)
    machine.keep_table("this", "measured", options, worse=worse, hidden={"/opt/python": "PYTHON"})
    shown = " ".join(["python tests/benchmarks/bench_this.py", *arguments]).replace("/opt/python", "PYTHON")
    expected = f"# this\n\nWritten by `{shown}`.\n\nmeasured\n" if written else "committed"
    assert (tmp_path / "this.md").read_text() == expected
    assert expected_output in capsys.readouterr().out


def test_a_committed_table_may_have_other_arguments_than_the_defaults(benchmarks: dict[str, ModuleType]) -> None:
    machine = benchmarks["machine"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=20)
    short, long = parser.parse_args([]), parser.parse_args(["--frames", "200"])
    assert machine.unlike_committed(parser, short, {"frames": 200}) == "--frames 20 instead of 200"
    assert machine.unlike_committed(parser, long, {"frames": 200}) == ""


@pytest.mark.parametrize(("budget", "epochs"), [(None, 4 + 3 + 2 + 2), (5, 4 + 3)])
def test_a_replay_stops_what_hyperband_stops_and_counts_the_epochs(
    benchmarks: dict[str, ModuleType], budget: int | None, epochs: int
) -> None:
    curves = {run: [value] * 4 for run, value in enumerate((0.1, 0.2, 0.3, 0.4))}
    config = HyperbandConfig(min_iter=1, eta=2)
    result = benchmarks["replay"].replay(curves, config, [2, 0, 1, 3], budget=budget)
    assert (result.started, result.stopped, result.epochs) == ([2, 0, 1, 3], {0, 1}, epochs)
    assert result.top_stopped({0: 0.5, 1: 0.2, 2: 0.3, 3: 0.4}) == (1, 1)
    assert result.top_stopped({0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}) == (0, 1)
    assert result.regret({0: 0.5, 1: 0.2, 2: 0.3, 3: 0.4}) == pytest.approx(0.1)


def test_a_replay_starts_as_many_runs_as_there_are_agents(benchmarks: dict[str, ModuleType]) -> None:
    agents = benchmarks["replay"].AGENTS
    curves = {run: [0.5, 0.5] for run in range(agents + 3)}
    begun = benchmarks["replay"].replay(curves, HyperbandConfig(min_iter=9), range(agents + 3), budget=1)
    assert (len(begun.started), begun.epochs) == (agents, agents)
    whole = benchmarks["replay"].replay(curves, HyperbandConfig(min_iter=9), range(agents + 3))
    assert (len(whole.started), whole.epochs, whole.stopped) == (agents + 3, 2 * (agents + 3), set())


def test_the_compared_libraries_are_pinned() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    developers = setup["options.extras_require"]["dev"]
    pins = (ROOT / "docker" / "constraints.txt").read_text()
    for name in ("fast-histogram", "boost-histogram"):
        assert f"{name}>=" in developers
        assert f"{name}==" in pins


def searched(benchmarks: dict[str, ModuleType], **regrets: list[float]) -> Any:
    """Return what bench_search keeps: in every column the regrets of these engines, one a seed."""
    bench, kept = benchmarks["bench_search"], benchmarks["bench_search"].Kept()
    for column in bench.COLUMNS:
        for name, values in regrets.items():
            for seed, value in enumerate(values):
                engine = {"ours": bench.OURS, "tpe": bench.IGNORING, "best": "ours: best"}[name]
                kept.add((column, engine, False, seed), [value] * bench.TRIALS[-1])
    return kept


@pytest.mark.parametrize(
    ("regrets", "columns", "missed"),
    [
        ({"ours": [0.0, 0.1, 0.0, 0.1], "tpe": [0.5, 0.6, 0.5, 0.5]}, 3, None),
        ({"ours": [0.5, 0.0, 0.5, 0.0], "tpe": [0.5, 0.1, 0.5, 0.1]}, 3, "wanted is better by 2 SE"),
        ({"ours": [0.5, 0.6, 0.5, 0.6], "tpe": [1.5, 1.6, 1.6, 1.5], "best": [0.3] * 4}, 3, "at the 95% bound"),
        ({"ours": [0.1, 0.1, 0.1, 0.1], "tpe": [0.1, 0.0, 0.0, 0.0]}, 4, "at the 95% bound"),
    ],
)
def test_the_policy_of_the_search_is_held_against_its_aims(
    benchmarks: dict[str, ModuleType], regrets: dict[str, list[float]], columns: int, missed: str | None
) -> None:
    bench, kept = benchmarks["bench_search"], searched(benchmarks, **regrets)
    found = [sentence for sentence in bench.missed_aims(kept) if missed and sentence.endswith(missed)]
    assert len(found) == (columns if missed else 0), bench.missed_aims(kept)
    assert bool(bench.missed_aims(kept)) == bool(missed)
    lines = bench.verdict(kept)
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[4:-1]] == list(bench.COLUMNS)
    assert ("ours: best" in lines[5]) == ("best" in regrets)


def test_the_plan_of_the_search_has_every_engine_and_pairs_of_seeds(benchmarks: dict[str, ModuleType]) -> None:
    bench = benchmarks["bench_search"]
    planned = [(surface.name, *search) for surface, *search in bench.searches(bench.SEEDS)]
    assert len(planned) == len(set(planned))
    assert {engine for _, engine, _, _ in planned} == benchmarks["search_engines"].engines("python").keys()
    assert min(seed for *_, seed in planned) == bench.FIRST_SEED
    ours = {(surface, stops, seed) for surface, engine, stops, seed in planned if engine == bench.OURS}
    assert {(surface, stops, seed) for surface, _, stops, seed in planned} == ours
    few = [(surface.name, *search) for surface, *search in bench.searches(2, every_seed=True)]
    assert {search[:3] for search in few} == {search[:3] for search in planned}
    assert len(few) == 2 * len({search[:3] for search in planned})


def test_a_treatment_with_few_seeds_is_not_called_the_best(benchmarks: dict[str, ModuleType]) -> None:
    bench = benchmarks["bench_search"]
    for count, best in ((2, None), (3, "ours: best")):
        kept = searched(benchmarks, ours=[0.5, 0.6] * 15, best=[0.0] * count)
        found = bench.best_fixed(kept, bench.CRASHING[0])
        assert (found and found[0]) == best


def test_a_search_is_kept_and_goes_on_where_it_ended(benchmarks: dict[str, ModuleType], tmp_path: Path) -> None:
    bench = benchmarks["bench_search"]
    (surface,) = (surface for surface in bench.surfaces(1) if surface.name == "machines only")
    engines = benchmarks["search_engines"].engines(None)
    regrets = bench.by_trials(surface, engines["random"](surface, 1), 1)
    assert len(regrets) == 60
    assert regrets == sorted(regrets, reverse=True)
    assert min(regrets) > 0
    assert regrets == bench.by_trials(surface, engines["random"](surface, 1), 1)
    kept = bench.Kept(tmp_path / "kept.jsonl")
    kept.add((surface.name, "random", False, 1), regrets)
    again = bench.Kept(tmp_path / "kept.jsonl")
    assert again.has((surface.name, "random", False, 1))
    assert again.regrets == kept.regrets
    early, late = bench.by_epochs(surface, engines["random"](surface, 1), 1)
    assert early >= late > 0


def test_a_replay_says_what_engines_propose_after_a_recorded_sweep(
    benchmarks: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lowest loss is in the middle, and a third of the runs failed."""
    runs = [
        {
            "id": f"r{number:02}",
            "sweep": "ab12cd34",
            "state": "failed" if x > 0.6 else "finished",
            "exit_code": 80 if x > 0.6 else 0,
            "summary": {"end_reason": "diverged" if x > 0.6 else "completed"},
            "config": {"x": x, "depth": {"layers": 2 + number % 2}, "epochs": 3},
            "history": [{"_step": step, "loss": early + (x - 0.5) ** 2} for step, early in enumerate((2, 1, 0))],
        }
        for number, x in enumerate(place / 20 for place in range(20))
    ]
    runs.append({**runs[0], "id": "elsewhere", "config": {"y": 1}})
    config = {
        "method": "random",
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {
            "x": {"min": 0.0, "max": 1.0},
            "depth": {"parameters": {"layers": {"values": [2, 3]}}},
            "epochs": {"value": 3},
        },
    }
    file = tmp_path / "sweep.yaml"
    sweep = {"id": "ab12cd34", "state": "FINISHED", "config": config}
    file.write_text(export_file.write(export_file.Export("p", (sweep,), tuple(runs))))
    benchmarks["replay_search"].main(
        [str(file), "--seeds", "2", "--engines", "ours (auto),TPE: ignoring", "--no-write"]
    )
    said, _, head, _, ours, tpe, *_ = capsys.readouterr().out.splitlines()
    assert said == "What each engine proposes next, with 2 seeds, after 20 runs of which 7 did not finish."
    assert head == "| engine | x | depth.layers |"
    places = [float(text) for text in ours.split(" | ")[1].split(", ")]
    assert ours.startswith("| ours (auto) | ")
    assert tpe.startswith("| TPE: ignoring | ")
    assert all(0.4 < x < 0.6 for x in places), places
    assert {ours.split(" | ")[2].rstrip(" |")} <= {"2, 2", "2, 3", "3, 2", "3, 3"}
    with pytest.raises(SystemExit, match="choose one with --sweep: none"):
        benchmarks["replay_search"].main([str(file), "--sweep", "nosuch00"])
