"""The report in words and tables, also where a run's text could break it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest
import yaml
from rich.console import Console
from sweep_records import STORY_CONFIG, amc_sweep, completed, run, story, sweep

from amc_analysis.analyse import add_conclusions, analyse, rank_runs
from amc_analysis.next_sweep.sweep_file import next_sweep
from amc_analysis.report.blocks import Table, Warned
from amc_analysis.report.json_and_csv import document_of, to_csv, to_json
from amc_analysis.report.markdown import to_markdown
from amc_analysis.report.page import to_html
from amc_analysis.report.sections import sections
from amc_analysis.report.terminal import print_report
from amc_analysis.report.wording import epochs_text, failure_text, headline
from amc_analysis.runs.history import History
from amc_analysis.runs.records import with_history, with_metric
from amc_sweeps.grammar.searched_parameters import searched_parameters
from amc_sweeps.runs.claims import read_recorded
from amc_sweeps.runs.commands import agent_command
from amc_sweeps.runs.ranking import exclude
from amc_sweeps.runs.records import Metric, RunRecord, SweepRecord


def printed(record: SweepRecord, *, width: int = 100, rows: int | None = None) -> str:
    out = io.StringIO()
    print_report(analyse(record), Console(file=out, width=width, highlight=False), rows)
    return out.getvalue()


def test_the_headline_names_a_hidden_gem() -> None:
    assert headline(rank_runs(story())) == (
        "gem has the best peak: val/combined_acc 50.00% at epoch 10 (lost). It is a hidden gem: 10.00 points better "
        "than the best run that ended well, whole (40.00%)."
    )


def test_the_headline_names_a_gap_within_the_noise() -> None:
    noisy = [0.4 + 0.05 * (-1) ** e for e in range(12)]
    record = sweep(completed("whole", [0.44]), run("gem", noisy, "crashed"))
    assert "under 2 sd of its epoch-to-epoch noise" in headline(rank_runs(record))


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([], "no runs yet"),
        ([run("a", [math.nan], "failed", exit_code=80)], "No run has logged a finite value of val/combined_acc"),
        ([run("a", summary={"acc": 0.5, "_step": 3})], "Logged metrics: acc."),
        ([completed("a", [0.5])], "a has the best peak: val/combined_acc 50.00% at epoch 1 (completed)."),
        ([run("a", [0.5] * 59, "running")], "still running"),
        ([run("a", [0.5], "crashed")], "No run has ended well"),
    ],
)
def test_the_headline_fits_the_sweep(runs: list[RunRecord], says: str) -> None:
    assert says in headline(rank_runs(sweep(*runs)))


def test_unknown_epochs_are_a_dash_and_null_and_none_are_0() -> None:
    record = sweep(
        run("a", summary={"val/combined_acc": 0.4}, config={"epochs": 9}),
        run("b", config={"epochs": 9}, summary={"_step": 3, "end_reason": "config_refused"}),
        run("c", config={"epochs": 9}, unread="HTTP 500"),
    )
    analysed = analyse(record)
    assert [epochs_text(entry) for entry in analysed.ranked] == ["-/9", "0/9", "-/9"]
    assert [entry["epochs"] for entry in json.loads(to_json(analysed))["runs"]] == [None, 0, None]
    assert [row["epochs"] for row in csv.DictReader(io.StringIO(to_csv(analysed)))] == ["", "0", ""]


def test_early_stops_count_as_ended_but_not_as_failures() -> None:
    rate = rank_runs(story()).failure_rate
    assert (rate.failures, rate.ended, dict(rate.censored), rate.not_finished) == (3, 6, {"early_stopped": 1}, 4)
    text = failure_text(rank_runs(story()))
    assert "3 of 6 ended runs failed: 50% (95% interval 19% to 81%)" in text
    assert "Ended but not counted as failures: 1 early_stopped" in text
    assert "W&B's states alone would call 4 of 6 failed (67%)" in text


def test_few_runs_are_called_too_few_for_a_rate() -> None:
    assert "2 runs are too few for a rate" in failure_text(
        rank_runs(sweep(completed("a", [0.5]), run("b", [0.1], "crashed")))
    )


def test_no_rate_is_given_where_runs_are_missing() -> None:
    chosen = replace(sweep(completed("a", [0.5]), run("b", [0.1], "crashed")), runs_total=12)
    assert failure_text(rank_runs(chosen)).startswith(
        "1 of 2 ended runs on record failed. Only 2 of 12 runs are on record"
    )
    assert "%" not in failure_text(rank_runs(chosen)).split("W&B's states")[0]
    assert "Only 1 of 12 runs is on record" in failure_text(rank_runs(replace(chosen, runs=chosen.runs[:1])))


def test_saved_epochs_are_those_that_early_stops_did_not_take() -> None:
    stops = rank_runs(story()).early_stops
    assert (stops.runs, stops.epochs_saved) == (1, 17)


def with_long_values() -> SweepRecord:
    """Return a sweep whose parameter values, display names and hosts are longer than a narrow terminal."""
    layers = ["bottleneck_" + "128_" * 12 + end for end in ("left", "right")]
    runs = [
        completed(f"run{i:05d}", [0.4 + i / 1000], name="very-long-display-name-" * 3, config={"layer": layers[i % 2]})
        for i in range(30)
    ]
    lost = [run(f"lost{i}", [0.3], "crashed", host="node-" * 12 + str(i), log_tail="evidence " * 20) for i in range(2)]
    return sweep(*runs, *lost, config={"parameters": {"layer": {"values": layers}}})


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_only_commands_exceed_the_terminal_width(width: int) -> None:
    for record in (story(), with_long_values()):
        lines = printed(record, width=width).splitlines()
        assert max(len(line) for line in lines if "amc-" not in line) <= width
    assert any("amc-sweep repeat local/amc-sweeps/" in line for line in printed(story(), width=width).splitlines())


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_narrow_terminal_shortens_names_and_no_figure(width: int) -> None:
    wide, narrow = printed(with_long_values(), width=400), printed(with_long_values(), width=width)
    figures = re.compile(r"\d+\.\d+%|\d+%|\d+/\d+")
    assert sorted(figures.findall(narrow)) == sorted(figures.findall(wide))
    assert not re.search(r"[\d%]…", re.sub(r"[a-z-]\w*…", "", narrow))
    assert "bottle" in narrow


def test_a_minimised_metric_has_its_own_words_everywhere() -> None:
    metric = Metric("val/loss", "minimize")
    runs = []
    for number in range(12):
        values = [1.0 / epoch + 0.01 * (-1) ** epoch + number / 100 for epoch in range(1, 13)]
        rows = [
            {"epoch": e, "val/loss": v, "train/loss": 0.3, "lr": e % 4, "f1/mod/A": 0.5}
            for e, v in enumerate(values, 1)
        ]
        is_cut = number % 2 == 0
        config = {"cut": is_cut, "select_by": "combined_acc", "epochs": 20}
        summary = {"checkpoint_epoch": 1} | ({} if is_cut else {"end_reason": "completed"})
        stop = {"stop_recorded": True, "stop_reason": "user"} if is_cut else {}
        base = run(f"r{number}", [], "killed" if is_cut else "finished", config=config, summary=summary, **stop)
        runs.append(with_metric(with_history(base, History.from_rows(rows)), "val/loss"))
    record = sweep(*runs, metric=metric, config={"parameters": {"cut": {"values": [True, False]}}})
    analysed = analyse(record)
    assert {"CENSORED_COMPARISON", "PEAK_NOT_CHECKPOINTED"} <= {finding.rule.value for finding in analysed.findings}
    for text in (to_markdown(analysed), printed(record)):
        plain = text.replace("PEAK_NOT_CHECKPOINTED", "")
        assert not re.search("peak|too low|inflated", plain, re.IGNORECASE), re.findall(".*peak.*", plain)
    assert "are too high for a comparison" in to_markdown(analysed)


def test_percentages_have_one_format() -> None:
    for text in (to_markdown(analyse(amc_sweep())), to_markdown(analyse(story())), to_html(analyse(story()))):
        assert not re.search(r"\d %(?!\w)", text.partition("<script")[0])


def test_values_that_look_alike_have_different_labels() -> None:
    values: list[object] = [True, "true", 4, "4", 0.123412, 0.123413, "adam"]
    runs = [completed(f"r{i}", [0.1 + i / 100], config={"x": values[i % len(values)]}) for i in range(21)]
    (effect,) = analyse(sweep(*runs, config={"parameters": {"x": {"values": values}}})).effects
    labels = [value.label for value in effect.values]
    assert labels == ["true", '"true"', "4", '"4"', "0.123412", "0.123413", "adam"]
    assert [value.value for value in effect.values] == values


def test_a_small_sweep_has_a_line_for_each_parameter_and_one_finding_about_small_groups() -> None:
    space = {"parameters": {name: {"values": [1, 2, 3]} for name in ("a", "b", "c")}}
    runs = [completed(f"r{i}", [i / 10], config={"a": i, "b": i, "c": min(i, 2)}) for i in (1, 2, 3)]
    text = printed(sweep(*runs, config=space), width=200)
    assert "a: 10.00% with 1, 20.00% with 2, 30.00% with 3." in text
    assert "c: 10.00% with 1, 30.00% with 2 (best of 2 runs)." in text
    assert text.count("GROUP_N_TOO_SMALL") == 1
    assert "The leads of a=3 (1 run), b=3 (1 run), c=2 (2 runs) each rest on fewer than 5 runs." in text
    assert "best of k" not in text, "it has no tables"
    many = [completed(f"r{i}", [i / 10], config={"a": i}) for i in range(8)]
    assert "best of k" in printed(sweep(*many, config={"parameters": {"a": {"values": list(range(8))}}}))


def test_what_all_tables_of_effects_are_of_is_said_once() -> None:
    config = {"parameters": {"a": {"values": [0, 1]}, "b": {"values": [0, 1, 2]}}}
    runs = [completed(f"r{i}", [0.1, 0.2, 0.3 + i / 100], config={"a": i % 2, "b": i % 3}) for i in range(9)]
    lost = run("short", [0.1], "failed", exit_code=1, config={"a": 0, "b": 0})
    text = to_markdown(analyse(sweep(*runs, lost, config=config)))
    assert text.count("Left out of n and mean: 1 run that failed or ended too early.") == 1


def test_causes_by_host_are_words_not_figures() -> None:
    runs = [completed(f"r{i}", [0.2], host=f"box{i % 2}") for i in range(4)]
    failed = [run(f"f{i}", [], "failed", exit_code=1, log_tail="CUDA out of memory", host="box0") for i in range(2)]
    (ends,) = [each for each in sections(analyse(sweep(*runs, *failed))) if each.key == "ends"]
    (hosts,) = [block for block in ends.blocks if isinstance(block, Table) and block.titles[0] == "host"]
    assert {row[0]: row[3] for row in hosts.rows}["box0"] == "out_of_memory (2)"
    assert [hosts.is_numeric(column) for column in range(4)] == [False, True, True, False]


def test_the_terminal_report_shows_every_column_in_full() -> None:
    long_names = [
        completed(f"run{i:05d}", [0.1 + i / 100] * 20, name=f"very-long-display-name-of-sweep-{i}") for i in range(3)
    ]
    text = printed(sweep(*long_names, run("r", [0.5], "failed", exit_code=81)))
    for whole in ("run00000", "50.00%", "completed", "out_of_memory?", "very-long"):
        assert whole in text


def test_values_of_a_loss_have_equal_decimals() -> None:
    losses = [completed(name, [value]) for name, value in [("a", 0.0123), ("b", 0.0456789), ("c", 1e30)]]
    text = printed(sweep(*losses, metric=Metric("val/loss", "minimize")))
    assert all(value in text for value in (" 0.01230 ", " 0.04568 ", " 1e+30 "))


def test_the_best_of_a_minimised_metric_is_called_the_lowest() -> None:
    record = sweep(completed("a", [0.25]), metric=Metric("val/loss", "minimize"))
    text = printed(record)
    assert "a has the lowest val/loss: 0.2500 at epoch 1 (completed)." in text
    assert "lowest" in next(line for line in text.splitlines() if "state" in line)
    assert "peak" not in text.partition("How runs ended")[0]
    assert "1 run, running" in text
    assert "### Ranking by lowest value" in to_markdown(analyse(record))


def test_the_sections_of_a_minimised_metric_name_their_directions() -> None:
    rows = [{"epoch": epoch, "val/loss": 0.5 + 0.01 * (-1) ** epoch, "train/loss": 0.3} for epoch in range(1, 13)]
    losses = with_history(completed("a", []), History.from_rows(rows))
    record = sweep(with_metric(losses, "val/loss"), metric=Metric("val/loss", "minimize"))
    text = to_markdown(analyse(record))
    assert "Validation minus train (train/loss): +0.2" in text
    assert "still show a lowest value this far below its mean" in text
    assert "largest rise" in text


def test_every_report_explains_the_marks_of_its_ranking() -> None:
    runs = [completed("a", [0.4]), run("lost", [0.5], "crashed")]
    analysed = analyse(sweep(*runs))
    excluded = replace(analysed, ranked=exclude(analysed.ranked, {"lost": "RESUME_JUMP"}, "maximize"))
    for sweep_of_case, absent, text in (
        (analysed, "! excluded", "◆ hidden gem"),
        (excluded, "◆ hidden gem", "! excluded"),
    ):
        for report in (to_markdown(sweep_of_case), to_html(sweep_of_case)):
            assert text in report
            assert absent not in report


def test_a_short_ranking_keeps_every_gem() -> None:
    runs = [completed(f"w{i}", [0.9 - i / 100]) for i in range(30)]
    text = printed(sweep(*runs[:2], *runs[3:], run("gem", [0.885], "crashed")), rows=2)
    assert "gem" in text
    assert "27 more runs: --top 0 shows all" in text


def test_an_ascii_terminal_gets_ascii_marks() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")  # raises on anything else
    print_report(analyse(story()), Console(file=out, width=100))
    out.seek(0)
    assert "1 * " in out.read()


def test_markdown_tables_survive_a_pipe_in_a_name() -> None:
    text = to_markdown(analyse(sweep(completed("a", [0.5], name="evil | name <b>"))))
    row = next(line for line in text.splitlines() if "evil" in line and line.startswith("|"))
    assert r"evil \| name &lt;b>" in row
    assert len(re.split(r"(?<!\\)\|", row)) == 13


def test_percentages_are_for_accuracies_kept_as_fractions() -> None:
    def shown(name: str, value: float) -> bool:
        return rank_runs(sweep(completed("a", [value]), metric=Metric(name, "maximize"))).scale.percentage

    assert shown("val/combined_acc", 0.5)
    assert shown("accuracy", 1.0)
    assert shown("val/mod_acc_mean", 0.5)
    assert not shown("val_acc", 47.15), "already a percentage"
    assert not shown("val/loss", 0.5)
    assert not shown("vacc", 0.5)


def test_the_command_of_a_gem_is_what_its_agent_started() -> None:
    record = sweep(config={"program": "train.py", "parameters": {"lr": {"value": 1}, "opt": {"parameters": {}}}})
    assert (
        agent_command(record, {"lr": 0.1, "opt": {"b": 1}, "other": 2})
        == "python train.py --lr=0.1 '--opt={'\"'\"'b'\"'\"': 1}'"
    )


def test_a_run_without_a_sweep_has_no_command() -> None:
    record = sweep(config={"metric": {"name": "val/acc"}})
    assert agent_command(record, {"lr": 0.1, "n_train": 500, "parent_run": "abc", "layers": [1, 2]}) is None


def test_searched_parameters_leave_constants_out() -> None:
    assert searched_parameters(STORY_CONFIG) == ("max_lr", "snr_layer", "optimizer.beta")
    assert searched_parameters({"parameters": {"one": {"values": [1]}}}) == ()


# --- every section in every kind of report


def test_a_sweep_without_findings_has_no_integrity_section() -> None:
    record = sweep(*(completed(f"r{i}", [0.1 * e for e in range(1, 6)], stop_recorded=False) for i in range(3)))
    assert "integrity" not in [section.key for section in sections(analyse(record))]
    assert "Integrity" not in printed(record)


def test_every_finding_is_in_every_report() -> None:
    analysed = analyse(sweep(*story().runs, config={**STORY_CONFIG, "method": "bayes"}, state="FINISHED"))
    names = [finding.rule.value for finding in analysed.findings]
    assert names, "a bayes sweep with early stops and without impute has a finding"
    warned = [block.name for section in sections(analysed) for block in section.blocks if isinstance(block, Warned)]
    assert warned == names
    out = io.StringIO()
    print_report(analysed, Console(file=out, width=100, highlight=False))
    for name in names:
        assert name in out.getvalue()
        assert f"**{name}**" in to_markdown(analysed)


def test_every_report_says_what_a_bayes_search_was_told_of_each_run() -> None:
    record = sweep(*story().runs, config={**STORY_CONFIG, "method": "bayes"}, state="FINISHED", crashed_runs="auto")
    analysed = analyse(record)
    told = {entry.run.run_id: entry.treatment for entry in analysed.ranked}
    assert (told["whole"], told["gem"], told["poor"]) == ("peak", "extrapolated", "pruned")
    assert "IMPUTE_WORST" not in [finding.rule.value for finding in analysed.findings]
    for text in (printed(record), to_markdown(analysed)):
        assert "What the search was told of these runs (crashed runs: auto)" in text
    assert "its curve, extrapolated to full length: the machine ended it" in to_markdown(analysed)
    assert {run["run_id"]: run["treatment"] for run in document_of(analysed)["runs"]} == told
    assert document_of(analysed)["sweep"]["crashed_runs"] == "auto"
    assert analyse(sweep(*story().runs, config={**STORY_CONFIG, "method": "random"})).treatments == {}


def test_a_report_of_another_task_names_no_modulations() -> None:
    text = to_markdown(analyse(story()))
    assert not re.search("modulation|attractor|SNR level", text, re.IGNORECASE)


def test_amc_metrics_have_their_tables() -> None:
    text = to_markdown(analyse(amc_sweep()))
    assert "F1 by modulation of best" in text
    assert "F1 by SNR level of best" in text
    assert "Weight of the modulation task" in text
    assert "SNR attractors" in text


def test_a_gem_and_the_next_sweep_have_their_commands() -> None:
    text = to_markdown(analyse(story()))
    assert "```bash\namc-sweep repeat local/amc-sweeps/gem" in text
    assert "```bash\namc-analyze 94fqx0gz --next next.yaml\n```" in text


def test_the_report_summarises_the_next_sweep() -> None:
    analysed = rank_runs(story())
    analysed = replace(add_conclusions(analysed), next_sweep=next_sweep(analysed))
    assert "Next sweep: infinitely many configurations, at most 12 runs" in to_markdown(analysed)


def test_failures_with_the_same_evidence_are_one_row() -> None:
    runs = [run(f"r{i}", [0.1], "crashed") for i in range(9)]
    (ends,) = (section for section in sections(analyse(sweep(*runs))) if section.key == "ends")
    failed = next(block for block in ends.blocks if isinstance(block, Table) and block.titles[0] == "failure")
    assert len(failed.rows) == 1
    assert failed.rows[0][-1] == "r0, r1, r2, r3, r4, r5 and 3 more"


def test_numbers_are_aligned_to_the_right_and_words_to_the_left() -> None:
    table = Table(("run", "peak", "level", "n"), [("a1", "51.48%", "12 dB", "-"), ("2b", "-", "3 dB", "4/5")])
    assert [table.is_numeric(column) for column in range(4)] == [False, True, True, True]


def test_markdown_is_an_entry_of_a_research_log() -> None:
    text = to_markdown(analyse(story()))
    assert text.startswith("## Sweep: 94fqx0gz - a sweep\n\n**Status**: running, 7 runs, read 2025-07-01 13:00 UTC")
    assert "never by test" in text


@pytest.mark.parametrize("name", ["`code`", "[link](http://evil)", "*bold*", "a\nb", "<img>"])
def test_no_name_becomes_markup_in_markdown(name: str) -> None:
    text = to_markdown(analyse(sweep(completed("a", [0.5], name=name))))
    assert not re.search(r"(?<!\\)`code`|(?<!\\)\[link\]|(?<!\\)\*bold\*|\na\nb|<img>", text)


def test_no_report_carries_control_characters_of_names_values_or_logs() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\u202egpj\x9b31m\u061c"
    log = f"line\n{hostile}\nRuntimeError: {hostile}"
    config = {"lr": 0.1, "optimizer": hostile, hostile: 1}
    more = {"notes": hostile, "agent": hostile, "project": hostile, "sweep_id": hostile, "stop_reason": hostile}
    first = run("a", [0.5, 0.6], "failed", name=hostile, host=hostile, log_tail=log, config=config, **more)
    second = completed("b", [0.1, 0.2], config={"lr": 0.2, "optimizer": "sgd"})
    claim = {"kind": "count", "statement": hostile, "source": hostile, "numbers": {"n": 3}, "runs": [hostile]}
    recorded = read_recorded(yaml.safe_dump({"recorded": {"source": hostile, "claims": [claim]}}))
    assert recorded is not None
    known = {"name": hostile, "description": hostile, "url": hostile, "claims": recorded.claims}
    analysed = add_conclusions(rank_runs(sweep(first, second, **known)))
    terminal = io.StringIO()
    print_report(analysed, Console(file=terminal, width=160, markup=False))
    for text in (terminal.getvalue(), to_markdown(analysed), to_html(analysed), to_csv(analysed), to_json(analysed)):
        assert not re.search("[\x1b\x07\x9b\u202e\u061c]", text)
    assert r"\x1b[2J" in terminal.getvalue(), "the name is shown with its escapes"


@pytest.mark.parametrize("formula", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1"])
def test_a_cell_of_the_csv_is_no_formula(formula: str) -> None:
    text = to_csv(rank_runs(sweep(run("a", [-0.5], name=formula, config={"lr": -0.1}))))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["name"] == f"'{formula}"
    assert float(row["peak"]) == -0.5


def test_a_line_end_within_a_cell_of_the_csv_does_not_end_its_row() -> None:
    config = {"lr": 0.1, "note": "a\r\nb\rc\nd"}
    text = to_csv(rank_runs(sweep(run("a", [0.5], name="x\ry", config=config), run("b", [0.4], config=config))))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["run_id"] for row in rows] == ["a", "b"]
    assert "\r" not in text.replace("\r\n", "")
    assert rows[0]["name"] == "x\\ry"
