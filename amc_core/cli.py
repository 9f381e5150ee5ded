"""amc-data: make the data files that trials read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from amc_core.modulations import CLASSES, DIGITAL17, LABEL_SETS

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make RadioML files."""


class SnrRange(click.ParamType[Any]):
    """FIRST:LAST:STEP in dB, both ends included, or a comma-separated list."""

    name = "dB"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return increasing levels."""
        text = str(value)
        if match := re.fullmatch(r"(-?\d+):(-?\d+)(?::(\d+))?", text):
            first, last, step = int(match[1]), int(match[2]), int(match[3] or 2)
            levels = range(first, last + 1, step) if step else ()
        elif re.fullmatch(r"-?\d+(,-?\d+)*", text):
            levels = sorted({int(level) for level in text.split(",")})  # type: ignore[assignment]
        else:
            levels = ()
        if not levels:
            self.fail(f"{text!r} names no level; write FIRST:LAST:STEP such as 0:30:2, or a list such as 0,10,20")
        if min(levels) < -20 or max(levels) > 30:
            self.fail(f"{text!r} leaves the layout's range of -20..30 dB")
        return tuple(levels)


class Classes(click.ParamType[Any]):
    """A label set or a comma-separated list of modulations."""

    name = "classes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return names in the order of the columns."""
        text = str(value)
        names = {CLASSES[column] for column in LABEL_SETS[text]} if text in LABEL_SETS else set(text.split(","))
        unknown = sorted(names - set(CLASSES))
        if unknown:
            known = ", ".join((*LABEL_SETS, *CLASSES))
            self.fail(f"unknown: {', '.join(unknown)}; known: {known}")
        not_built = [name for name in CLASSES if name in names and CLASSES.index(name) not in DIGITAL17]
        if not_built:
            self.fail(f"planned but not built yet: {', '.join(not_built)}; digital17 names those that are")
        return tuple(name for name in CLASSES if name in names)


class Fading(click.ParamType[Any]):
    """The channel besides the noise: only ``none`` so far."""

    name = "channel"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        if value in {"rayleigh", "rician"}:
            self.fail(f"{value} is planned but not built yet; built: none")
        if value != "none":
            self.fail(f"{value!r} is unknown; built: none")
        return "none"


@main.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.hdf5")
@click.option(
    "--frames-per-cell", type=click.IntRange(1), default=256, show_default=True, help="Frames of a class and SNR."
)
@click.option(
    "--snr", "levels_db", type=SnrRange(), default="0:30:2", show_default=True, help="Levels: 0:30:2 or 0,10."
)
@click.option(
    "--classes", "modulations", type=Classes(), default="digital17", show_default=True, help="Label set, or a list."
)
@click.option("--fading", type=Fading(), default="none", show_default=True, help="Channel besides the noise.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def synth(
    out: Path,
    frames_per_cell: int,
    levels_db: tuple[int, ...],
    modulations: tuple[str, ...],
    fading: str,  # checked by its type; there is nothing to choose yet
    seed: int,
    force: bool,
) -> None:
    """Write synthetic frames in the layout of RadioML 2018.01A."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from amc_core.synthetic_file import write_file

    if out.exists() and not force:
        raise click.ClickException(f"{out} exists; use --force to replace it, or another name")
    console = Console(stderr=True)
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"))
    n_frames = len(modulations) * len(levels_db) * frames_per_cell
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Progress(*bar, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task(f"writing {out.name}", total=n_frames)
            write_file(
                out,
                modulations=modulations,
                levels_db=levels_db,
                frames_per_cell=frames_per_cell,
                seed=seed,
                advance=lambda written: progress.advance(task, written),
            )
    except OSError as error:
        raise click.ClickException(f"{out}: {error.strerror or error}; nothing was written") from error
    click.echo(
        f"{out}: {n_frames:,} frames, {len(modulations)} classes x {len(levels_db)} SNR levels, "
        f"{out.stat().st_size / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
