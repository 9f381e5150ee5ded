"""The texts of an attribute of an HDF5 file, read so that a damaged file neither ends nor stops this process.

HDF5 stores texts of variable length in a heap of the file. Where that heap is damaged, the library (1.14) crashes or
never returns, so another process reads such texts. Texts of fixed length are in the attribute itself and are read here.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_LIMIT_S = 60.0  # an undamaged file takes 0.3 s on an idle machine


class DamagedTextsError(Exception):
    """The HDF5 library crashed, or did not return, while it read the texts."""


def read_texts(path: Path, file: Any, name: str) -> list[str]:
    """Return the texts of an attribute, in their order.

    Args:
        path: the file.
        file: the same file, open in h5py.
        name: the attribute, which exists.

    Raises:
        DamagedTextsError: the library cannot read them.
        Exception: what h5py raises for an attribute of another kind.
    """
    if not file.attrs.get_id(name).dtype.hasobject:
        return _texts(file.attrs[name])
    command = [sys.executable, "-P", "-m", __name__, str(path), name]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise DamagedTextsError(f"HDF5 did not return from reading attribute {name} in {_LIMIT_S:.0f} s") from error
    if done.returncode < 0:
        ended = signal.Signals(-done.returncode).name
        raise DamagedTextsError(f"HDF5 crashed ({ended}) while it read attribute {name}")
    if done.returncode > 0:
        raise OSError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return list(json.loads(done.stdout))


def _texts(value: Any) -> list[str]:
    values = np.asarray(value).reshape(-1).tolist()
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]


if __name__ == "__main__":
    with h5py.File(sys.argv[1], "r") as opened:
        sys.stdout.write(json.dumps(_texts(opened.attrs[sys.argv[2]])))
