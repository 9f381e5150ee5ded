"""The report as one self-contained HTML page: nothing is fetched, and no script but its own runs."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from amc_analysis.effects.parameters import text_of
from amc_analysis.report.page_data import as_script, chart_data
from amc_analysis.report.section_ends import parts
from amc_analysis.report.sections import Command, Report, Table, Warned
from amc_analysis.runs.records import history_of
from amc_analysis.runs.wording import (
    GEM_LEGEND,
    GROUPS,
    epoch_text,
    epochs_text,
    group_of,
    headline,
    metric_text,
    scale_of,
    warnings,
)
from amc_sweeps.charts.library import chart_library
from amc_sweeps.values import look_up

MOST_PARAMETERS = 8  # columns of the ranking
SHORT = dict(zip(GROUPS, ("well", "cut", "failed", "open"), strict=True))  # class names of the style sheet


def to_html(report: Report) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("amc_analysis.report", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    findings, scale = report.findings, scale_of(report.findings)
    drawn = any(entry.peak is not None for entry in findings.ranked)
    scripts = (chart_library(), _asset("page.js")) if drawn else ()
    # Scripts and the data come from this package, escaped where they hold what runs have logged.
    return environment.get_template("report.html").render(
        findings=findings,
        sweep=findings.sweep,
        headline=headline(findings),
        metric=metric_text(findings),
        warnings=warnings(findings),
        gem_legend=GEM_LEGEND,
        has_test=any(entry.test is not None for entry in findings.ranked),
        sections=parts(report),
        kind=_kind,
        short=SHORT,
        groups={name: count for name in GROUPS if (count := sum(group_of(e.cause) == name for e in findings.ranked))},
        data=Markup(as_script(chart_data(report))) if drawn else None,
        scripts=[Markup(script) for script in scripts],
        style=Markup(_asset("page.css")),
        policy=_policy(scripts),
        slices=bool(report.conclusions.effects),
        levels=any(name.startswith("acc/snr/") for entry in findings.ranked for name in history_of(entry.run).columns),
        confusions=bool(report.confusions),
        curves=any(entry.run.curve for entry in findings.ranked),
        value=scale.text,
        noise=lambda sd: "-" if sd is None else scale.difference(sd).removesuffix(" points"),
        epoch=epoch_text,
        epochs=epochs_text,
        group=group_of,
        parameters=findings.parameters[:MOST_PARAMETERS],
        setting=lambda entry, name: "-" if (found := look_up(entry.run.config, name)) is None else text_of(found),
    )


def _asset(name: str) -> str:
    return (files("amc_analysis.report") / name).read_text(encoding="utf-8")


def _policy(scripts: tuple[str, ...]) -> str:
    """Return a content security policy under which these scripts run and no other, and nothing is fetched."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"


def _kind(block: object) -> str:
    """Name what a part is made of, for the template."""
    return {Table: "table", Command: "command", Warned: "warned"}.get(type(block), "text")
