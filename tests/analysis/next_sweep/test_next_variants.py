"""Variants in the analysis and in the next sweep: searched as one, reported by their fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml
from sweep_records import completed, sweep

from amc_agents.preflight.check_sweep import check_sweep
from amc_analysis.analyse import add_conclusions, rank_runs
from amc_analysis.next_sweep.sweep_file import next_sweep
from amc_analysis.report.json_and_csv import to_csv
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Rule
from amc_core.config import TrialConfig

VARIANTS = [
    "model_type=resnet18 representation=constellation",
    "model_type=resnet18 representation=synced",
    {"model_type": "lstm2", "representation": "amplitude_phase"},
]


def analysed(values: list[float], n: int = 36, variants: list[Any] = VARIANTS) -> AnalysedSweep:
    """Return a sweep whose runs reach these values, one a variant, with noise between runs."""
    rng = np.random.default_rng(3)
    runs = []
    for number in range(n):
        place = number % len(variants)
        chosen = {"variant": variants[place], "max_lr": float(rng.choice([0.001, 0.002]))}
        config = {**TrialConfig.from_mapping(chosen).to_mapping(), **chosen, "seed": 0}
        peak = values[place] + float(rng.normal(0, 0.005))
        runs.append(completed(f"r{number:02}", [peak * epoch / 10 for epoch in range(1, 11)], config=config))
    config = {
        "program": "amc-train",
        "command": ["${env}", "${program}", "${args}"],
        "method": "random",
        "metric": {"name": "val/combined_acc", "goal": "maximize"},
        "parameters": {"variant": {"values": variants}, "max_lr": {"values": [0.001, 0.002]}},
    }
    return add_conclusions(rank_runs(sweep(*runs, config=config, state="FINISHED")))


def test_the_report_has_the_fields_of_the_variants() -> None:
    sweep_ = analysed([0.5, 0.45, 0.3])
    assert sweep_.parameter_names == ("max_lr", "model_type", "representation")
    effects = {effect.parameter: effect for effect in sweep_.effects}
    assert [value.label for value in effects["representation"].values] == ["constellation", "synced", "amplitude_phase"]
    assert [effects[name].is_clear for name in ("max_lr", "model_type", "representation")] == [False, True, True]
    (pair,) = (finding for finding in sweep_.findings if finding.rule is Rule.CONFOUNDED_PAIR)
    assert "compare whole variants" in pair.consequence
    assert to_csv(sweep_).splitlines()[0].endswith("config.max_lr,config.model_type,config.representation")


def test_the_next_sweep_drops_whole_variants() -> None:
    sweep_ = analysed([0.5, 0.498, 0.3])
    written = next_sweep(sweep_).text
    assert not check_sweep(written, source="next.yaml").problems, written
    parameters = yaml.safe_load(written)["parameters"]
    assert parameters["variant"] == {"values": VARIANTS[:2]}
    assert "model_type" not in parameters
    assert "Dropped model_type=lstm2 representation=amplitude_phase (n = 12" in " ".join(written.split("\n  # "))


@pytest.mark.parametrize("as_text", [True, False])
def test_the_only_variant_that_is_left_is_written_as_its_fields(as_text: bool) -> None:
    left: Any = VARIANTS[0] if as_text else {"model_type": "resnet18", "representation": "constellation"}
    written = next_sweep(analysed([0.5, 0.3], variants=[left, VARIANTS[2]])).text
    assert not check_sweep(written, source="next.yaml").problems, written
    parameters = yaml.safe_load(written)["parameters"]
    assert (parameters["model_type"], parameters["representation"]) == (
        {"value": "resnet18"},
        {"value": "constellation"},
    )
    assert "variant" not in parameters
    assert "Dropped model_type=lstm2" in written


def test_a_variant_without_a_clear_effect_stays_whole() -> None:
    written = yaml.safe_load(next_sweep(analysed([0.5, 0.5, 0.5])).text)["parameters"]
    assert written["variant"] == {"values": VARIANTS}
