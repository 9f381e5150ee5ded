"""amc-data synth: write synthetic frames."""

from __future__ import annotations

from pathlib import Path

import click

from amc_core.commands.parameters import classes_option, levels_option, rings_option, span
from amc_core.commands.terminal import progress_bar
from amc_core.files import exists, is_folder
from amc_core.modulations import complete_label_sets
from amc_sweeps.number_formats import counted


@click.command("synth")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.hdf5")
@click.option(
    "--frames-per-cell", type=click.IntRange(1), default=256, show_default=True, help="Frames per class and SNR level."
)
@levels_option
@classes_option
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same file.")
@click.option(
    "--processes", type=click.IntRange(1), default=1, show_default=True, help="The file is the same for any number."
)
@click.option(
    "--fading",
    type=click.Choice(["none", "rayleigh", "rician"]),
    default="none",
    show_default=True,
    help="Channel of three taps before the noise.",
)
@click.option(
    "--gain-db",
    type=float,
    default=0.0,
    show_default=True,
    help="Receiver gain, uniform within +- this; 0: unit power.",
)
@click.option(
    "--roll-off", type=span(float), default="0.1:0.5", show_default=True, help="Of the root-raised-cosine pulse."
)
@click.option(
    "--half-span",
    type=span(int),
    default="2:8",
    show_default=True,
    help="Symbols on each side, after which the pulse is cut.",
)
@click.option(
    "--cfo-sd",
    type=float,
    default=1e-4,
    show_default=True,
    help="Standard deviation of the carrier offset, cycles per sample.",
)
@rings_option
@click.option("--force", is_flag=True, help="Replace an existing file.")
def synth_command(
    out: Path,
    frames_per_cell: int,
    levels_db: tuple[int, ...],
    modulations: tuple[str, ...],
    seed: int,
    processes: int,
    fading: str,
    gain_db: float,
    roll_off: tuple[float, float],
    half_span: tuple[int, int],
    cfo_sd: float,
    rings: tuple[tuple[str, tuple[float, ...] | str], ...],
    force: bool,
) -> None:
    """Write synthetic frames in the layout of RadioML 2018.01A.

    \b
    amc-data synth radioml.hdf5 --frames-per-cell 60
    amc-data synth psk.hdf5 --classes BPSK,QPSK,8PSK --snr 0:30:2 --fading rayleigh

    Exit codes: 0 written, 1 the file could not be written, 2 the arguments cannot be used.
    """
    from amc_core.synthesis.file import write_file
    from amc_core.synthesis.frames import Recipe

    try:
        recipe = Recipe(
            roll_off=roll_off,
            half_span=half_span,
            cfo_sd=cfo_sd,
            fading=fading,
            gain_db=gain_db,
            radii=dict(rings),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if exists(out) and not force:
        raise click.UsageError(f"{out} exists; use --force to replace it, or another name")
    place = out.parent if exists(out.parent) else out.parent.parent
    if not is_folder(place):
        raise click.UsageError(f"{place} is no folder, so nothing was written; only one folder is made")
    n_frames = len(modulations) * len(levels_db) * frames_per_cell
    try:
        if not is_folder(out.parent):
            out.parent.mkdir()
            click.echo(f"made the folder {out.parent}", err=True)
        with progress_bar(f"writing {out.name}", "frames", n_frames) as advance:
            write_file(
                out,
                modulations=modulations,
                levels_db=levels_db,
                frames_per_cell=frames_per_cell,
                seed=seed,
                recipe=recipe,
                processes=processes,
                advance=advance,
            )
    except OSError as error:
        raise click.ClickException(f"{out}: {error.strerror or error}; nothing was written") from error
    click.echo(
        f"{out}: {counted(n_frames, 'frame')}, {counted(len(modulations), 'class', 'classes')} x "
        f"{counted(len(levels_db), 'SNR level')}, {out.stat().st_size / 2**20:.0f} MiB"
    )
    if len(modulations) == 1:
        click.echo("no trial can train on 1 class: there is nothing to tell apart", err=True)
    elif not complete_label_sets(modulations):
        click.echo(f"to train on these classes: amc-train --data={out} --label_set={','.join(modulations)}", err=True)
