"""Content that shares: a few kinds of data, of which every new one comes from those before, in any mount."""

from __future__ import annotations

import random

KIB = 1024
_WORDS = b"collection pack segment chunk delta base prefix manifest node span extent point mount tree".split()


class Contents:
    """Makes content from a source of chance: edits, copies, shifts, mixtures, and now and then something new."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self._rng = rng
        self._size = size  # of a large file
        self._pool: list[bytes] = []

    def next(self) -> bytes:
        """The next content, which may be one that was there before."""
        rng = self._rng
        if len(self._pool) < 3 or rng.random() < 0.2:
            data = self._fresh()
        else:
            data = self._changed(rng.choice(self._pool))
        self._pool.append(data)
        del self._pool[:-40]
        return data

    def _fresh(self) -> bytes:
        rng = self._rng
        match rng.randrange(4):
            case 0:
                return rng.randbytes(rng.randrange(1, self._size))
            case 1:
                return text(rng, rng.randrange(1, self._size))
            case 2:
                return pages(rng, self._size // (8 * KIB))
            case _:
                return rng.randbytes(rng.randrange(1, 6 * KIB))

    def _changed(self, data: bytes) -> bytes:
        rng = self._rng
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                return data
            case 1:  # a shift: only content-defined cuts find the rest again
                return data[:at] + rng.randbytes(rng.randrange(1, 400)) + data[at:]
            case 2:
                other = rng.choice(self._pool)
                return (data[:at] + other)[: 2 * self._size]
            case 3:
                return data[:at]
            case _:
                return edited(rng, data, rng.randrange(1, 6))


def edited(rng: random.Random, data: bytes, places: int) -> bytes:
    """Overwritten in a few places, as a database does."""
    changed = bytearray(data)
    for _ in range(places):
        at = rng.randrange(len(data) + 1)
        fresh = rng.randbytes(rng.randrange(1, 300))
        changed[at : at + len(fresh)] = fresh[: len(data) - at]
    return bytes(changed)


def text(rng: random.Random, size: int) -> bytes:
    """Words."""
    count = size // 6 + 1
    return b" ".join(rng.choices(_WORDS, k=count))[:size]


def pages(rng: random.Random, count: int) -> bytes:
    """Pages of a database: heads and rows that are alike, so that a dictionary gains."""
    made = []
    for number in range(count):
        rows = b"".join(
            b"row %08d %s;" % (rng.randrange(10**8), rng.choice(_WORDS)) for _ in range(120)
        )
        made.append((b"PAGE %08d" % number + rows).ljust(8 * KIB, b"\0")[: 8 * KIB])
    return b"".join(made)
