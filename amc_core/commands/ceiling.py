"""amc-data ceiling: measure the best accuracy that synthetic frames allow."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from amc_core.commands.parameters import classes_option, levels_option, rings_option
from amc_core.commands.terminal import progress_bar
from amc_sweeps.number_formats import counted


@click.command("ceiling")
@levels_option
@classes_option
@click.option(
    "--frames", type=click.IntRange(1), default=1000, show_default=True, help="Smallest number of frames per level."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the frames.")
@rings_option
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def ceiling_command(
    levels_db: tuple[int, ...],
    modulations: tuple[str, ...],
    frames: int,
    seed: int,
    rings: tuple[tuple[str, tuple[float, ...] | str], ...],
    as_json: bool,
) -> None:
    """Measure the best accuracy that synthetic frames allow.

    Modulation: likelihood test on 128 symbols with timing, phase, gain, SNR and pulse known. SNR: the level nearest to
    the SNR measured from the noise beyond 0.25 cycles per sample. Neither needs training. The number after +- is the
    standard error.

    \b
    amc-data ceiling
    amc-data ceiling --snr 0:30:2 --classes BPSK,QPSK,8PSK

    Exit codes: 0 done, 2 the arguments cannot be used.
    """
    from amc_core.audit.ceilings import ceilings, standard_error
    from amc_core.synthesis.frames import Recipe

    try:
        recipe = Recipe(radii=dict(rings))
        with progress_bar("measuring", "levels", len(levels_db)) as advance:
            rows = ceilings(
                modulations,
                levels_db,
                frames_per_level=frames,
                seed=seed,
                recipe=recipe,
                advance=lambda _level: advance(1),
            )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    means = {
        "modulation": sum(row.modulation for row in rows) / len(rows),
        "snr": sum(row.snr for row in rows) / len(rows),
    }
    if as_json:
        facts = {"modulations": list(modulations), "levels": [asdict(row) for row in rows], "mean": means}
        click.echo(json.dumps(facts, indent=2))
        return
    n_frames = counted(rows[0].n_modulation, "frame")
    click.echo(f"{counted(len(modulations), 'modulation')}, {n_frames} per level; share of frames classified right")
    click.echo("SNR dB      modulation              SNR")
    for row in rows:
        errors = standard_error(row.modulation, row.n_modulation), standard_error(row.snr, row.n_snr)
        click.echo(f"{row.snr_db:6}  {row.modulation:6.1%} +- {errors[0]:4.1%}  {row.snr:6.1%} +- {errors[1]:4.1%}")
    click.echo(f"  mean  {means['modulation']:6.1%}          {means['snr']:6.1%}")
