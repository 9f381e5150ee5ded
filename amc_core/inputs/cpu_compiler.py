"""Compile a function for the CPU, the first time that it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Sums may be reordered, which vector instructions need, and a product and a sum become one instruction. NaN and
# infinity stay what they are, because frames are checked for them; but math.isfinite is a difference with itself, which
# reordering makes 0. Compare with the largest number instead.
_FLOATING_POINT = {"reassoc", "contract", "nsz", "arcp"}
MOST_ENERGY = np.finfo(np.float32).max


def compiled(function: _Function) -> _Function:
    """Decorate a function of numbers and arrays. Others may run while it does: it releases the interpreter's lock."""
    options: dict[str, Any] = {"nogil": True, "fastmath": _FLOATING_POINT}
    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package nor a home can be written: compiled anew by every process
        return numba.njit(**options)(function)  # type: ignore[no-any-return]
