"""Damaged copies of a file."""

from __future__ import annotations

import random
from collections.abc import Iterator


def damages(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield damaged copies of a file: bits that flipped, blocks that are lost, zero, doubled or from elsewhere."""
    rng = random.Random(seed)
    for number in range(count):
        at, length = rng.randrange(len(content)), int(len(content) ** rng.random())
        before, part, after = content[:at], content[at : at + length], content[at + length :]
        yield [
            before + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :],
            before + bytes(len(part)) + after,
            before + rng.randbytes(len(part)) + after,
            before + after,
            before + part + part + after,
            before,
            rng.randbytes(length),
        ][number % 7]
