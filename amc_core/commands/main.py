"""amc-data: make, check, look at and divide the data files that trials read."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from amc_core.config import FIELDS, check_value, parse_flag
from amc_core.modulations import CLASSES, LABEL_SETS

__all__ = ["main"]

_RINGS_HELP = "APSK radii, such as 16APSK=2.6 (default: 16 and 32 of DVB-S2, rate 3/4, 64 and 128 of liquid-dsp)."
_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make, check, look at and divide RadioML files."""


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
        return tuple(name for name in CLASSES if name in names)


class Span(click.ParamType[Any]):
    """LOW:HIGH, or one number for both."""

    name = "low:high"

    def __init__(self, number: Callable[[str], float]) -> None:
        self._number = number

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Return both ends."""
        low, _, high = str(value).partition(":")
        try:
            return self._number(low), self._number(high or low)
        except ValueError:
            self.fail(f"{value!r} is no range; write LOW:HIGH")


class Rings(click.ParamType[Any]):
    """MODULATION=RATIO,...: the radii of the outer rings over the innermost."""

    name = "rings"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[float, ...]]:
        """Return the modulation and its ratios, unchecked."""
        modulation, _, ratios = str(value).partition("=")
        try:
            return modulation, tuple(float(ratio) for ratio in ratios.split(","))
        except ValueError:
            self.fail(f"{value!r} names no rings; write such as 16APSK=2.6 or 32APSK=2.54,4.33")


class Field(click.ParamType[Any]):
    """A value of one of a trial's parameters, with the checks that a trial makes."""

    def __init__(self, field: str) -> None:
        self.name = field

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the checked value."""
        given = parse_flag(self.name, value) if isinstance(value, str) else value
        checked, problem = check_value(self.name, given)
        if problem is not None:
            self.fail(problem)
        return checked


def trial_option(field: str) -> Callable[[_Command], _Command]:
    """Offer one of a trial's parameters under the trial's name, with hyphens."""
    spec = FIELDS[field]
    shown = ",".join(map(str, spec.default)) if spec.kind == "fractions" else str(spec.default)
    return click.option(
        f"--{field.replace('_', '-')}", type=Field(field), default=shown, show_default=True, help=f"{spec.help}."
    )


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
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same file.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Their number changes no byte.")
@click.option(
    "--fading",
    type=click.Choice(["none", "rayleigh", "rician"]),
    default="none",
    show_default=True,
    help="Channel besides the noise: three taps.",
)
@click.option(
    "--gain-db", type=float, default=0.0, show_default=True, help="Receiver gain, uniform in +- this; 0: unit power."
)
@click.option("--roll-off", type=Span(float), default="0.1:0.5", show_default=True, help="Of the RRC pulse.")
@click.option(
    "--half-span", type=Span(int), default="2:8", show_default=True, help="Symbols to either side where it is cut."
)
@click.option("--cfo-sd", type=float, default=1e-4, show_default=True, help="Carrier offset, cycles a sample.")
@click.option("--rings", type=Rings(), multiple=True, help=_RINGS_HELP)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def synth(
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
    rings: tuple[tuple[str, tuple[float, ...]], ...],
    force: bool,
) -> None:
    """Write synthetic frames in the layout of RadioML 2018.01A."""
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
    if out.exists() and not force:
        raise click.ClickException(f"{out} exists; use --force to replace it, or another name")
    n_frames = len(modulations) * len(levels_db) * frames_per_cell
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _bar(f"writing {out.name}", "frames", n_frames) as advance:
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
        f"{out}: {n_frames:,} frames, {len(modulations)} classes x {len(levels_db)} SNR levels, "
        f"{out.stat().st_size / 2**20:.0f} MiB"
    )


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Verdicts and figures as JSON.")
def audit(file: Path, as_json: bool) -> None:
    """Check whether FILE is what it claims to be: a verdict a line, exit code 1 when one fails.

    Reads every frame once. The order of the classes and the SNR labels are judged by the signals themselves.
    """
    from amc_core.audit.checks import audit_file
    from amc_core.verdicts import Verdict

    read = 0
    advance: Callable[[int], None] | None = None
    with ExitStack() as shown:

        def heard(done: int, whole: int) -> None:
            nonlocal advance, read
            if advance is None:  # the file could be opened
                advance = shown.enter_context(_bar(f"reading {file.name}", "frames", whole))
            advance(done - read)
            read = done

        checks = audit_file(file, advance=heard)
    passed = all(check.verdict is not Verdict.FAIL for check in checks)
    if as_json:
        facts = {"file": str(file), "passed": passed, "checks": [check.to_mapping() for check in checks]}
        click.echo(json.dumps(facts, indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(f"{check.verdict:4}  {check.name:{width}}  {check.said}")
    if not passed:
        sys.exit(1)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.png")
@click.option("--row", type=click.IntRange(0), default=None, help="Row of the file; default: by class and SNR.")
@click.option("--modulation", type=click.Choice(CLASSES), default=None, help="Class of the frame.")
@click.option("--snr-db", type=int, default=None, help="SNR of the frame.")
@trial_option("image_size")
@trial_option("histogram_range")
def show(
    file: Path,
    out: Path,
    row: int | None,
    modulation: str | None,
    snr_db: int | None,
    image_size: int,
    histogram_range: float | str,
) -> None:
    """Draw one frame of FILE: its samples, and every representation as a model sees it."""
    import numpy as np
    import torch

    from amc_core.audit.ceilings import estimate_snr_db
    from amc_core.commands.frame_picture import frame_picture
    from amc_core.config import TrialConfig
    from amc_core.inputs.representations import Representation

    with _refusals(), _open(file) as data:
        fits = np.ones(data.n_frames, dtype=bool)
        if modulation is not None:
            fits &= data.column_N == CLASSES.index(modulation)
        if snr_db is not None:
            fits &= data.snr_db_N == snr_db
        if row is not None:
            fits &= np.arange(data.n_frames) == row
        if not fits.any():
            raise click.ClickException(f"{file}: none of its {data.n_frames:,} rows is such a frame")
        row = int(np.flatnonzero(fits)[0])
        frame_BTC = data.frames(np.array([row]))
        label = f"{CLASSES[data.column_N[row]]} at {data.snr_db_N[row]} dB"
    images = []
    for name in FIELDS["representation"].choices:
        if name == "iq":  # that is what the trace shows
            continue
        config = TrialConfig(representation=name, image_size=image_size, histogram_range=histogram_range)
        seen_CHW = Representation(config)(torch.from_numpy(frame_BTC))[0].numpy()
        images += [(f"{name}, channel {number}", image_HW) for number, image_HW in enumerate(seen_CHW)]
    about = f"row {row} of {file.name}; the noise floor says {estimate_snr_db(frame_BTC)[0]:.1f} dB"
    picture = frame_picture(frame_BTC[0], images, title=label, subtitle=about)
    try:
        picture.save(out)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{out}: {error}") from error
    click.echo(f"{out}: {label}, row {row}, {len(images)} channels")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("manifest_path", type=click.Path(dir_okay=False, path_type=Path), metavar="MANIFEST.json")
@trial_option("label_set")
@trial_option("snr_min_db")
@trial_option("snr_max_db")
@trial_option("split")
@trial_option("split_seed")
@click.option("--rows", "with_rows", is_flag=True, help="Also write the row numbers of every part.")
@click.option(
    "--check",
    is_flag=True,
    help="Compare FILE with an existing manifest; exit code 1 when they differ, 2 for no manifest.",
)
def split(
    file: Path,
    manifest_path: Path,
    label_set: str,
    snr_min_db: int,
    snr_max_db: int,
    split: tuple[float, float, float],
    split_seed: int,
    with_rows: bool,
    check: bool,
) -> None:
    """Write the manifest of FILE's division into train, validation and test.

    It is the division that a trial with the same parameters uses, on every machine.
    """
    from amc_core.data.radioml import select
    from amc_core.data.splits import manifest, manifest_differences

    given: dict[str, Any] = {}
    if check:
        given = _read_manifest(manifest_path)
        label_set, split, split_seed = given["label_set"], tuple(given["split"]), int(given["split_seed"])
        snr_min_db, snr_max_db = min(given["levels_db"]), max(given["levels_db"])
    with _refusals(), _open(file) as data:
        selection = select(
            data,
            label_set=label_set,
            columns=LABEL_SETS[label_set],
            snr_min_db=snr_min_db,
            snr_max_db=snr_max_db,
        )
        facts = manifest(data.fingerprint, selection, split, split_seed, with_rows=with_rows)
    if check:
        differences = manifest_differences(given, facts)
        if differences:
            raise click.ClickException(f"{file} does not divide as {manifest_path} says:\n" + "\n".join(differences))
    else:
        try:
            manifest_path.write_text(json.dumps(facts, indent=2) + "\n")
        except OSError as error:
            raise click.ClickException(f"{manifest_path}: {error.strerror or error}") from error
    sizes = " / ".join(f"{part['frames']:,}" for part in facts["parts"].values())
    click.echo(f"split {facts['split_fingerprint']}: {sizes} frames (train / val / test)")


@main.command()
@click.option(
    "--snr", "levels_db", type=SnrRange(), default="0:30:2", show_default=True, help="Levels: 0:30:2 or 0,10."
)
@click.option(
    "--classes", "modulations", type=Classes(), default="digital17", show_default=True, help="Label set, or a list."
)
@click.option("--frames", type=click.IntRange(1), default=1000, show_default=True, help="Frames a level, at least.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--rings", type=Rings(), multiple=True, help=_RINGS_HELP)
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON.")
def ceiling(
    levels_db: tuple[int, ...],
    modulations: tuple[str, ...],
    frames: int,
    seed: int,
    rings: tuple[tuple[str, tuple[float, ...]], ...],
    as_json: bool,
) -> None:
    """Measure what synthetic frames allow at best.

    Modulation: likelihood test on 128 symbols with timing, phase, gain, SNR and pulse known. SNR: nearest level by the
    noise floor of the spectrum beyond 0.25 cycles a sample. Nothing is learnt in either. A figure after +- is the
    standard error of so many frames.
    """
    from amc_core.audit.ceilings import ceilings, standard_error
    from amc_core.synthesis.frames import Recipe

    try:
        recipe = Recipe(radii=dict(rings))
        with _bar("measuring", "levels", len(levels_db)) as advance:
            lines = ceilings(
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
        "modulation": sum(line.modulation for line in lines) / len(lines),
        "snr": sum(line.snr for line in lines) / len(lines),
    }
    if as_json:
        facts = {"modulations": list(modulations), "levels": [line.to_mapping() for line in lines], "mean": means}
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"{len(modulations)} modulations, {lines[0].n_modulation:,} frames a level, % right")
    click.echo("SNR dB      modulation              SNR")
    for line in lines:
        modulation_error = standard_error(line.modulation, line.n_modulation)
        snr_error = standard_error(line.snr, line.n_snr)
        click.echo(
            f"{line.snr_db:6}  {line.modulation:6.1%} +- {modulation_error:4.1%}  {line.snr:6.1%} +- {snr_error:4.1%}"
        )
    click.echo(f"  mean  {means['modulation']:6.1%}          {means['snr']:6.1%}")


@contextmanager
def _bar(what: str, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr; lend ``advance(by)``."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)

        def advance(by: int) -> None:
            progress.update(task, advance=by)

        yield advance


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the library says of a file into the command's answer."""
    from amc_core.data.radioml import DataError

    try:
        yield
    except DataError as error:
        raise click.ClickException(str(error)) from error


def _open(file: Path) -> Any:
    from amc_core.data.radioml import RadioMLFile

    return RadioMLFile(file)


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read what the manifest says a split was made of, checked like a trial's parameters.

    Exit code 2 where it cannot be used: 1 says that a file divides otherwise.
    """
    try:
        given = json.loads(path.read_text())
        problems = _manifest_problems(given)
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror or error}; amc-data split writes one") from error
    except ValueError as error:
        raise click.UsageError(f"{path}: no manifest of amc-data split ({error})") from error
    if problems:
        raise click.UsageError(f"{path}: no manifest of amc-data split: {'; '.join(problems)}")
    return dict(given)


def _manifest_problems(given: Any) -> list[str]:
    if not isinstance(given, dict):
        return ["no JSON object"]
    found = [
        f"{name} is missing"
        for name in ("label_set", "levels_db", "split", "split_seed", "parts")
        if name not in given  # what else is missing or odd differs, and is said as a difference
    ]
    if found:
        return found
    values = [(name, given[name]) for name in ("label_set", "split", "split_seed")]
    found += [problem for name, value in values if (problem := check_value(name, value)[1]) is not None]
    levels_db = given["levels_db"]
    if not isinstance(levels_db, list) or not levels_db or any(check_value("snr_min_db", db)[1] for db in levels_db):
        found.append(f"levels_db: {levels_db!r} is no list of SNR levels in dB")
    parts = given["parts"]
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        found.append("parts: no object of objects")
    return found


if __name__ == "__main__":
    main()
