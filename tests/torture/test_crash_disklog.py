"""The disks that a power cut may have left, from the log of a small one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tools.torture.crash.block import states
from tools.torture.crash.disklog import (
    PAGE,
    SECTOR,
    Disk,
    Entry,
    Kind,
    Variant,
    decode,
    digest,
    encode,
    load,
    save,
)

A, B, C = b"a" * PAGE, b"b" * PAGE, b"c" * 2 * PAGE
LOG = [
    Entry(Kind.WRITE, 0, A),
    Entry(Kind.FLUSH),
    Entry(Kind.NOTE, 0, b"begun"),
    Entry(Kind.WRITE, 0, B),
    Entry(Kind.WRITE, 4 * PAGE, C),
]


def test_a_log_is_read_as_it_was_written() -> None:
    raw = b"".join(encode(*entry) for entry in LOG)
    assert list(decode(raw)) == LOG
    with pytest.raises(AssertionError):
        list(decode(raw[:-1]))


def test_what_was_flushed_is_safe_and_the_rest_is_loose() -> None:
    disk = Disk({9: C[:PAGE]})
    for entry in LOG:
        disk.take(entry)
    rng = random.Random(1)
    assert disk.left(Variant.DROPPED, rng) == {0: A, 9: C[:PAGE]}
    assert disk.left(Variant.KEPT, rng) == {0: B, 4: C[:PAGE], 5: C[:PAGE], 9: C[:PAGE]}
    some = {digest(disk.left(Variant.SOME, rng)) for _ in range(50)}
    later = {digest(disk.left(Variant.LATER, rng)) for _ in range(50)}
    assert len(some) == 4, "either, both or none"
    assert len(later) == 3, "none, the last, both"
    for _ in range(50):
        torn = disk.left(Variant.TORN, rng)
        assert torn[0] == B, "only the last is torn"
        two = torn.get(4, bytes(PAGE)) + torn.get(5, bytes(PAGE))
        sectors = {two[at : at + SECTOR] for at in range(0, 2 * PAGE, SECTOR)}
        assert sectors <= {bytes(SECTOR), C[:SECTOR]}
    disk.take(Entry(Kind.FLUSH))
    assert disk.left(Variant.DROPPED, rng) == disk.left(Variant.KEPT, rng) == disk.safe


def test_writes_of_parts_of_pages_and_of_zeros() -> None:
    disk = Disk({})
    for entry in (
        Entry(Kind.WRITE, 512, b"x" * 9000),
        Entry(Kind.WRITE, PAGE, bytes(PAGE)),
        Entry(Kind.WRITE, 1024, b"y" * 512),
    ):
        disk.take(entry)
    whole = bytearray(3 * PAGE)
    whole[512:9512] = b"x" * 9000
    whole[PAGE : 2 * PAGE] = bytes(PAGE)
    whole[1024:1536] = b"y" * 512
    assert disk.left(Variant.KEPT, random.Random(0)) == {0: whole[:PAGE], 2: whole[2 * PAGE :]}


def test_a_disk_is_saved_over_another_and_loaded(tmp_path: Path) -> None:
    pages = {0: A, 1: B, 700: C[:PAGE]} | {
        n: bytes([n % 255 + 1]) * PAGE for n in range(1000, 1700)
    }
    file = tmp_path / "disk"
    file.write_bytes(b"old" * PAGE * 700)
    size = file.stat().st_size
    save(pages, file)
    assert file.stat().st_size == size
    assert load(file) == pages
    assert digest(load(file)) == digest(pages) != digest({**pages, 3: A})


def test_cuts_are_before_every_write_and_flush_and_at_the_end() -> None:
    rng = random.Random(1)
    found = states(LOG, rng, 100)
    assert [at for at, variant in found if variant == Variant.KEPT] == [0, 1, 3, 4, 5]
    assert [at for at, variant in found if variant == Variant.DROPPED] == [1, 4, 5]
    assert len(found) == 11
    few = states(LOG, rng, 4)
    assert len(few) == 4 and few == sorted(few)
