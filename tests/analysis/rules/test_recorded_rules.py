"""What the 2025 run log gets wrong, and which rule says so: on the records of it that come with the project."""

from __future__ import annotations

import re
from functools import cache

import pytest
from recorded_sweeps import FOLDER, recorded

from amc_analysis.report.conclusions import case_of, conclude
from amc_analysis.report.markdown import to_markdown
from amc_analysis.report.sections import report_of
from amc_analysis.rules.finding import Firing, Rule
from amc_analysis.rules.registry import fire
from amc_analysis.runs.wording import headline

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="sweeps/recorded is not in this checkout")


@cache
def _firings(name: str) -> tuple[Firing, ...]:
    return fire(case_of(recorded(name)))


def _of(name: str, rule: Rule, subject: str) -> list[Firing]:
    return [firing for firing in _firings(name) if firing.rule is rule and subject in firing.subjects]


def test_the_test_record_of_dde1f5vz_lies_27_standard_errors_above_its_validation() -> None:
    (firing,) = _of("94fqx0gz", Rule.TEST_GT_VAL, "dde1f5vz")
    assert firing.numbers["z"] == pytest.approx(27.15, abs=0.05)


def test_vocal_glade_228_was_validated_on_frames_that_its_weights_were_trained_on() -> None:
    (firing,) = _of("single_runs", Rule.HELDOUT_OVERLAP_BOUND, "0ecx68oy")
    assert firing.numbers["overlap"] == 111_411
    assert firing.numbers["held_out"] == 334_234
    assert firing.numbers["share"] == pytest.approx(1 / 3, abs=1e-4)
    assert _of("single_runs", Rule.SPLIT_CHANGED_ON_RESUME, "0ecx68oy")


def test_vocal_glade_228_begins_with_a_jump_that_no_epoch_explains() -> None:
    (firing,) = _of("single_runs", Rule.RESUME_JUMP, "0ecx68oy")
    assert firing.numbers["parent"] == 0.4749
    assert firing.numbers["jump"] == pytest.approx(0.0497)


def test_standard_most_stable_is_one_run() -> None:
    found = _of("bapdavm5", Rule.GROUP_N_TOO_SMALL, "snr_layer")
    (firing,) = [firing for firing in found if "MOST STABLE" in firing.evidence]
    assert firing.numbers["n"] == 1
    assert firing.numbers["high"] == pytest.approx(0.79, abs=0.005)


def test_the_recommended_7e_4_was_never_run_in_o7pjrbw1() -> None:
    (never,) = _of("o7pjrbw1", Rule.NEVER_SAMPLED_VALUE, "max_lr=0.0007")
    assert never.numbers["n"] == 12
    assert _of("o7pjrbw1", Rule.ZERO_VARIANCE_PARAM, "max_lr")
    assert len(_of("o7pjrbw1", Rule.RECOMMENDATION_OUTSIDE_DATA, "max_lr")) == 2


def test_a_recommendation_from_30_runs_has_12_to_rest_on() -> None:
    (firing,) = _of("o7pjrbw1", Rule.RECOMMENDATION_OUTSIDE_DATA, "o7pjrbw1")
    assert (firing.numbers["claimed"], firing.numbers["runs"]) == (30, 12)


def test_warmup_was_judged_by_runs_that_ended_inside_it() -> None:
    (firing,) = _of("o7pjrbw1", Rule.CENSORED_COMPARISON, "warmup_epochs")
    assert (firing.numbers["warmup"], firing.numbers["epoch"]) == (5, 4)


@pytest.mark.parametrize(("run", "peak", "kept"), [("7h3jifit", 24, 16), ("mtgtl1fa", 15, 10)])
def test_the_peaks_of_two_runs_were_not_kept(run: str, peak: int, kept: int) -> None:
    (firing,) = _of("single_runs", Rule.PEAK_NOT_CHECKPOINTED, run)
    assert (firing.numbers["peak_epoch"], firing.numbers["kept_epoch"]) == (peak, kept)


def test_the_gain_of_curriculum_is_a_maximum_against_a_maximum_and_on_test() -> None:
    (firing,) = _of("94fqx0gz", Rule.MAX_OF_UNEQUAL_N, "curriculum")
    assert firing.numbers["difference"] == 0.0365
    assert any("3.65%" in found.evidence for found in _of("94fqx0gz", Rule.TEST_USED_FOR_RANKING, "dde1f5vz"))


def test_442_and_272_classes_are_set_beside_each_other() -> None:
    found = [firing for firing in _firings("single_runs") if firing.rule is Rule.LABEL_SETS_DIFFER]
    assert any({"mtgtl1fa", "3yk3v97s"} == set(firing.subjects) for firing in found), "+64.8 % combined"
    assert any(firing.subjects == ("0ecx68oy",) and "1,448,346" in firing.evidence for firing in found)


def test_a_test_value_is_not_held_against_a_peak_that_the_record_may_not_hold() -> None:
    assert not _of("single_runs", Rule.TEST_GT_VAL, "32opsq3y"), "epochs 1 to 10 of 65 are on record"


@pytest.mark.parametrize("name", ["4yfw48ad", "94fqx0gz", "bapdavm5", "o7pjrbw1", "single_runs"])
def test_nothing_is_concluded_of_parameters_from_a_handful_of_runs(name: str) -> None:
    conclusions = conclude(recorded(name))
    assert not any(effect.called or effect.failures_called for effect in conclusions.effects)
    assert conclusions.importance.refused
    assert all(value.interval is None for effect in conclusions.effects for value in effect.values)


def test_a_jump_is_measured_by_the_noise_of_other_runs_and_says_of_whose() -> None:
    (firing,) = _of("single_runs", Rule.RESUME_JUMP, "0ecx68oy")
    assert re.search(r"epoch-to-epoch noise of (\d+ other runs? \(median\)|\S+ \(\w+\))\.", firing.evidence)


def test_a_leaked_run_is_no_gem_and_does_not_lead() -> None:
    findings = recorded("single_runs")
    report = report_of(findings)
    entry = next(entry for entry in report.findings.ranked if entry.run.run_id == "0ecx68oy")
    assert entry.excluded_by
    assert not entry.is_gem
    text = headline(report.findings)
    assert not text.startswith("vocal-glade-228")
    assert "vocal-glade-228 (0ecx68oy) with 52.46% is set aside" in text
    assert "/0ecx68oy" not in to_markdown(report)
