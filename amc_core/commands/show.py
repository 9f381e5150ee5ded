"""amc-data show: draw one frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from amc_core.command_line import OutputFile
from amc_core.commands.parameters import trial_option
from amc_core.commands.terminal import open_file
from amc_core.config import FIELDS
from amc_core.files import whole_file
from amc_sweeps.number_formats import counted, listed, quoted, shortened

if TYPE_CHECKING:
    from amc_core.data.radioml import RadioMLFile


@click.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=OutputFile(), metavar="OUT.png")
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
    if out.suffix.lower() != ".png":
        raise click.UsageError(f"{shortened(str(out))}: the picture is a PNG file, so its name must end in .png")
    import numpy as np
    import torch

    from amc_core.audit.ceilings import estimate_snr_db
    from amc_core.commands.frame_picture import frame_picture
    from amc_core.config import SIGNAL_REPRESENTATIONS, TrialConfig
    from amc_core.inputs.representations import Representation

    with open_file(file) as data:
        found = first_row(data, row, modulation, snr_db)
        if found is None:
            filters = {"row": row, "modulation": modulation, "snr-db": snr_db}
            flags = " ".join(
                f"--{name} {shortened(str(value))}" for name, value in filters.items() if value is not None
            )
            raise click.ClickException(
                f"{file}: no frame with {flags}; the file has {counted(data.n_frames, 'row')}, SNR levels "
                f"{quoted(np.unique(data.snr_db_N).tolist())} dB, classes {listed(data.present, 24)}"
            )
        frame_BTC = data.frames(np.array([found]))
        label = f"{data.classes[data.column_N[found]]} at {data.snr_db_N[found]} dB"
    images = []
    for name in FIELDS["representation"].choices:
        if name in SIGNAL_REPRESENTATIONS:  # the trace shows these samples
            continue
        config = TrialConfig(representation=name, image_size=image_size, histogram_range=histogram_range)
        image_CHW = Representation(config)(torch.from_numpy(frame_BTC))[0].numpy()
        images += [(f"{name}, channel {number}", image_HW) for number, image_HW in enumerate(image_CHW)]
    subtitle = f"row {found} of {file.name}; SNR measured out of band: {estimate_snr_db(frame_BTC)[0]:.1f} dB"
    picture = frame_picture(frame_BTC[0], images, title=label, subtitle=subtitle)
    with whole_file(out) as partial:
        picture.save(partial, format="PNG")
    click.echo(f"{out}: {label}, row {found}, {len(images)} channels")


def first_row(data: RadioMLFile, row: int | None, modulation: str | None, snr_db: int | None) -> int | None:
    """Return the first row with a class and an SNR, or the given row where it has them; None without one."""
    import numpy as np

    part = slice(None) if row is None else slice(row, row + 1)
    matches_R = np.ones(len(data.column_N[part]), dtype=bool)
    if modulation is not None:
        names = [name.lower() for name in data.classes]
        name = modulation.strip().lower()
        matches_R &= data.column_N[part] == (names.index(name) if name in names else -1)
    if snr_db is not None:
        matches_R &= data.snr_db_N[part] == snr_db
    return (row or 0) + int(matches_R.argmax()) if matches_R.any() else None
