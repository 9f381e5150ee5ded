"""Addresses that people write."""

from __future__ import annotations

import urllib.parse


def split_address(url: str) -> urllib.parse.SplitResult | None:
    """Return the parts of an http or https address; None for any other text, such as one with a port beyond 65535."""
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number of a port
    except ValueError:
        return None
    return parts if parts.scheme in {"http", "https"} and parts.hostname else None
