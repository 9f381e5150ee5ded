"""The findings in words, tables and pages: what they say, and that no run's text can break them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console
from sweep_records import completed, run, sweep

from amc_analysis.curves import chart_of, round_ticks, visible_range
from amc_analysis.findings import analyse, command_of, searched_parameters, shown_as_percentage
from amc_analysis.page import to_html
from amc_analysis.report import failure_text, headline, print_report, to_markdown
from amc_analysis.runs import Metric, RunRecord, SweepRecord
from amc_analysis.tables import RUN_FIELDS, run_fields, to_csv, to_json

CONFIG = {
    "method": "bayes",
    "program": "amc-train",
    "metric": {"name": "val/combined_acc", "goal": "maximize"},
    "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 3, "strict": True},
    "parameters": {
        "max_lr": {"min": 1e-4, "max": 1e-2, "distribution": "log_uniform_values"},
        "snr_layer": {"values": ["standard", "bottleneck_64"]},
        "curriculum": {"value": True},
        "optimizer": {"parameters": {"beta": {"values": [0.9, 0.99]}}},
    },
}


def configured(max_lr: float) -> dict[str, object]:
    return {"max_lr": max_lr, "snr_layer": "standard", "curriculum": True, "optimizer": {"beta": 0.9}, "epochs": 20}


def story() -> SweepRecord:
    """A gem that was lost, two whole runs, an early stop, a divergence, one out of memory, one still running."""
    return sweep(
        completed("whole", [0.02 * e for e in range(1, 21)], config=configured(1e-3), stop_recorded=False),
        run("gem", [0.05 * e for e in range(1, 11)], "crashed", config=configured(2e-3), stop_recorded=False),
        run("patient", [0.3, 0.2], summary={"end_reason": "patience"}, config=configured(3e-3), stop_recorded=False),
        run("poor", [0.001] * 3, "killed", config=configured(4e-3), stop_recorded=True),
        run("nan", [0.03, math.nan], "failed", exit_code=80, config=configured(9e-3), stop_recorded=False),
        run("memory", state="failed", exit_code=1, log_tail="CUDA out of memory", stop_recorded=False),
        run("alive", [0.1] * 59, "running", config=configured(5e-3), stop_recorded=False),
        config=CONFIG,
    )


def printed(record: SweepRecord, *, width: int = 100, rows: int | None = None) -> str:
    out = io.StringIO()
    print_report(analyse(record), Console(file=out, width=width, highlight=False), rows)
    return out.getvalue()


def test_the_headline_says_who_won_and_that_it_never_finished() -> None:
    assert headline(analyse(story())) == (
        "gem has the best peak: val/combined_acc 50.00% at epoch 10 (lost). It is a hidden gem: 10.00 points better "
        "than the best run that ended well, whole (40.00%)."
    )


def test_a_gap_within_the_noise_is_called_that() -> None:
    noisy = [0.4 + 0.05 * (-1) ** e for e in range(12)]
    record = sweep(completed("whole", [0.44]), run("gem", noisy, "crashed"))
    assert "within its own epoch-to-epoch noise" in headline(analyse(record))


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([], "no runs yet"),
        ([run("a", [math.nan], "failed", exit_code=80)], "No run has logged a finite value of val/combined_acc"),
        ([run("a", summary={"acc": 0.5, "_step": 3})], "Logged were: acc."),
        ([completed("a", [0.5])], "a has the best peak: val/combined_acc 50.00% at epoch 1 (completed)."),
        ([run("a", [0.5] * 59, "running")], "still running"),
        ([run("a", [0.5], "crashed")], "No run has ended as it was meant to"),
    ],
)
def test_the_headline_fits_the_sweep(runs: list[RunRecord], says: str) -> None:
    assert says in headline(analyse(sweep(*runs)))


def test_early_stops_are_in_the_denominator_and_named_but_no_failures() -> None:
    rate = analyse(story()).failure_rate
    assert (rate.failures, rate.ended, dict(rate.censored), rate.not_finished) == (3, 6, {"early_stopped": 1}, 4)
    text = failure_text(analyse(story()))
    assert "3 of 6 ended runs failed: 50% (95% interval 19% to 81%)" in text
    assert "not as failures: 1 early_stopped" in text
    assert "By state alone it would be 4 of 6, 67%" in text


def test_few_runs_are_no_rate() -> None:
    assert "hardly a rate" in failure_text(analyse(sweep(completed("a", [0.5]), run("b", [0.1], "crashed"))))


def test_epochs_saved_are_those_that_early_stops_did_not_take() -> None:
    stops = analyse(story()).early_stops
    assert (stops.runs, stops.epochs_saved) == (1, 17)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_terminal_report_keeps_to_its_width_but_for_commands_to_copy(width: int) -> None:
    lines = printed(story(), width=width).splitlines()
    assert max(len(line) for line in lines if "amc-sweep re" not in line) <= width
    assert any("amc-sweep repeat local/amc-sweeps/" in line for line in lines)


def test_the_terminal_report_shows_every_column_in_full() -> None:
    long_names = [
        completed(f"run{i:05d}", [0.1 + i / 100] * 20, name=f"very-long-display-name-of-sweep-{i}") for i in range(3)
    ]
    text = printed(sweep(*long_names, run("r", [0.5], "failed", exit_code=81)))
    for whole in ("run00000", "50.00%", "completed", "out_of_memory?", "very-long"):
        assert whole in text


def test_values_of_a_loss_line_up() -> None:
    losses = [completed(name, [value]) for name, value in [("a", 0.0123), ("b", 0.0456789), ("c", 1e30)]]
    text = printed(sweep(*losses, metric=Metric("val/loss", "minimize")))
    assert all(shown in text for shown in (" 0.01230 ", " 0.04568 ", " 1e+30 "))


def test_the_ranking_is_cut_but_never_a_gem() -> None:
    runs = [completed(f"w{i}", [0.9 - i / 100]) for i in range(30)]
    text = printed(sweep(*runs[:2], *runs[3:], run("gem", [0.885], "crashed")), rows=2)
    assert "gem" in text
    assert "27 more runs: --top 0 shows all" in text


def test_an_ascii_terminal_gets_ascii_marks() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")  # raises on anything else
    print_report(analyse(story()), Console(file=out, width=100))
    out.seek(0)
    assert "1 * " in out.read()


def test_json_says_what_the_schema_says() -> None:
    document = json.loads(to_json(analyse(story())))
    assert (document["schema"], document["version"]) == ("amc-analyze", 1)
    assert document["metric"] == {"name": "val/combined_acc", "goal": "maximize", "percentage": True}
    assert document["summary"] == {
        "runs": 7,
        "best": "gem",
        "best_whole": "whole",
        "hidden_gems": ["gem"],
        "early_stops": {"runs": 1, "epochs_saved": 17},
    }
    assert document["failure_rate"]["rate"] == 0.5
    assert document["failure_rate"]["naive"] == {"not_finished": 4, "rate": pytest.approx(4 / 6)}
    first = document["runs"][0]
    assert (first["run_id"], first["peak"], first["peak_epoch"], first["cause"]) == ("gem", 0.5, 10, "lost")
    assert first["config"]["optimizer"] == {"beta": 0.9}
    assert all(list(entry) == [*RUN_FIELDS, "config"] for entry in document["runs"])


def test_what_is_not_finite_is_null_in_json() -> None:
    record = sweep(run("a", [math.nan], "failed", config={"lr": math.inf}, not_finite=("val/combined_acc",)))
    (entry,) = json.loads(to_json(analyse(record)))["runs"]
    assert (entry["last"], entry["config"], entry["not_finite"]) == (None, {"lr": None}, ["val/combined_acc"])


def test_csv_has_one_line_a_run_and_the_searched_parameters() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(analyse(story())))))
    assert [line["run_id"] for line in lines][:2] == ["gem", "whole"]
    assert list(lines[0]) == [*RUN_FIELDS, "config.max_lr", "config.snr_layer", "config.optimizer.beta"]
    assert (lines[0]["hidden_gem"], lines[0]["config.max_lr"], lines[0]["config.optimizer.beta"]) == (
        "true",
        "0.002",
        "0.9",
    )


def test_every_run_field_is_described() -> None:
    assert list(run_fields(analyse(story()).ranked[0])) == list(RUN_FIELDS)


def test_markdown_tables_survive_a_pipe_in_a_name() -> None:
    text = to_markdown(analyse(sweep(completed("a", [0.5], name="evil | name <b>"))))
    row = next(line for line in text.splitlines() if "evil" in line and line.startswith("|"))
    assert r"evil \| name &lt;b>" in row
    assert len(re.split(r"(?<!\\)\|", row)) == 13


def test_the_page_fetches_nothing_and_escapes_everything() -> None:
    record = sweep(completed("a", [0.5, 0.6], name="<script>alert(1)</script>"), config=CONFIG)
    page = to_html(analyse(record))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(?:src|href)=|url\(|@import|https?://", page)


def test_the_page_draws_every_curve_in_its_causes_colour() -> None:
    page = to_html(analyse(story()))
    drawing = ET.fromstring(page[page.index("<svg") : page.index("</svg>") + len("</svg>")])
    groups = {group.findtext("title", "").split(":")[0]: group.get("class") for group in drawing.findall("g")}
    assert groups == {
        "whole": "well", "patient": "well", "gem": "failed gem", "poor": "cut", "nan": "failed", "alive": "open",
    }  # fmt: skip


def test_the_page_of_a_sweep_without_runs_says_so() -> None:
    assert "no runs yet" in to_html(analyse(sweep()))


def test_a_curve_breaks_where_it_is_not_finite() -> None:
    chart = chart_of(analyse(sweep(run("a", [0.1, 0.2, math.nan, 0.3, 0.4], "failed"))))
    assert chart is not None
    assert [len(piece.split()) for piece in chart.curves[0].pieces] == [2, 2]


def test_one_divergence_does_not_flatten_the_other_curves() -> None:
    low, high = visible_range([0.1 * i for i in range(20)] + [1e30])
    assert low == 0
    assert high < 10


def test_equal_values_still_have_a_range() -> None:
    low, high = visible_range([0.5, 0.5])
    assert low < 0.5 < high


def test_ticks_are_round() -> None:
    assert round_ticks(0.03, 0.51, 5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert round_ticks(1, 3, 10, whole=True) == [1, 2, 3]


def test_percentages_are_for_accuracies_kept_as_fractions() -> None:
    def shown(name: str, value: float) -> bool:
        return shown_as_percentage(analyse(sweep(completed("a", [value]), metric=Metric(name, "maximize"))))

    assert shown("val/combined_acc", 0.5)
    assert shown("accuracy", 1.0)
    assert not shown("val_acc", 47.15), "already a percentage"
    assert not shown("val/loss", 0.5)
    assert not shown("vacc", 0.5)


def test_the_command_of_a_gem_is_what_its_agent_started() -> None:
    record = sweep(config={"program": "train.py", "parameters": {"lr": {"value": 1}, "opt": {"parameters": {}}}})
    assert (
        command_of(record, {"lr": 0.1, "opt": {"b": 1}, "other": 2})
        == "python train.py --lr=0.1 '--opt={'\"'\"'b'\"'\"': 1}'"
    )


def test_searched_parameters_leave_constants_out() -> None:
    assert searched_parameters(CONFIG) == ("max_lr", "snr_layer", "optimizer.beta")
    assert searched_parameters({"parameters": {"one": {"values": [1]}}}) == ()
