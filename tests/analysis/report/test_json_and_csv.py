"""The analysis for machines: JSON documents match their schema, and the CSV has one row per run."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from sweep_records import amc_sweep, run, story, sweep
from training_surface import simulate

from amc_analysis.analyse import add_conclusions, analyse, rank_runs
from amc_analysis.next_sweep.sweep_file import next_sweep
from amc_analysis.report.comparison import COMPARISON_VERSION
from amc_analysis.report.json_and_csv import JSON_SCHEMAS, RUN_FIELDS, SCHEMA_VERSION, run_fields, to_csv, to_json
from amc_analysis.report.verdicts import VERDICTS_VERSION
from amc_sweeps.runs.records import SweepRecord


def document(record: SweepRecord, *, follow: bool = False) -> dict[str, Any]:
    analysed = rank_runs(record)
    report = replace(add_conclusions(analysed), next_sweep=next_sweep(analysed) if follow else None)
    return dict(json.loads(to_json(report)))


def schema() -> dict[str, Any]:
    """Return the schema of the document of one sweep."""
    return dict(JSON_SCHEMAS["$defs"]["amc-analyze"])


SWEEPS = {
    "story": lambda: document(story(), follow=True),
    "simulated": lambda: document(simulate(2, 30), follow=True),
    "amc": lambda: document(amc_sweep()),
    "empty": lambda: document(sweep()),
    "nothing finite": lambda: document(sweep(run("a", [math.nan], "failed", config={"lr": math.inf}))),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_document_keeps_to_the_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    errors = [
        f"{list(e.path)}: {e.message[:200]}"
        for e in jsonschema.Draft202012Validator(schema()).iter_errors(SWEEPS[name]())
    ]
    assert not errors


def test_the_schema_refuses_another_version_or_field() -> None:
    valid = jsonschema.Draft202012Validator(schema()).is_valid
    whole = document(story())
    assert valid(whole)
    assert not valid(whole | {"version": SCHEMA_VERSION + 1})
    assert not valid(whole | {"surprise": 1})
    assert not valid({name: value for name, value in whole.items() if name != "effects"})


def test_the_schema_describes_every_field() -> None:
    def undescribed(node: Any, path: str) -> list[str]:
        if isinstance(node, list):
            return [name for item in node for name in undescribed(item, path)]
        if not isinstance(node, dict):
            return []
        properties = node.get("properties", {})
        names = [f"{path}.{name}" for name, field in properties.items() if "description" not in field]
        return names + [name for key, child in node.items() for name in undescribed(child, f"{path}/{key}")]

    assert undescribed(JSON_SCHEMAS, "") == []
    runs = schema()["properties"]["runs"]["items"]["properties"]
    assert list(runs) == [*RUN_FIELDS, "config"]


def test_the_schema_names_the_versions_that_are_written() -> None:
    documents = JSON_SCHEMAS["$defs"]
    versions = {name: document["properties"]["version"]["const"] for name, document in documents.items()}
    assert versions == {
        "amc-analyze": SCHEMA_VERSION,
        "amc-analyze-comparison": COMPARISON_VERSION,
        "amc-analyze-verdicts": VERDICTS_VERSION,
    }
    assert JSON_SCHEMAS["title"] == (
        f"amc-analyze, version {SCHEMA_VERSION}; of several sweeps amc-analyze-comparison, version {COMPARISON_VERSION}"
        f"; with --supports amc-analyze-verdicts, version {VERDICTS_VERSION}"
    )


def test_json_has_the_documented_values() -> None:
    document = json.loads(to_json(analyse(story())))
    assert (document["schema"], document["version"]) == ("amc-analyze", 2)
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


def test_values_that_are_not_finite_are_null_in_json() -> None:
    record = sweep(run("a", [math.nan], "failed", config={"lr": math.inf}, not_finite=("val/combined_acc",)))
    (entry,) = json.loads(to_json(analyse(record)))["runs"]
    assert (entry["last"], entry["config"], entry["not_finite"]) == (None, {"lr": None}, ["val/combined_acc"])


def test_csv_has_one_row_per_run_and_the_searched_parameters() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(rank_runs(story())))))
    assert [line["run_id"] for line in lines][:2] == ["gem", "whole"]
    assert list(lines[0]) == [*RUN_FIELDS, "config.max_lr", "config.snr_layer", "config.optimizer.beta"]
    assert (lines[0]["hidden_gem"], lines[0]["config.max_lr"], lines[0]["config.optimizer.beta"]) == (
        "true",
        "0.002",
        "0.9",
    )


def test_lists_in_the_csv_can_be_read_back() -> None:
    config = {"layers": ["a b", "c"], "shape": {"x": [1, 2]}}
    record = sweep(
        run("a", [0.5], config=config, not_finite=("train loss", "x")),
        config={"parameters": {"layers": {"values": [["a b", "c"], ["d"]]}, "shape": {"values": [{"x": [1, 2]}, 1]}}},
    )
    (line,) = csv.DictReader(io.StringIO(to_csv(rank_runs(record))))
    assert json.loads(line["not_finite"]) == ["train loss", "x"]
    assert json.loads(line["config.layers"]) == config["layers"]
    assert json.loads(line["config.shape"]) == config["shape"]


def test_every_run_field_is_described() -> None:
    assert list(run_fields(rank_runs(story()).ranked[0])) == list(RUN_FIELDS)
