"""Benchmarks compare their results with limits; a worse run does not replace a committed table."""

from __future__ import annotations

import argparse
import configparser
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from amc_sweeps.grammar.hyperband import HyperbandConfig

ROOT = Path(__file__).parents[1]
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
        return {name: importlib.import_module(name) for name in ("machine", "bench_images", "replay")}
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
