"""The findings as one self-contained HTML page: nothing is fetched from anywhere."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from amc_analysis.curves import chart_of
from amc_analysis.findings import Findings, commands_of
from amc_analysis.report import (
    GEM_LEGEND,
    early_stop_text,
    epoch_text,
    epochs_text,
    failure_text,
    group_of,
    headline,
    metric_text,
    scale_of,
    warnings,
)
from amc_analysis.runs import look_up

MOST_PARAMETERS = 8  # columns of the page's table


def to_html(findings: Findings) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("amc_analysis", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scale = scale_of(findings)
    return environment.get_template("report.html").render(
        findings=findings,
        sweep=findings.sweep,
        headline=headline(findings),
        metric=metric_text(findings),
        warnings=warnings(findings),
        failures=failure_text(findings),
        early_stops=early_stop_text(findings),
        gem_legend=GEM_LEGEND,
        has_test=any(entry.test is not None for entry in findings.ranked),
        chart=chart_of(findings),
        value=scale.text,
        noise=lambda sd: "-" if sd is None else scale.difference(sd).removesuffix(" points"),
        epoch=epoch_text,
        epochs=epochs_text,
        group=group_of,
        groups=_groups(findings),
        command=lambda entry: "\n".join(commands_of(findings.sweep, entry)),
        parameters=findings.parameters[:MOST_PARAMETERS],
        setting=lambda entry, name: _setting(look_up(entry.run.config, name)),
    )


def _groups(findings: Findings) -> dict[str, int]:
    """Return how many runs have each colour, for the legend."""
    counts: dict[str, int] = {}
    for entry in findings.ranked:
        group = group_of(entry.cause)
        counts[group] = counts.get(group, 0) + 1
    return {
        group: counts[group] for group in ("ended well", "cut short", "failed", "running or unknown") if group in counts
    }


def _setting(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
