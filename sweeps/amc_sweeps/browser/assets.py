"""The files that a browser gets, one by one for a server, or as one text each for a report."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

LIBRARY = "echarts.min.js"  # README.md has its version and licence
STYLE = "style.css"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_TYPES = {"css": "text/css", "js": "text/javascript"}


@cache
def names() -> frozenset[str]:
    """Return the names of all files that a browser may get."""
    return frozenset(file.name for file in files("amc_sweeps.browser").iterdir() if file.name.endswith((".js", ".css")))


@cache
def text(name: str) -> str:
    """Return the content of a file."""
    return (files("amc_sweeps.browser") / name).read_text(encoding="utf-8")


def media_type(name: str) -> str:
    """Return the type that a browser wants to be told of a file."""
    return _TYPES[name.rpartition(".")[2]]


@cache
def version() -> str:
    """Return a word that changes with the files: a browser may keep what it got under it."""
    digest = hashlib.sha256()
    for name in sorted(names()):
        digest.update(text(name).encode())
    return digest.hexdigest()[:16]


@cache
def script(entry: str) -> str:
    """Return a module and all that it imports as one plain script, because a file on disk can import nothing.

    The modules share one scope then, so that a name may be declared at the top of one module only.
    """
    order: list[str] = []

    def add(name: str) -> None:
        for imported in _IMPORT.findall(text(name)):
            add(imported)
        if name not in order:
            order.append(name)

    add(entry)
    parts = (re.sub(r"^export ", "", _IMPORT.sub("", text(name)), flags=re.MULTILINE) for name in order)
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def inline_policy(scripts: Sequence[str]) -> str:
    """Return a content security policy that allows only these inline scripts and no request."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"
