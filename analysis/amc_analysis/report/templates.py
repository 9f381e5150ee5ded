"""The templates of the report's pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from amc_analysis.report.blocks import Block, Command, Table, Warned
from amc_sweeps.browser import assets
from amc_sweeps.browser.run_rows import as_script


def render(
    template: str, script: str, data: Mapping[str, Any] | None, *, has_charts: bool = True, **values: Any
) -> str:
    """Return a page that fetches nothing and runs only its own scripts.

    Args:
        template: the name of its template, which extends ``base.html``.
        script: the name of the module of ``amc_sweeps.browser`` that shows the data.
        data: what the script shows; None: the page has no script.
        has_charts: whether the script draws charts, for which it needs the chart library.
        values: what else the template shows; it is escaped.
    """
    scripts = [] if data is None else [assets.script(script)]
    if scripts and has_charts:
        scripts.insert(0, assets.text(assets.LIBRARY))
    # The scripts come from this package; the data is escaped, because it holds names that runs have logged.
    return (
        _templates()
        .get_template(template)
        .render(
            data=None if data is None else Markup(as_script(dict(data))),
            scripts=[Markup(text) for text in scripts],
            style=Markup(assets.text(assets.STYLE)),
            policy=assets.inline_policy(scripts),
            kind=_block_kind,
            **values,
        )
    )


def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("amc_analysis.report", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _block_kind(block: Block) -> str:
    """Return the word by which a template knows a block."""
    return {Table: "table", Command: "command", Warned: "warned"}.get(type(block), "text")
