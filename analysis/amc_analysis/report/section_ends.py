"""How the runs ended, what the records cannot carry, and where to look next, in words."""

from __future__ import annotations

from amc_analysis.effects.parameters import text_of
from amc_analysis.report.sections import Block, Command, Report, Section, Table, Warned, table
from amc_analysis.runs.findings import Findings
from amc_analysis.runs.wording import GEMS_SHOWN, early_stop_text, failed, failure_text, group_of, label, scale_of
from amc_sweeps.runs.commands import repeat_commands
from amc_sweeps.runs.ranking import RankedRun

RUNS_NAMED = 6


def ends(report: Report) -> Section | None:
    """Say how the runs ended; None without runs."""
    findings = report.findings
    if not findings.ranked:
        return None
    rows = [[str(cause), str(count), group_of(cause)] for cause, count in findings.causes.items()]
    blocks: list[Block] = [table(("cause", "runs", "that is"), rows), failure_text(findings)]
    stops = early_stop_text(findings)
    blocks += [stops] if stops else []
    blocks += _places(findings)
    blocks += _failures(findings)
    return Section("ends", "How they ended", tuple(blocks))


def _failures(findings: Findings) -> list[Block]:
    """List what failed, runs with the same evidence together."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for entry in failed(findings):
        key = (str(entry.cause), str(entry.diagnosis.confidence), entry.diagnosis.because)
        alike.setdefault(key, []).append(entry.run.run_id)
    rows = [[cause, str(len(runs)), sure, because, _few(runs)] for (cause, sure, because), runs in alike.items()]
    return [table(("failed by", "runs", "sure?", "because", "which"), rows)] if rows else []


def _few(runs: list[str]) -> str:
    more = f" and {len(runs) - RUNS_NAMED} more" if len(runs) > RUNS_NAMED else ""
    return ", ".join(runs[:RUNS_NAMED]) + more


def _places(findings: Findings) -> list[Block]:
    """Count failures by host and by agent, where there are several to compare and something failed."""
    blocks: list[Block] = []
    for title, places in (("host", findings.hosts), ("agent", findings.agents)):
        if len(places) < 2 or not findings.failure_rate.failures:
            continue
        rows = []
        for place in places:
            low, high = place.rate.interval
            how = ", ".join(f"{count} {cause}" for cause, count in place.causes.items())
            rows.append([place.name, f"{place.rate.failures}/{place.rate.ended}", f"{low:.0%}-{high:.0%}", how or "-"])
        blocks.append(table((title, "failed", "95% interval", "how"), rows))
    return blocks


def integrity(report: Report) -> Section | None:
    """Say what the evidence cannot carry; None when nothing fired."""
    firings = report.conclusions.firings
    if not firings:
        return None
    blocks = tuple(
        Warned(firing.rule.value, firing.severity.value, f"{firing.evidence} {firing.consequence}")
        for firing in firings
    )
    return Section("integrity", "Integrity", blocks)


def following(report: Report) -> Section | None:
    """Say where to look next: gems to repeat, and the next sweep."""
    findings = report.findings
    blocks: list[Block] = []
    for entry in findings.gems[:GEMS_SHOWN]:
        blocks += [_gem(entry, findings), *map(Command, repeat_commands(findings.sweep, entry))]
    if report.following is not None:
        blocks += [f"Next sweep: {report.following.summary}.", _kept(report)]
    elif findings.parameters and findings.best is not None:
        blocks += [
            "Next sweep, with what these runs cannot exclude and the evidence on every line:",
            Command(f"amc-analyze {findings.sweep.sweep_id} --next next.yaml"),
        ]
    return Section("next", "Where to look next", tuple(blocks)) if blocks else None


def _gem(entry: RankedRun, findings: Findings) -> str:
    value = scale_of(findings).text(entry.peak)
    return f"Repeat {label(entry)}, {value} before it ended as {entry.cause}:"


def _kept(report: Report) -> Table:
    assert report.following is not None
    rows = []
    for decision in report.following.narrowing.decisions:
        section = decision.section
        values = section.get("values")
        if values is not None:
            kept = ", ".join(map(text_of, values))
        else:
            kept = f"{section['min']:.4g} to {section['max']:.4g}" if section else "all"
        dropped = "; ".join(f"{text_of(one.label)} (n = {one.n})" for one in decision.dropped)
        rows.append([decision.axis.name, kept, dropped or "-", f"{decision.share:.0%}"])
    return table(("parameter", "keeps", "drops", "of it"), rows)


def parts(report: Report) -> tuple[Section, ...]:
    """Return every part of a report behind its headline and ranking, in the order of reading."""
    from amc_analysis.report.section_inside import inside
    from amc_analysis.report.section_matters import matters

    found = (integrity(report), ends(report), matters(report), inside(report), following(report))
    return tuple(section for section in found if section is not None)
