"""Write a file that must not have been there, wholly or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from amc_sweeps.backend.options import Refusal, refuse


def write_new(path: Path, text: str) -> None:
    """Write the text in UTF-8.

    Raises:
        Refusal: when the file exists by now, or cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.absolute().parent, prefix=".amc-") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.link(file.name, path)  # unlike a rename, never replaces
            path.chmod(0o644)
    except FileExistsError:
        refuse(f"{path} is there already and is not overwritten: choose another name")
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror}") from error
