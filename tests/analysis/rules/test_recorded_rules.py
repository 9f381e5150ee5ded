"""Errors of the 2025 research log, and the rules that find them in sweeps/recorded."""

from __future__ import annotations

import re
from functools import cache

import pytest
from recorded_sweeps import FOLDER, recorded

from amc_analysis.analyse import add_conclusions
from amc_analysis.report.markdown import to_markdown
from amc_analysis.report.wording import headline
from amc_analysis.results.finding import Finding, Rule

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="sweeps/recorded is not in this checkout")


@cache
def _findings(name: str) -> tuple[Finding, ...]:
    return add_conclusions(recorded(name)).findings


def _of(name: str, rule: Rule, subject: str) -> list[Finding]:
    return [finding for finding in _findings(name) if finding.rule is rule and subject in finding.subjects]


def test_the_test_record_of_dde1f5vz_lies_27_standard_errors_above_its_validation() -> None:
    (finding,) = _of("94fqx0gz", Rule.TEST_GT_VAL, "dde1f5vz")
    assert finding.numbers["z"] == pytest.approx(27.15, abs=0.05)


def test_vocal_glade_228_was_validated_on_frames_that_its_weights_were_trained_on() -> None:
    (finding,) = _of("single_runs", Rule.HELDOUT_OVERLAP_BOUND, "0ecx68oy")
    assert finding.numbers["overlap"] == 111_411
    assert finding.numbers["held_out"] == 334_234
    assert finding.numbers["share"] == pytest.approx(1 / 3, abs=1e-4)
    assert _of("single_runs", Rule.SPLIT_CHANGED_ON_RESUME, "0ecx68oy")


def test_vocal_glade_228_starts_with_a_jump() -> None:
    (finding,) = _of("single_runs", Rule.RESUME_JUMP, "0ecx68oy")
    assert finding.numbers["parent"] == 0.4749
    assert finding.numbers["jump"] == pytest.approx(0.0497)


def test_standard_most_stable_is_one_run() -> None:
    findings = _of("bapdavm5", Rule.GROUP_N_TOO_SMALL, "snr_layer")
    (finding,) = [finding for finding in findings if "MOST STABLE" in finding.evidence]
    assert finding.numbers["n"] == 1
    assert finding.numbers["high"] == pytest.approx(0.79, abs=0.005)


def test_the_recommended_7e_4_was_never_run_in_o7pjrbw1() -> None:
    (never,) = _of("o7pjrbw1", Rule.NEVER_SAMPLED_VALUE, "max_lr=0.0007")
    assert never.numbers["n"] == 12
    assert _of("o7pjrbw1", Rule.ZERO_VARIANCE_PARAM, "max_lr")
    assert len(_of("o7pjrbw1", Rule.RECOMMENDATION_OUTSIDE_DATA, "max_lr")) == 2


def test_a_recommendation_from_30_runs_rests_on_12() -> None:
    (finding,) = _of("o7pjrbw1", Rule.RECOMMENDATION_OUTSIDE_DATA, "o7pjrbw1")
    assert (finding.numbers["claimed"], finding.numbers["runs"]) == (30, 12)


def test_warmup_was_judged_by_runs_that_ended_during_it() -> None:
    (finding,) = _of("o7pjrbw1", Rule.CENSORED_COMPARISON, "warmup_epochs")
    assert (finding.numbers["warmup"], finding.numbers["epoch"]) == (5, 4)


@pytest.mark.parametrize(("run", "peak", "checkpoint"), [("7h3jifit", 24, 16), ("mtgtl1fa", 15, 10)])
def test_the_peaks_of_two_runs_were_not_saved(run: str, peak: int, checkpoint: int) -> None:
    (finding,) = _of("single_runs", Rule.PEAK_NOT_CHECKPOINTED, run)
    assert (finding.numbers["peak_epoch"], finding.numbers["kept_epoch"]) == (peak, checkpoint)


def test_the_gain_of_curriculum_compares_maxima_on_test() -> None:
    (finding,) = _of("94fqx0gz", Rule.MAX_OF_UNEQUAL_N, "curriculum")
    assert finding.numbers["difference"] == 0.0365
    assert any("3.65%" in claim.evidence for claim in _of("94fqx0gz", Rule.TEST_USED_FOR_RANKING, "dde1f5vz"))


def test_442_and_272_classes_are_compared() -> None:
    findings = [finding for finding in _findings("single_runs") if finding.rule is Rule.LABEL_SETS_DIFFER]
    assert any({"mtgtl1fa", "3yk3v97s"} == set(finding.subjects) for finding in findings), "+64.8% combined"
    assert any(finding.subjects == ("0ecx68oy",) and "1,448,346" in finding.evidence for finding in findings)


def test_a_test_value_is_not_compared_where_epochs_are_missing() -> None:
    assert not _of("single_runs", Rule.TEST_GT_VAL, "32opsq3y"), "epochs 1 to 10 of 65 are on record"


@pytest.mark.parametrize("name", ["4yfw48ad", "94fqx0gz", "bapdavm5", "o7pjrbw1", "single_runs"])
def test_a_handful_of_runs_gives_no_effects(name: str) -> None:
    analysed = add_conclusions(recorded(name))
    assert not any(effect.is_clear or effect.is_clear_for_failures for effect in analysed.effects)
    assert analysed.importance is not None
    assert analysed.importance.refused
    assert all(value.interval is None for effect in analysed.effects for value in effect.values)


def test_a_jump_names_the_runs_whose_noise_it_is_compared_with() -> None:
    (finding,) = _of("single_runs", Rule.RESUME_JUMP, "0ecx68oy")
    assert re.search(r"usual change between epochs of (\d+ other runs? \(median\)|\S+ \(\w+\))\.", finding.evidence)


def test_a_run_with_leaked_frames_is_excluded() -> None:
    analysed = add_conclusions(recorded("single_runs"))
    entry = next(entry for entry in analysed.ranked if entry.run.run_id == "0ecx68oy")
    assert entry.excluded_by
    assert not entry.is_gem
    text = headline(analysed)
    assert not text.startswith("vocal-glade-228")
    assert "vocal-glade-228 (0ecx68oy) with 52.46% is excluded" in text
    assert "/0ecx68oy" not in to_markdown(analysed)
