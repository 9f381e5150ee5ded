"""Lines for the person at the terminal."""

from __future__ import annotations

import click


def say(message: str) -> None:
    """Print a line on standard error."""
    click.echo(message, err=True)
