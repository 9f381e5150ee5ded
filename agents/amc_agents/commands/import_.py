"""amc-sweep import: put an exported sweep or project into an embedded server."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path

import click

from amc_core.command_line import Refusal, refuse
from amc_sweeps.backend.options import BackendChoice, backend_options, connect
from amc_sweeps.backend.patience import GaveUpError, open_patiently
from amc_sweeps.bounded_texts import TextError, read_file
from amc_sweeps.number_formats import counted
from amc_sweeps.runs import export_file

TIMEOUT_S = 600.0


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@backend_options
def import_command(file: Path, choice: BackendChoice) -> None:
    """Put what amc-sweep export saved to FILE into an embedded server: all of it, or nothing.

    An import can be repeated: what the server has with the same contents stays as it is. An id that the server has with
    other contents is refused. --project NAME puts everything into that project. A sweep's id is unique on a server, so
    a sweep that is in another project there is refused. A run that was alive when it was exported becomes crashed, and
    its record says that its end is unknown.

    \b
    amc-sweep import sweep.yaml

    Exit codes: 0 imported, 2 refused.
    """
    try:
        text = read_file(file, export_file.MOST_BYTES)
        export = export_file.read(text)
    except (OSError, TextError) as error:
        raise Refusal(f"{file} cannot be read: {error}") from error
    except export_file.ExportFileError as error:
        raise Refusal("\n  ".join([f"{file} cannot be imported:", *error.problems])) from error
    if choice.entity not in (None, "local"):
        refuse(f"the only entity of an embedded server is local, not {choice.entity}")
    backend = connect(choice)
    if backend.kind != "embedded":
        refuse(
            f"{backend.base_url} is not an embedded server, and other W&B servers import no histories, so nothing "
            "was imported. amc-sweep serve starts an embedded server; amc-analyze --from reads the file without any"
        )
    if choice.project is not None:
        text = export_file.write(export_file.Export(choice.project, export.sweeps, export.runs))
    counts = _send(f"{backend.base_url}/import", backend.api_key or "", text.encode())
    click.echo(
        f"{choice.project or export.project}: {counted(counts['sweeps'], 'new sweep')}, "
        f"{counted(counts['runs'], 'new run')}, {counts['unchanged']:,} unchanged",
        err=True,
    )


def _send(url: str, key: str, body: bytes) -> dict[str, int]:
    credentials = base64.b64encode(f"api:{key}".encode()).decode()
    request = urllib.request.Request(url, body, {"Authorization": f"Basic {credentials}"})
    try:
        with open_patiently(request, timeout_s=TIMEOUT_S) as response:
            return dict(json.loads(response.read()))
    except urllib.error.HTTPError as error:
        try:
            message = json.loads(error.read())["errors"][0]["message"]
        except (ValueError, KeyError, IndexError, TypeError):
            message = f"HTTP {error.code}"
        raise Refusal(str(message)) from error
    except GaveUpError as error:
        raise Refusal(str(error)) from error
    except OSError as error:
        raise Refusal(f"{url} does not answer: {error}") from error
