"""Freed memory stays with the process."""

from __future__ import annotations

import ctypes
import resource

import numpy as np
import pytest

from amc_core.machine.memory import keep_freed_memory


def _faults_of_eight_megabytes() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_a_freed_block_is_reused_without_the_kernel() -> None:
    assert keep_freed_memory()
    np.ones(1 << 20)
    assert _faults_of_eight_megabytes() < 2048  # 20 times fresh would be 40,960 pages


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()
