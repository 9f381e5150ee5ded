"""Statements about a sweep are read, and judged by its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from calibration import Rate
from click.testing import CliRunner
from judged_statements import BEST, FAILS, answer, null_rates, planted_rates
from simulated_sweeps import Setting, simulate, simulated_sweep

from amc_analysis.analyse import add_effects
from amc_analysis.cli import main
from amc_analysis.report.json_and_csv import JSON_SCHEMAS
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.statements.statement import Comparison, StatementError, read_statement
from amc_analysis.statements.verdict import Answer, judge
from amc_sweeps.runs.causes import Cause

METRIC = {"name": "acc", "goal": "maximize"}


@pytest.fixture
def record_file(tmp_path: Path) -> Path:
    """A file of a sweep of 12 runs, where lr = 0.1 is better."""
    config = {"method": "grid", "metric": METRIC, "parameters": {"lr": {"values": [0.1, 0.2]}}}
    runs = [
        {
            "id": f"r{index:02d}",
            "sweep": "ab12cd34",
            "state": "finished",
            "exit_code": 0,
            "config": {"lr": 0.1 + 0.1 * (index % 2)},
            "history": "\n".join(
                json.dumps({"_step": epoch, "acc": 0.5 + 0.01 * index + epoch / 100 - 0.3 * (index % 2)})
                for epoch in range(6)
            ),
        }
        for index in range(12)
    ]
    sweeps = [{"id": "ab12cd34", "state": "FINISHED", "config": config}]
    export = {"format": "amc-sweep-export", "version": 2, "project": "p", "sweeps": sweeps, "runs": runs}
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps(export))
    return path


def sweep(*, n: int = 24, shift: Any = lambda _config: 0.0, crash: float = 0.0, seed: int = 1) -> AnalysedSweep:
    return simulated_sweep(simulate(Setting(n, crash=crash, shift=shift, balanced=True), np.random.default_rng(seed)))


def test_a_true_statement_is_supported_and_its_reverse_contradicted() -> None:
    analysed = sweep(shift=lambda config: 0.1 * config["curriculum"])
    assert answer("curriculum=true beats curriculum=false", analysed) is Answer.SUPPORTED
    assert answer("curriculum=false beats curriculum=true", analysed) is Answer.CONTRADICTED
    assert answer("max_lr=1e-5..1e-3 beats max_lr=1.1e-3..1e-2", analysed) is Answer.NOT_ENOUGH


def test_failures_are_compared_by_ended_runs() -> None:
    runs = simulate(Setting(24, balanced=True), np.random.default_rng(2))
    for run in runs:
        if run.config["curriculum"]:
            run.cause = Cause.OUT_OF_MEMORY
    analysed = simulated_sweep(runs)
    (verdict,) = judge([read_statement(FAILS, analysed.ranked, analysed.parameters)], analysed)
    assert verdict.answer is Answer.SUPPORTED
    assert verdict.evidence["failures"] == [12, 0]
    assert "12 of 12 ended runs failed" in verdict.sentences[0]
    assert answer("failure of curriculum=false above curriculum=true", analysed) is Answer.CONTRADICTED


def test_the_best_run_must_lead_by_more_than_its_noise() -> None:
    runs = simulate(Setting(10), np.random.default_rng(3))
    runs[4].values = [value + 0.3 for value in runs[4].values]
    analysed = simulated_sweep(runs)
    assert answer("best is run0004", analysed) is Answer.SUPPORTED
    assert answer("best is run0005", analysed) is Answer.CONTRADICTED
    runs[6].values = [value + 0.0001 for value in runs[4].values]
    assert answer("best is run0004", simulated_sweep(runs)) is Answer.NOT_ENOUGH


def test_a_few_runs_are_not_enough() -> None:
    analysed = sweep(n=6, shift=lambda config: 0.1 * config["curriculum"])
    assert answer("curriculum=true beats curriculum=false", analysed) is Answer.SUPPORTED, "1 of 20 orders: p = 0.05"
    assert answer(
        "curriculum=true beats curriculum=false", sweep(n=5, shift=lambda config: 0.1 * config["curriculum"])
    ) is (Answer.NOT_ENOUGH)


def test_a_record_with_missing_runs_supports_nothing() -> None:
    runs = simulate(
        Setting(24, shift=lambda config: 0.1 * config["curriculum"], balanced=True), np.random.default_rng(5)
    )
    analysed = simulated_sweep(runs, runs_total=40)
    (verdict,) = judge(
        [read_statement("curriculum=true beats curriculum=false", analysed.ranked, analysed.parameters)], analysed
    )
    assert verdict.answer is Answer.NOT_ENOUGH
    assert "Only 24 of 40 runs" in verdict.sentences[-1]


def test_several_statements_share_the_level() -> None:
    analysed = sweep(n=6, shift=lambda config: 0.1 * config["curriculum"])
    statement = read_statement("curriculum=true beats curriculum=false", analysed.ranked, analysed.parameters)
    assert [verdict.answer for verdict in judge([statement] * 2, analysed)] == [Answer.NOT_ENOUGH] * 2


def test_evidence_is_plain_json_and_names_tied_parameters() -> None:
    runs = simulate(Setting(24, balanced=True), np.random.default_rng(4))
    for run in runs:
        run.config["snr_layer"] = "standard" if run.config["curriculum"] else "bottleneck_64"
    analysed = add_effects(simulated_sweep(runs))
    text = "curriculum=true beats curriculum=false"
    (verdict,) = judge([read_statement(text, analysed.ranked, analysed.parameters)], analysed)
    assert json.loads(json.dumps(verdict.evidence, allow_nan=False)) == verdict.evidence
    assert any("tied to snr_layer" in sentence for sentence in verdict.sentences)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("curriculum is great", "PARAMETER=VALUE beats PARAMETER=VALUE"),
        ("failure of curriculum=true beats curriculum=false", "PARAMETER=VALUE beats"),
        ("curriculum=true above curriculum=false", "PARAMETER=VALUE beats"),
        ("curriculum=true beats snr_layer=standard", "same parameter"),
        ("colour=red beats colour=blue", "max_lr, dropout, snr_layer, curriculum"),
        ("dropout=0.7 beats dropout=0.1", "0.1, 0.2, 0.3, 0.4, 0.5"),
        ("dropout=0.1..0.3 beats dropout=0.3", "both sides"),
        ("dropout=0.3..0.1 beats dropout=0.5", "LOW..HIGH"),
        ("dropout beats dropout=0.5", "must be PARAMETER=VALUE"),
        ("best is nobody", "its runs: run00"),
        ("", "PARAMETER=VALUE beats"),
        ("best is ", "PARAMETER=VALUE beats"),
        ("a=" + "[" * 5000 + " beats a=1", "no searched parameter"),
        ("best is " + "x" * 5000, r"\(5,002 characters\); its runs"),
        ("dropout=0.1 dB beats dropout=0.5 dB", "no run has dropout=0.1 dB; its values: 0.1"),
        ("dropout=10% beats dropout=50%", "no run has dropout=10%; its values: 0.1"),
        ("dropout=0.1..x beats dropout=0.5", "LOW..HIGH"),
        ("dropout=nan beats dropout=0.5", "no run has dropout=nan"),
        ("dropout=.. beats dropout=0.5", "LOW..HIGH"),
        ("dropout={a: 1} beats dropout=0.5", "no run has"),
    ],
)
def test_a_statement_that_cannot_be_read_says_what_can(text: str, message: str) -> None:
    analysed = sweep()
    with pytest.raises(StatementError, match=message.replace("..", r"\.\.")) as caught:
        read_statement(text, analysed.ranked, analysed.parameters)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("text", ["0.1", "1e-1", "'0.1'", ".1", "0.05..0.15"])
def test_a_value_may_be_written_in_any_usual_way(text: str) -> None:
    analysed = sweep()
    statement = read_statement(f"dropout={text} beats dropout=0.5", analysed.ranked, analysed.parameters)
    assert isinstance(statement, Comparison)
    assert {analysed.ranked[run].run.config["dropout"] for run in statement.runs[0]} == {0.1}


@pytest.mark.parametrize(
    "text",
    [
        "  dropout=0.1 BEATS dropout=0.5",
        "'dropout=0.1 beats dropout=0.5'",
        "\u201cdropout = 0.1\u00a0 beats\tdropout = 0.5 \u201d",
        "dropout=0.10\nbeats dropout=+0.5",
    ],
)
def test_blanks_quotes_and_capitals_around_a_statement_do_not_matter(text: str) -> None:
    analysed = sweep()
    statement = read_statement(text, analysed.ranked, analysed.parameters)
    assert isinstance(statement, Comparison)
    assert [{analysed.ranked[run].run.config["dropout"] for run in side} for side in statement.runs] == [{0.1}, {0.5}]


def test_a_false_statement_is_rarely_supported() -> None:
    rates = null_rates(40)
    whole = Rate(sum(rate.k for rate in rates.values()), sum(rate.n for rate in rates.values()))
    assert whole.n > 200
    assert whole.share < 0.05 + 3.7 * whole.se(0.05), rates
    assert rates[BEST].k <= 8


def test_a_difference_of_two_noise_sd_is_mostly_supported_in_30_runs() -> None:
    for text, (supported, contradicted) in planted_rates(12).items():
        assert min(supported.k, contradicted.k) >= 5, (text, supported, contradicted)


@pytest.mark.parametrize(
    ("statements", "code", "word"),
    [
        (["lr=0.1 beats lr=0.2"], 0, "supported: lr=0.1"),
        (["lr=0.2 beats lr=0.1"], 3, "contradicted: lr=0.2"),
        (["failure of lr=0.1 above lr=0.2"], 4, "not enough evidence: failure"),
        (["lr=0.1 beats lr=0.2", "best is r00"], 4, "not enough evidence: best"),
        (["lr=0.3 beats lr=0.2"], 2, "no run has lr=0.3; its values: 0.1, 0.2"),
    ],
)
def test_the_exit_code_tells_a_script_the_answer(
    record_file: Path, statements: list[str], code: int, word: str
) -> None:
    options = [part for statement in statements for part in ("--supports", statement)]
    ended = CliRunner().invoke(main, ["--from", str(record_file), *options])
    assert ended.exit_code == code, ended.output
    assert word in ended.output


def test_verdicts_follow_their_schema(record_file: Path) -> None:
    options = ["--supports", "lr=0.1 beats lr=0.2", "--supports", "best is r00", "--json"]
    ended = CliRunner().invoke(main, ["--from", str(record_file), *options])
    document = json.loads(ended.stdout)
    jsonschema.validate(document, JSON_SCHEMAS)
    assert document["answer"] == "not enough evidence"
    assert [verdict["answer"] for verdict in document["verdicts"]] == ["supported", "not enough evidence"]


def test_verdicts_are_no_report() -> None:
    ended = CliRunner().invoke(main, ["94fqx0gz", "--supports", "best is a", "--csv", "-"])
    assert ended.exit_code == 2
    assert "without the files" in ended.stderr
