"""Compile functions for the CPU when they are called first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Sums may be reordered, which vector instructions need, and a product and a sum may become one instruction. NaN and
# infinity must stay, because frames are checked for them. math.isfinite(x) is compiled as x - x, which reordering makes
# 0: compare with the largest number instead.
_FLOATING_POINT = {"reassoc", "contract", "nsz", "arcp"}
MOST_ENERGY = np.finfo(np.float32).max


def compiled(function: _Function) -> _Function:
    """Decorate a function of numbers and arrays; it releases the interpreter's lock while it runs."""
    options: dict[str, Any] = {"nogil": True, "fastmath": _FLOATING_POINT}
    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no cache folder can be written, so every process compiles
        return numba.njit(**options)(function)  # type: ignore[no-any-return]
