"""amc-data show: draw one frame."""

from __future__ import annotations

from pathlib import Path

import click

from amc_core.commands.parameters import trial_option
from amc_core.commands.terminal import open_file
from amc_core.config import FIELDS
from amc_sweeps.number_formats import counted


@click.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.png")
@click.option(
    "--row", type=click.IntRange(0), default=None, help="Row of the file. Default: the first of that class and SNR."
)
@click.option("--modulation", default=None, metavar="CLASS", help="Class of the frame, such as QPSK.")
@click.option("--snr-db", type=int, default=None, help="SNR of the frame.")
@trial_option("image_size")
@trial_option("histogram_range")
def show_command(
    file: Path,
    out: Path,
    row: int | None,
    modulation: str | None,
    snr_db: int | None,
    image_size: int,
    histogram_range: float | str,
) -> None:
    """Draw one frame of FILE: its samples, and every representation as a model sees it.

    \b
    amc-data show radioml.hdf5 frame.png --modulation QPSK --snr-db 10

    Exit codes: 0 drawn, 1 the file cannot be used, 2 the arguments cannot be used.
    """
    import numpy as np
    import torch

    from amc_core.audit.ceilings import estimate_snr_db
    from amc_core.commands.frame_picture import frame_picture
    from amc_core.config import SIGNAL_REPRESENTATIONS, TrialConfig
    from amc_core.inputs.representations import Representation

    with open_file(file) as data:
        class_N = np.array(data.classes)[data.column_N]
        matches_N = np.ones(data.n_frames, dtype=bool)
        if modulation is not None:
            matches_N &= class_N == modulation
        if snr_db is not None:
            matches_N &= data.snr_db_N == snr_db
        if row is not None:
            matches_N &= np.arange(data.n_frames) == row
        if not matches_N.any():
            filters = {"row": row, "modulation": modulation, "snr-db": snr_db}
            flags = " ".join(f"--{name} {value}" for name, value in filters.items() if value is not None)
            raise click.ClickException(
                f"{file}: no frame with {flags}; the file has {counted(data.n_frames, 'row')}, SNR levels "
                f"{np.unique(data.snr_db_N).tolist()} dB, classes {', '.join(data.present)}"
            )
        row = int(np.flatnonzero(matches_N)[0])
        frame_BTC = data.frames(np.array([row]))
        label = f"{class_N[row]} at {data.snr_db_N[row]} dB"
    images = []
    for name in FIELDS["representation"].choices:
        if name in SIGNAL_REPRESENTATIONS:  # the trace shows these samples
            continue
        config = TrialConfig(representation=name, image_size=image_size, histogram_range=histogram_range)
        image_CHW = Representation(config)(torch.from_numpy(frame_BTC))[0].numpy()
        images += [(f"{name}, channel {number}", image_HW) for number, image_HW in enumerate(image_CHW)]
    subtitle = f"row {row} of {file.name}; SNR measured out of band: {estimate_snr_db(frame_BTC)[0]:.1f} dB"
    picture = frame_picture(frame_BTC[0], images, title=label, subtitle=subtitle)
    try:
        picture.save(out)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{out}: {error}") from error
    click.echo(f"{out}: {label}, row {row}, {len(images)} channels")
