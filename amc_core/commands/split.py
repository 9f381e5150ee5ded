"""amc-data split: write, or check, the division of a file into train, validation and test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from amc_core.command_line import refuse_one_file_twice
from amc_core.commands.parameters import trial_option
from amc_core.commands.terminal import open_file
from amc_core.config import check_value
from amc_core.files import exists, why_not_writable, write_whole
from amc_sweeps.number_formats import quoted, shortened

_BEGINNING = 64  # bytes: a manifest is a JSON object


@click.command("split")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("manifest_path", type=click.Path(dir_okay=False, path_type=Path), metavar="MANIFEST.json")
@trial_option("label_set")
@trial_option("snr_min_db")
@trial_option("snr_max_db")
@trial_option("split")
@trial_option("split_seed")
@click.option("--rows", "with_rows", is_flag=True, help="Also write the row numbers of every part.")
@click.option("--force", is_flag=True, help="Replace a manifest of another split.")
@click.option(
    "--check",
    is_flag=True,
    help="Compare FILE with an existing manifest. Exit code 1: they differ; 2: the manifest cannot be used.",
)
@click.pass_context
def split_command(
    context: click.Context,
    file: Path,
    manifest_path: Path,
    label_set: str,
    snr_min_db: int,
    snr_max_db: int,
    split: tuple[float, float, float],
    split_seed: int,
    with_rows: bool,
    force: bool,
    check: bool,
) -> None:
    """Write how FILE is divided into train, validation and test, as a manifest.

    A trial with the same parameters divides the file in the same way, on every machine.

    \b
    amc-data split radioml.hdf5 split.json
    amc-data split radioml.hdf5 split.json --check      # does this machine divide its file in the same way?

    Exit codes: 0 written, or equal; 1 with --check: they differ, or the file cannot be used; 2 refused.
    """
    from amc_core.data.duplicates import duplicates_across_parts, duplicates_warning
    from amc_core.data.radioml import select
    from amc_core.data.splits import manifest, manifest_differences, stratified_split

    refuse_one_file_twice([manifest_path], read=[file])
    reference: dict[str, Any] = {}
    if check:
        _refuse_own_values(context)
        reference = _read_manifest(manifest_path)
        label_set, split, split_seed = reference["label_set"], tuple(reference["split"]), int(reference["split_seed"])
        snr_min_db, snr_max_db = min(reference["levels_db"]), max(reference["levels_db"])
    elif (reason := why_not_writable(manifest_path)) is not None:
        raise click.UsageError(f"{shortened(str(manifest_path))} cannot be written: {reason}")
    with open_file(file) as data:
        selection = select(data, label_set, snr_min_db, snr_max_db)
        facts = manifest(data.fingerprint, selection, split, split_seed, with_rows=with_rows)
        n_duplicates = None  # a check needs the labels alone
        if not check:
            n_duplicates = duplicates_across_parts(data, selection, stratified_split(selection, split, split_seed))
    if check:
        if differences := manifest_differences(reference, facts):
            raise click.ClickException(f"{file} differs from {manifest_path}:\n" + "\n".join(differences))
    else:
        if not force:
            _keep_other_manifest(manifest_path, facts)
        try:
            write_whole(manifest_path, json.dumps(facts, indent=2) + "\n")
        except OSError as error:
            raise click.ClickException(f"{manifest_path}: {error.strerror or error}") from error
    n_heldout = facts["parts"]["val"]["frames"] + facts["parts"]["test"]["frames"]
    if warning := duplicates_warning(n_duplicates, n_heldout, file):
        click.echo(warning, err=True)
    sizes = " / ".join(f"{part['frames']:,}" for part in facts["parts"].values())
    click.echo(f"split {facts['split_fingerprint']}: {sizes} frames (train / val / test)")


def _refuse_own_values(context: click.Context) -> None:
    """Refuse values beside --check, which takes them from the manifest."""
    names = ("label_set", "snr_min_db", "snr_max_db", "split", "split_seed")
    given = [f"--{name}" for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise click.UsageError(f"--check takes all values from the manifest: leave out {', '.join(given)}")


def _keep_other_manifest(path: Path, facts: Mapping[str, Any]) -> None:
    """Refuse to replace a file that is no manifest of this split."""
    if not exists(path):
        return
    try:
        is_same = _read_manifest(path)["split_fingerprint"] == facts["split_fingerprint"]
    except (click.UsageError, KeyError):
        is_same = False
    if not is_same:
        raise click.UsageError(f"{path} exists and is not of this split; use --force to replace it, or another name")


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest whose values passed the checks of a trial's parameters.

    Exit code 2 if it cannot be used, because 1 means that a file differs from it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_BEGINNING)
            # A data file that was named by mistake is not read whole.
            content = json.loads(text + file.read()) if text.lstrip().startswith(b"{") else None
        problems = _manifest_problems(content)
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror or error}; amc-data split writes one") from error
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{path}: not a manifest of amc-data split ({error})") from error
    if problems:
        raise click.UsageError(f"{path}: not a manifest of amc-data split: {'; '.join(problems)}")
    return dict(content or {})


def _manifest_problems(content: Any) -> list[str]:
    if not isinstance(content, dict):
        return ["it holds no JSON object"]
    names = ("label_set", "levels_db", "split", "split_seed", "parts")  # manifest_differences compares the rest
    if problems := [f"{name} is missing" for name in names if name not in content]:
        return problems
    values = [(name, content[name]) for name in ("label_set", "split", "split_seed")]
    problems = [problem for name, value in values if (problem := check_value(name, value)[1]) is not None]
    levels_db = content["levels_db"]
    if not isinstance(levels_db, list) or not levels_db or any(check_value("snr_min_db", db)[1] for db in levels_db):
        problems.append(f"levels_db: {quoted(levels_db)} is not a list of SNR levels in dB")
    parts = content["parts"]
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        problems.append("parts: not an object of objects")
    return problems
