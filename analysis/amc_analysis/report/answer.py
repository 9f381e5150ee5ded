"""The answer of a report in sentences, each with the section that says more."""

from __future__ import annotations

from collections import Counter

from amc_analysis.report.effects_section import overview_text
from amc_analysis.report.wording import failure_rate_text
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Finding, Severity
from amc_sweeps.number_formats import counted, listed

RULES_NAMED = 3


def answer(analysed: AnalysedSweep) -> list[tuple[str, str]]:
    """Return (sentence, key of a section) in the order of reading; the headline comes before them."""
    sentences = []
    if analysed.findings:
        sentences.append((_findings_text(analysed.findings), "integrity"))
    if analysed.effects:
        sentences.append((overview_text(analysed.effects), "matters"))
    if analysed.ranked:
        sentences.append((failure_rate_text(analysed), "ends"))
    return sentences


def _findings_text(findings: tuple[Finding, ...]) -> str:
    """Say how many findings there are, and name the rules of the first ones; errors come first."""
    rules = Counter(finding.rule.value for finding in findings)
    names = [rule if count == 1 else f"{rule} ({count})" for rule, count in rules.items()]
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    severe = f", {counted(errors, 'error')}" if errors else ""
    return f"{counted(len(findings), 'integrity finding')}{severe}: {listed(names, RULES_NAMED)}."
