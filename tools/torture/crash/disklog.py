"""The log of a recorded disk, and the disks a power cut could have left.

A *cut* is a place between two entries of the log.  Of the writes before it, those before the last flush are on the
disk; those after it, the *loose* ones, are there or not, in any combination, and the last may be torn.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

SECTOR = 512  # what a disk writes whole or not at all
PAGE = 4096
_ZEROS = bytes(PAGE)
_HEAD = struct.Struct("<BQI")
Pages = dict[int, bytes]  # a disk: the pages that are not all zeros, by number


class Kind(IntEnum):
    """Of an entry of the log."""

    WRITE = 1
    FLUSH = 2
    NOTE = 3


class Entry(NamedTuple):
    """``at`` and ``data`` of a write; ``data`` of a note."""

    kind: Kind
    at: int = 0
    data: bytes = b""


def encode(kind: Kind, at: int = 0, data: bytes = b"") -> bytes:
    """One entry."""
    return _HEAD.pack(kind, at, len(data)) + data


def decode(raw: bytes) -> Iterator[Entry]:
    """All entries of a log."""
    at = 0
    while at < len(raw):
        kind, place, size = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        yield Entry(Kind(kind), place, raw[at : at + size])
        at += size
    assert at == len(raw), "the log ends in the middle of an entry"


class Variant(IntEnum):
    """What became of the loose writes."""

    KEPT = 0  # all arrived
    DROPPED = 1  # none did
    SOME = 2  # a random part
    LATER = 3  # the later ones only: the disk wrote in another order
    TORN = 4  # all, but of the last one only some sectors


class Disk:
    """A disk as it is after a prefix of the log: what is safe, and what is loose."""

    def __init__(self, pages: Pages) -> None:
        self.safe = dict(pages)
        self.loose: list[Entry] = []

    def take(self, entry: Entry) -> None:
        """Go on by one entry."""
        if entry.kind == Kind.WRITE:
            self.loose.append(entry)
        elif entry.kind == Kind.FLUSH:
            _write(self.safe, self.loose)
            self.loose.clear()

    def left(self, variant: Variant, rng: random.Random) -> Pages:
        """The disk after a cut here."""
        pages = dict(self.safe)
        _write(pages, self._arrived(variant, rng))
        return pages

    def _arrived(self, variant: Variant, rng: random.Random) -> list[Entry]:
        loose = self.loose
        match variant:
            case Variant.KEPT:
                return loose
            case Variant.DROPPED:
                return []
            case Variant.SOME:
                share = rng.choice((0.2, 0.5, 0.8))
                return [write for write in loose if rng.random() < share]
            case Variant.LATER:
                return loose[rng.randrange(len(loose) + 1) :]
            case Variant.TORN:
                return [*loose[:-1], *_torn(loose[-1], rng)] if loose else []


def _write(pages: Pages, writes: Iterable[Entry]) -> None:
    for write in writes:
        done = 0
        while done < len(write.data):
            number, inside = divmod(write.at + done, PAGE)
            part = write.data[done : done + PAGE - inside]
            done += len(part)
            if len(part) < PAGE:
                old = pages.get(number, _ZEROS)
                part = old[:inside] + part + old[inside + len(part) :]
            if part == _ZEROS:
                pages.pop(number, None)
            else:
                pages[number] = part


def _torn(write: Entry, rng: random.Random) -> list[Entry]:
    """Some sectors of a write: the first few, or any."""
    count = len(write.data) // SECTOR
    if rng.random() < 0.5:
        return [write._replace(data=write.data[: rng.randrange(count + 1) * SECTOR])]
    return [
        Entry(Kind.WRITE, write.at + n * SECTOR, write.data[n * SECTOR : (n + 1) * SECTOR])
        for n in range(count)
        if rng.random() < 0.5
    ]


def digest(pages: Pages) -> bytes:
    """The same for the same disk."""
    made = blake3()
    for number in sorted(pages):
        made.update(number.to_bytes(8, "little"))
        made.update(pages[number])
    return made.digest()


def load(path: Path) -> Pages:
    """The disk in a file; its holes are not read."""
    pages: Pages = {}
    with open(path, "rb") as file:
        at, size = 0, os.fstat(file.fileno()).st_size
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # only a hole is left
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            _write(pages, [Entry(Kind.WRITE, at, os.pread(file.fileno(), end - at, at))])
            at = end
    return pages


def save(pages: Pages, path: Path) -> None:
    """Make a file, whose size it keeps, hold this disk."""
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        file.truncate(0)
        file.truncate(size)
        for start, run in _runs(pages):
            for at in range(0, len(run), 512):
                os.pwritev(file.fileno(), run[at : at + 512], (start + at) * PAGE)


def _runs(pages: Pages) -> Iterator[tuple[int, list[bytes]]]:
    """Pages that lie one behind the other."""
    start, run = 0, list[bytes]()
    for number in sorted(pages):
        if number != start + len(run):
            if run:
                yield start, run
            start, run = number, []
        run.append(pages[number])
    if run:
        yield start, run
