"""The templates of the report's pages."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from amc_analysis.report.blocks import Block, Command, Table, Warned


def templates() -> Environment:
    """Return the templates of pages; what they show is escaped."""
    return Environment(
        loader=PackageLoader("amc_analysis.report", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def block_kind(block: Block) -> str:
    """Return the word by which a template knows a block."""
    return {Table: "table", Command: "command", Warned: "warned"}.get(type(block), "text")
