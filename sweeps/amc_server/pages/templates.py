"""The templates of the pages, and the page that shows one message."""

from __future__ import annotations

import shlex
from typing import Any

import jinja2

from amc_server.clock import iso_time
from amc_sweeps.browser import assets
from amc_sweeps.values import printable

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("amc_server.pages", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=lambda value: printable(value) if type(value) is str else value,  # of the texts that HTML is not made of
)
_templates.globals["asset"] = lambda name: f"/assets/{assets.version()}/{name}"
_templates.filters["time"] = lambda seconds: (iso_time(seconds) or "")[:19].replace("T", " ")
_templates.filters["bytes"] = lambda size: f"{size:,} bytes" if size < 10_000 else f"{size / 1e6:,.2f} MB"
_templates.filters["shell"] = shlex.quote
_templates.filters["number"] = lambda value: "" if value is None else f"{value:.4g}"


def render(template: str, **values: Any) -> str:
    """Return the HTML of a template."""
    return _templates.get_template(template).render(**values)


def login_page(target: str, *, is_wrong: bool = False) -> str:
    """Return the page that asks for the key and then leads to a page of this server."""
    return render("login.html", title="Log in", target=target, is_wrong=is_wrong)


def message_page(title: str, text: str) -> str:
    """Return a page that shows one message."""
    return render("message.html", title=title, text=text)
