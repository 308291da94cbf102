"""Damaged packs and what is left of them: the index made anew, packs written anew, chunks that are whole again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store, codec, limits
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import ENC_RAW, KIND_DATA, ChunkRow, chunk_row
from engine.live import ROOT
from engine.live.tree import LiveTree
from engine.packs.records import encode_record_head
from tests.maintain.support import CTX, damage, noise, pack_path, put, restored, sound

Expect = Callable[[str], None]


def rows(store: Store) -> dict[bytes, ChunkRow]:
    with store._open.context.index.read() as txn:
        return {cid: chunk_row(raw) for cid, raw in txn.scan(Table.CHUNKS)}


def chunk_of(store: Store, point: str, path: bytes) -> bytes:
    view = store.glance(point)
    return view.span(view.find(path), 0)[0][2]


def change(home: Path, row: ChunkRow, at: int) -> None:
    """One byte of a record."""
    with pack_path(home, row.pack).open("r+b") as file:
        file.seek(row.offset + at)
        (byte,) = file.read(1)
        file.seek(row.offset + at)
        file.write(bytes((byte ^ 4,)))


@pytest.fixture
def three(home: Path) -> tuple[str, list[ChunkRow]]:
    """A point of three files in one segment, and their chunks in the order in which they lie there."""
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        for number in range(3):
            put(tree, b"%d" % number, noise(50_000, number))
            tree.barrier()
        tree.close()
        point = store.snapshot("m").id
        found = [rows(store)[chunk_of(store, point, b"%d" % number)] for number in range(3)]
    assert len({row.pack for row in found}) == 1 and found == sorted(found)
    return point, found


def test_records_behind_a_damaged_head_are_found_again(
    home: Path, three: tuple[str, list[ChunkRow]], tmp_path: Path, expect_log: Expect
) -> None:
    """All of them were lost; the next writer then cut them off."""
    expect_log("cannot be gone on with")
    expect_log("suspect")
    point, chunks = three
    change(home, chunks[1], 20)
    shutil.rmtree(home / "index")
    done = Store.rebuild_index(str(home)).done
    assert any("are no record, and passed over" in text for text in done)
    with Store.open(str(home)) as store:
        tree = store.open_live("m")
        put(tree, b"new", noise(10_000, 9))  # goes on with the segment
        tree.close()
        report = store.restore(point, b"", bytes(tmp_path / "out"))
        assert [notice.path for notice in report.damaged] == [b"1"]
        for number in (0, 2):
            assert (tmp_path / "out" / str(number)).read_bytes() == noise(50_000, number)
        assert not [p for p in store.check(read_data=True).problems if p.code in ("live", "index")]


@pytest.mark.parametrize("at", [0, -1, -60])  # header, footer, its trailer's hash
def test_a_sealed_pack_without_its_ends_is_searched(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(limits, "PACK_MAX", 100_000)
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        for number in range(4):
            put(tree, b"%d" % number, noise(50_000, number))
            tree.barrier()
        tree.close()
        point = store.snapshot("m").id
        before = restored(store, point, tmp_path / "before")
    pack = next(home.glob("packs/*/*.pack"))
    data = bytearray(pack.read_bytes())
    data[at] ^= 1
    pack.write_bytes(data)
    shutil.rmtree(home / "index")
    Store.rebuild_index(str(home))
    with Store.open(str(home)) as store:
        assert restored(store, point, tmp_path / "after") == before
        assert {problem.code for problem in store.check(read_data=True).problems} == {"pack"}


def test_a_damaged_node_of_the_newest_point_does_not_stop_a_rebuild(
    home: Path, tmp_path: Path, expect_log: Expect
) -> None:
    """It did: no index was made at all."""
    expect_log("suspect")
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        folder = tree.mkdir(ROOT, b"d", 0o755, CTX).ino
        put(tree, b"kept", b"whole")
        kept = tree.lookup(ROOT, b"kept").ino
        tree.link(kept, folder, b"link")
        tree.mkdir(folder, b"below", 0o755, CTX)
        sparse = put(tree, b"large", b"begin")
        tree.write(sparse, 3 * limits.SPAN, b"end")
        tree.close()
        point = store.snapshot("m").id
        view = store.glance(point)
        damage(store, home, view.find(b"d").root)
        damage(store, home, view.find(b"large").root[2:])
    shutil.rmtree(home / "index")
    done = " ".join(Store.rebuild_index(str(home)).done)
    assert "directory b'/d': names behind b''" in done and "file b'/large' is missing" in done
    with Store.open(str(home)) as store:
        assert [info.id for info in store.points()] == [point]
        assert not [p for p in store.check(read_data=True).problems if p.code == "live"]
        live: LiveTree = store.open_live("m")
        assert sorted(name for name, _, _ in live.readdir(ROOT, 0)) == [b"d", b"kept"]
        assert live.getattr(kept).nlink == 1
        live.close()


def test_of_two_records_the_readable_one_is_taken(
    home: Path, three: tuple[str, list[ChunkRow]], tmp_path: Path
) -> None:
    """A healed chunk whose newer record is damaged while the older one is back."""
    point, chunks = three
    change(home, chunks[0], -10 + chunks[0].stored)
    with Store.open(str(home)) as store:
        assert store.check(read_data=True).problems
        tree = store.open_live("m")
        put(tree, b"again", noise(50_000, 0))
        tree.close()
        newer = rows(store)[chunk_of(store, point, b"0")]
        assert newer.offset != chunks[0].offset
    change(home, chunks[0], -10 + chunks[0].stored)
    change(home, newer, 100)
    Store.rebuild_index(str(home))
    with Store.open(str(home)) as store:
        assert restored(store, point, tmp_path / "out")["0"] == noise(50_000, 0)
        sound(store)


def test_a_pack_with_damage_that_nobody_needs_is_written_anew(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check spoke of it for ever: the healed chunk's old record lies in a pack that is mostly live."""
    monkeypatch.setattr(limits, "PACK_MAX", 220_000)
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        for number in range(6):
            put(tree, b"%d" % number, noise(50_000, number))
            tree.barrier()
        tree.close()
        point = store.snapshot("m").id
        row = rows(store)[chunk_of(store, point, b"0")]
        damage(store, home, chunk_of(store, point, b"0"))
    with Store.open(str(home)) as store:
        assert {p.code for p in store.check(read_data=True).problems} == {"file", "chunk", "pack"}
        tree = store.open_live("m")
        put(tree, b"again", noise(50_000, 0))
        tree.close()
        assert {p.code for p in store.check(read_data=True).problems} == {"pack"}
        store.collect()
        sound(store)
        assert row.pack not in {one.pack for one in rows(store).values()}
        assert restored(store, point, tmp_path / "out")["0"] == noise(50_000, 0)


def test_a_delta_is_suspect_no_longer_once_its_base_is_whole(
    home: Path, expect_log: Expect
) -> None:
    expect_log("suspect")
    data = noise(4 * limits.SLOT, 1)
    with Store.open(str(home)) as store:
        store.create_mount("m", chunking="fixed")
        tree = store.open_live("m")
        ino = put(tree, b"f", data)
        tree.barrier()
        base = chunk_of(store, store.snapshot("m").id, b"f")
        tree.write(ino, 0, b"x" * 20_000 + data[20_000 : limits.SLOT])
        tree.close()
        delta = chunk_of(store, store.snapshot("m").id, b"f")
        assert rows(store)[delta].bases == (base,)
        damage(store, home, base)
    with Store.open(str(home)) as store:
        assert store.check(read_data=True).problems
        tree = store.open_live("m")
        put(tree, b"again", data)
        tree.close()
        sound(store)
        assert not rows(store)[delta].flags


def test_a_torn_record_is_no_chunk_of_an_index_made_anew(
    home: Path, three: tuple[str, list[ChunkRow]], tmp_path: Path
) -> None:
    """A power cut kept its head and lost pages of the rest: content written later was found in it, unreadable."""
    _, found = three
    content = noise(50_000, 77)
    with OpenStore(str(home)) as opened:
        cid = codec.chunk_id(opened.context.key, content)
    head = encode_record_head(KIND_DATA, ENC_RAW, 0, len(content), len(content), cid)
    with pack_path(home, found[0].pack).open("ab") as file:
        file.write(head + content[:4000] + bytes(len(content) - 4000))

    Store.rebuild_index(str(home))

    with Store.open(str(home)) as store:
        sound(store)
        tree = store.open_live("m")
        put(tree, b"late", content)
        tree.close()
        point = store.snapshot("m").id
        sound(store)
        assert restored(store, point, tmp_path / "out")["late"] == content


def test_a_record_behind_one_that_lost_bytes_is_found_again(
    home: Path, three: tuple[str, list[ChunkRow]], tmp_path: Path, expect_log: Expect
) -> None:
    """The head of the shortened one says where it ended before: that is in the middle of the next."""
    expect_log("is suspect")
    point, found = three
    path = pack_path(home, found[0].pack)
    raw = path.read_bytes()
    at = found[0].offset + 20_000
    path.write_bytes(raw[:at] + raw[at + 700 :])

    Store.rebuild_index(str(home))

    with Store.open(str(home)) as store:
        store.restore(point, b"", bytes(tmp_path / "out"))
        assert (tmp_path / "out" / "1").read_bytes() == noise(50_000, 1)
        assert (tmp_path / "out" / "2").read_bytes() == noise(50_000, 2)


def test_a_pack_whose_header_lost_bytes_gives_its_first_record(
    home: Path, three: tuple[str, list[ChunkRow]], tmp_path: Path
) -> None:
    point, found = three
    path = pack_path(home, found[0].pack)
    raw = path.read_bytes()
    path.write_bytes(raw[:20] + raw[21:])

    Store.rebuild_index(str(home))

    with Store.open(str(home)) as store:
        assert restored(store, point, tmp_path / "out")["0"] == noise(50_000, 0)
