"""The index's pages, judged without LMDB: whole ones pass, beside a writer too; hidden rows and bad pages are found."""

from __future__ import annotations

import os
import random
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import Corrupt
from engine.index import Index, Table, layout, structure

PAGE = 4096


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Index]:
    """Three levels of CHUNKS, overflow pages in SPANS, free pages."""
    folder = tmp_path / "index"
    folder.mkdir()
    index = Index(str(folder), create=True)
    chance = random.Random(1)
    for step in range(3):
        with index.write() as txn:
            for _ in range(3000):
                txn.put(Table.CHUNKS, chance.randbytes(32), chance.randbytes(24))
            for _ in range(20):
                txn.put(Table.SPANS, chance.randbytes(16), chance.randbytes(3900))
            for key in list(txn.keys(Table.CHUNKS))[: 500 * step]:
                txn.delete(Table.CHUNKS, key)
    yield index
    index.close()


def pages(index: Index, flags: int) -> list[int]:
    """Offsets of the pages of a kind that are in use; the first is the names' of the tables."""
    fd = os.open(os.path.join(index.path, "data.mdb"), os.O_RDONLY)
    try:
        walk = structure._Walk(fd, layout.read_metas(fd)[-1])
        assert walk.run() == []
        used = [page * PAGE for page, state in enumerate(walk._state) if state == structure._USED]
        return [at for at in used if os.pread(fd, 2, at + 10) == struct.pack("<H", flags)]
    finally:
        os.close(fd)


def damaged(index: Index, tmp_path: Path, raw: bytes) -> Index:
    copy = shutil.copytree(index.path, tmp_path / "copy")
    (copy / "data.mdb").write_bytes(raw)
    return Index(str(copy))


def test_a_sound_index_has_no_problems_while_it_is_written_to(filled: Index) -> None:
    assert filled.structure() == []
    ended = threading.Event()

    def write() -> None:
        chance = random.Random(2)
        while not ended.is_set():
            with filled.write() as txn:
                for key in list(txn.keys(Table.CHUNKS, start=chance.randbytes(2)))[:100]:
                    txn.delete(Table.CHUNKS, key)
                for _ in range(100):
                    txn.put(
                        Table.CHUNKS,
                        chance.randbytes(32),
                        chance.randbytes(chance.choice([24, 56])),
                    )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            assert filled.structure() == []
    finally:
        ended.set()
        writer.join()


def test_a_leaf_that_hides_its_last_row(filled: Index, tmp_path: Path) -> None:
    """The row would be missing without a word: those that are there all match their check."""
    raw = bytearray(Path(filled.path, "data.mdb").read_bytes())
    with filled.read() as txn:
        keys = list(txn.keys(Table.CHUNKS))
    hidden = 0
    for at in pages(filled, 2):
        (lower,) = struct.unpack_from("<H", raw, at + 12)
        torn = bytearray(raw)
        struct.pack_into("<H", torn, at + 12, lower - 2)
        Path(tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "data.mdb").write_bytes(torn)
        try:
            other = Index(str(tmp_path / "copy"))
        except Corrupt:  # a table is missing
            shutil.rmtree(tmp_path / "copy")
            continue
        with other.read() as txn:
            missing = len(keys) - len(list(txn.keys(Table.CHUNKS)))
        if missing:
            hidden += 1
            assert other.structure(), at
        other.close()
        shutil.rmtree(tmp_path / "copy")
        if hidden == 5:
            return
    raise AssertionError("the case is there")


def test_every_kind_of_damage_to_a_branch(filled: Index, tmp_path: Path) -> None:
    raw = Path(filled.path, "data.mdb").read_bytes()
    at = pages(filled, 1)[-1]
    (node,) = struct.unpack_from("<H", raw, at + 18)
    for place, change in [(0, 1), (10, 4), (12, 2), (14, 1), (18, 2), (node, 1), (node + 6, 1)]:
        torn = bytearray(raw)
        torn[at + place] ^= change
        index = damaged(filled, tmp_path, bytes(torn))
        assert index.structure(), place
        with pytest.raises(Corrupt, match="rebuild-index"):
            index.verify()
        index.close()
        shutil.rmtree(tmp_path / "copy")


def test_a_page_put_in_the_place_of_another(filled: Index, tmp_path: Path) -> None:
    raw = bytearray(Path(filled.path, "data.mdb").read_bytes())
    one, other = pages(filled, 2)[3:5]
    raw[one : one + PAGE] = raw[other : other + PAGE]
    index = damaged(filled, tmp_path, bytes(raw))
    assert any("says that it is page" in text for text in index.structure())
    index.close()


def test_a_page_in_use_that_the_free_list_names(filled: Index, tmp_path: Path) -> None:
    raw = bytearray(Path(filled.path, "data.mdb").read_bytes())
    page = pages(filled, 1)[-1] // PAGE
    with filled.read() as txn:
        newest = txn.id % 2
    (free,) = struct.unpack_from("<Q", raw, newest * PAGE + 40 + 40)
    (node,) = struct.unpack_from("<H", raw, free * PAGE + 16)
    at = free * PAGE + node + 8 + 8 + 8  # the first number of the first row
    struct.pack_into("<Q", raw, at, page)
    index = damaged(filled, tmp_path, bytes(raw))
    assert any("free list" in text for text in index.structure())
    index.close()
