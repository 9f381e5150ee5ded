"""The section "Finalists": configurations with several seeds by their means, and whether the winner is clear."""

from __future__ import annotations

import shlex

from amc_analysis.effects.finalists import MOST_SEEDS
from amc_analysis.report.blocks import Block, Command, Section, Table
from amc_analysis.report.wording import p_text
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finalists import Finalist, Lead
from amc_analysis.runs.parameters import text_of
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.metric_scale import MetricScale

FINALISTS_SHOWN = 10
_CAPTION = (
    "Configurations with several seeds, by the mean over their seeds. A run that was chosen to be repeated is left out "
    "of the mean: its peak flatters, because it was chosen for its peak."
)


def finalists_section(analysed: AnalysedSweep) -> Section | None:
    """Return the section on the configurations that ran with several seeds; None without any."""
    finalists, scale = analysed.finalists, analysed.scale
    if not finalists.ranked:
        return None
    rows = [_row(place, finalist, scale) for place, finalist in enumerate(finalists.ranked, start=1)]
    titles = ("#", "run", "seeds", "mean", "95% interval", analysed.peak_name, "settings")
    blocks: list[Block] = [Table(titles, rows[:FINALISTS_SHOWN], _CAPTION)]
    if len(rows) > FINALISTS_SHOWN:
        blocks.append(f"{counted(len(rows) - FINALISTS_SHOWN, 'more configuration')}: --json has all of them.")
    if finalists.lead is not None:
        blocks += _verdict(finalists.lead, analysed)
    elif len(rows) > 1:
        blocks.append("The noise between seeds is unknown: give at least two configurations two more seeds.")
    return Section("finalists", "Finalists", tuple(blocks))


def lead_text(lead: Lead, scale: MetricScale) -> str:
    """Say whether the first finalist can be told from the second one."""
    low, high = map(scale.signed, lead.interval)
    figures = f"{scale.difference(lead.difference)} (95% interval {low} to {high}, t-test p {p_text(lead.p)})"
    if lead.is_clear:
        return f"{lead.first} is better than {lead.second}, and so than every finalist, by {figures}."
    return f"{lead.first} leads {lead.second} by {figures}: the two cannot be told apart."


def _row(place: int, finalist: Finalist, scale: MetricScale) -> list[str]:
    interval = "-" if finalist.interval is None else " to ".join(map(scale.text, finalist.interval))
    settings = " ".join(f"{name}={text_of(value)}" for name, value in finalist.settings.items())
    return [
        *(str(place), finalist.run, str(finalist.n), scale.text(finalist.mean), interval, scale.text(finalist.peak)),
        settings or "-",
    ]


def _verdict(lead: Lead, analysed: AnalysedSweep) -> list[Block]:
    blocks: list[Block] = [lead_text(lead, analysed.scale)]
    if lead.is_clear:
        return blocks
    if lead.more_seeds is None:
        return [*blocks, f"More than {MOST_SEEDS} more seeds of each would be needed: take them as equal."]
    blocks.append(
        f"{counted(lead.more_seeds, 'more seed')} of each would tell in 4 of 5 cases, if the true difference is as "
        "large as this one."
    )
    if analysed.record.kind == "sweep":
        sizes = [finalist.n for finalist in analysed.finalists.ranked[:2]]
        path = shlex.quote("/".join((analysed.record.entity, analysed.record.project, analysed.record.sweep_id)))
        runs = f"--run {lead.first} --run {lead.second}"
        blocks.append(Command(f"amc-sweep promote {path} {runs} --seeds {min(sizes) + lead.more_seeds}"))
    return blocks
