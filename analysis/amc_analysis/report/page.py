"""The report as one self-contained HTML page: it fetches nothing and runs only its own scripts."""

from __future__ import annotations

from markupsafe import Markup

from amc_analysis.report import wording
from amc_analysis.report.page_data import chart_data
from amc_analysis.report.sections import sections
from amc_analysis.report.templates import block_kind, templates
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.runs.parameters import text_of
from amc_analysis.runs.records import history_of
from amc_sweeps.browser import assets
from amc_sweeps.browser.run_rows import as_script
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.cause_groups import GROUPS, group_of
from amc_sweeps.values import look_up

MOST_PARAMETERS = 8  # columns of the ranking
SHORT = dict(zip(GROUPS, ("well", "cut", "failed", "open"), strict=True))  # class names of the style sheet


def to_html(analysed: AnalysedSweep) -> str:
    """Return the page."""
    scale = analysed.scale
    drawn = any(entry.peak is not None for entry in analysed.ranked)
    scripts = (assets.text(assets.LIBRARY), assets.script("report.js")) if drawn else ()
    # The scripts come from this package; the data is escaped, because it holds names that runs have logged.
    return (
        templates()
        .get_template("report.html")
        .render(
            analysed=analysed,
            wording=wording,
            metric=wording.metric_text(analysed),
            peak=analysed.peak_name,
            runs=counted(len(analysed.ranked), "run"),
            has_test=any(entry.test is not None for entry in analysed.ranked),
            sections=sections(analysed),
            kind=block_kind,
            short=SHORT,
            group_of=group_of,
            groups={
                name: count for name in GROUPS if (count := sum(group_of(e.cause) == name for e in analysed.ranked))
            },
            data=Markup(as_script(chart_data(analysed))) if drawn else None,
            scripts=[Markup(script) for script in scripts],
            style=Markup(assets.text(assets.STYLE)),
            policy=assets.inline_policy(scripts),
            levels=any(
                name.startswith("acc/snr/") for entry in analysed.ranked for name in history_of(entry.run).columns
            ),
            curves=any(entry.run.curve for entry in analysed.ranked),
            value=scale.text,
            noise=lambda sd: "-" if sd is None else scale.difference(sd).removesuffix(" points"),
            parameters=analysed.parameter_names[:MOST_PARAMETERS],
            setting=lambda entry, name: "-" if (value := look_up(entry.run.config, name)) is None else text_of(value),
        )
    )
