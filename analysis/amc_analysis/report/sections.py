"""The sections of a report below its headline and ranking, from the finalists to the next steps."""

from __future__ import annotations

from amc_analysis.report.blocks import Block, Command, Section, Table, Warned
from amc_analysis.report.dynamics_section import dynamics_section
from amc_analysis.report.effects_section import effects_section
from amc_analysis.report.finalists_section import finalists_section
from amc_analysis.report.published_section import published_section
from amc_analysis.report.wording import GEMS_SHOWN, failure_text
from amc_analysis.results.analysed_sweep import AnalysedSweep, run_label
from amc_analysis.results.next_sweep import NextSweep
from amc_analysis.runs.parameters import text_of, texts_of
from amc_sweeps.number_formats import listed, percent
from amc_sweeps.runs.cause_groups import group_of
from amc_sweeps.runs.causes import FAILURES, Cause
from amc_sweeps.runs.commands import is_trial_run, repeat_commands
from amc_sweeps.runs.crashed_runs import MEANINGS, Treatment, policy_of_record
from amc_sweeps.runs.metric_scale import interval_text

RUNS_NAMED = 6
LEAST_TO_PROMOTE = 5  # runs with a peak
FINDINGS_SHOWN = 2  # kinds, above the charts of a page; the charts begin in the first window then
MANY_KINDS = 4  # of findings, from which on only the first ones are shown
MANY_ALIKE = 3  # findings of one kind, from which on they are one block


def sections(analysed: AnalysedSweep) -> tuple[Section, ...]:
    """Return the sections that are not empty, in the order of reading."""
    written = (
        finalists_section(analysed),
        _integrity(analysed),
        _ends(analysed),
        effects_section(analysed),
        dynamics_section(analysed),
        published_section(analysed),
        _next_steps(analysed),
    )
    return tuple(section for section in written if section is not None)


def _integrity(analysed: AnalysedSweep) -> Section | None:
    alike: dict[tuple[str, str], list[str]] = {}
    for finding in analysed.findings:
        kind = (finding.rule.value, finding.severity.value)
        alike.setdefault(kind, []).append(f"{finding.evidence} {finding.consequence}")
    blocks: list[Warned] = []
    for kind, texts in alike.items():
        if len(texts) < MANY_ALIKE:
            blocks += [Warned(*kind, text) for text in texts]
        else:
            blocks.append(Warned(*kind, texts[0], texts[1:]))
    if not blocks:
        return None
    shown = FINDINGS_SHOWN if len(blocks) >= MANY_KINDS else None
    return Section("integrity", "Integrity", tuple(blocks), shown)


def _ends(analysed: AnalysedSweep) -> Section | None:
    if not analysed.ranked:
        return None
    rows = [[str(cause), str(count), group_of(cause)] for cause, count in analysed.causes.items()]
    blocks: list[Block] = [Table(("cause", "runs", "meaning"), rows), failure_text(analysed)]
    blocks += [*_groups(analysed), *_failures(analysed), *_treatments(analysed)]
    return Section("ends", "How runs ended", tuple(blocks))


def _groups(analysed: AnalysedSweep) -> list[Block]:
    blocks: list[Block] = []
    for title, groups in (("host", analysed.hosts), ("agent", analysed.agents)):
        if len(groups) < 2 or not analysed.failure_rate.failures:
            continue
        rows = []
        for group in groups:
            causes = ", ".join(f"{cause} ({count})" for cause, count in group.causes.items())
            failed = f"{group.rate.failures}/{group.rate.ended}"
            rows.append([group.name, failed, interval_text(group.rate.interval), causes or "-"])
        blocks.append(Table((title, "failed", "95% interval", "causes"), rows))
    return blocks


def _failures(analysed: AnalysedSweep) -> list[Block]:
    alike: dict[tuple[str, str, str], list[str]] = {}
    for entry in analysed.ranked:
        if entry.cause in FAILURES:
            key = (str(entry.cause), str(entry.diagnosis.confidence), entry.diagnosis.because)
            alike.setdefault(key, []).append(entry.run.run_id)
    rows = [
        [cause, str(len(runs)), confidence, because, listed(runs, RUNS_NAMED)]
        for (cause, confidence, because), runs in alike.items()
    ]
    return [Table(("failure", "runs", "confidence", "evidence", "run ids"), rows)] if rows else []


def _treatments(analysed: AnalysedSweep) -> list[Block]:
    """Return what the search was told of the runs; nothing if all it was told are peaks."""
    if set(analysed.treatments) <= {Treatment.PEAK}:
        return []
    policy = policy_of_record(analysed.config, analysed.record.crashed_runs)
    rows = []
    for treatment, count in analysed.treatments.items():
        runs = [entry.run.run_id for entry in analysed.ranked if entry.treatment is treatment]
        rows.append([str(treatment), str(count), MEANINGS[treatment], listed(runs, RUNS_NAMED)])
    return [
        f"What the search was told of these runs (crashed runs: {policy}):",
        Table(("treatment", "runs", "the search was told", "run ids"), rows),
    ]


def _next_steps(analysed: AnalysedSweep) -> Section | None:
    blocks: list[Block] = []
    for entry in analysed.gems[:GEMS_SHOWN]:
        end = "before it was lost" if entry.cause is Cause.LOST else f"(cause of its end: {entry.cause})"
        blocks.append(f"Repeat {run_label(entry)}: it reached {analysed.scale.text(entry.peak)} {end}.")
        blocks += map(Command, repeat_commands(analysed.record, entry))
    if _may_be_promoted(analysed):
        blocks += [
            "One peak is partly luck. Run the best configurations again with other seeds, and compare their means.",
            Command(f"amc-sweep promote {analysed.record.sweep_id} --top 5 --seeds 3"),
        ]
    if analysed.next_sweep is not None:
        blocks += [f"Next sweep: {analysed.next_sweep.summary}.", _decisions(analysed.next_sweep)]
    elif analysed.parameter_names and analysed.best is not None:
        blocks += [
            "Write the next sweep. It keeps the values that these runs do not exclude, with the evidence.",
            Command(f"amc-analyze {analysed.record.sweep_id} --next next.yaml"),
        ]
    return Section("next", "Where to look next", tuple(blocks)) if blocks else None


def _may_be_promoted(analysed: AnalysedSweep) -> bool:
    """Return whether amc-sweep promote can help: several trials have peaks, and no configuration has several seeds."""
    trials = [entry for entry in analysed.ranked if entry.peak is not None and is_trial_run(analysed.record, entry.run)]
    return analysed.record.kind == "sweep" and len(trials) >= LEAST_TO_PROMOTE and not analysed.finalists.ranked


def _decisions(next_sweep: NextSweep) -> Table:
    rows = []
    for decision in next_sweep.plan.narrowing.decisions:
        section = decision.section
        if "values" in section:
            values = ", ".join(texts_of(section["values"]))
        else:
            values = f"{section['min']:.4g} to {section['max']:.4g}" if section else "all"
        dropped = "; ".join(f"{text_of(value.label)} (n = {value.n})" for value in decision.dropped)
        rows.append([decision.name, values, dropped or "-", percent(decision.share)])
    return Table(("parameter", "kept", "dropped", "share kept"), rows)
