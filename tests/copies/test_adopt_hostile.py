"""Locations that somebody made up who has the key: whatever they say, nothing is written but the new store."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from engine import Store, codec
from engine.copies import marker, sealed
from engine.copies.journal import PacksChanged, PointMade, path_of
from engine.copies.journal import Point as PointCopy
from engine.copies.sealed import PackBuilder, PackRow
from engine.errors import Corrupt, FormatTooNew, HoldfastError
from engine.index.rows import ENC_DELTA, ENC_RAW, ENC_ZSTD, KIND_NODE, KIND_POINT
from engine.keys import JOURNAL_MAGIC
from engine.maintain.refill import AdoptReport
from engine.nodes.point import Point, decode_point, encode_point
from engine.packs.records import Base, Entry, encode_record_head
from tests.copies import made as by_hand
from tests.copies.made import Made
from tests.copies.test_reach import top
from tests.copies.test_upload import SECRET
from tests.locations.places import Place
from tests.restore.support import Maker

NAMES = (b"aaaaaaaa", b"bbbbbbbb")
Expect = Callable[[str], None]


@dataclasses.dataclass
class Forge:
    """A location, and ways to say what is not so in it."""

    made: Made
    store: Store
    point: Point

    def node(self) -> tuple[bytes, bytes]:
        """(id, content) of the root directory's node."""
        cid = self.point.root.root[:32]
        return cid, bytes(self.store._open.reader.read_node(cid))

    def builder(self) -> PackBuilder:
        return PackBuilder(self.made.vault, sealed.METADATA)

    def add(self, pack: PackBuilder, data: bytes, cid: bytes = b"", kind: int = KIND_NODE) -> bytes:
        """A record of this content, under the id that it has or another."""
        cid = cid or codec.chunk_id(self.made.vault.id_key, data)
        head = encode_record_head(kind, ENC_RAW, 0, len(data), len(data), cid)
        size = len(head) + len(data)
        pack.add(head, data, Entry(cid, 0, size, len(data), kind, ENC_RAW, 0, ()))
        return cid

    def put(self, pack: PackBuilder) -> PackRow:
        one = pack.finish()
        self.made.put(sealed.path_of(one.row.name), one.data)
        return one.row

    def name(self, *rows: PackRow, gone: tuple[str, ...] = ()) -> None:
        self.made.append(PacksChanged(rows, gone))

    def point_with(self, node: bytes) -> None:
        """A further point, whose root directory is this node."""
        pack = self.builder()
        cid = self.add(pack, node)
        root = self.point.root._replace(root=cid + self.point.root.root[32:])
        other = dataclasses.replace(self.point, id="1" + self.point.id[1:], sequence=9, root=root)
        record = self.add(pack, encode_point(other), kind=KIND_POINT)
        row = self.put(pack)
        self.made.append(PointMade(PointCopy(other.id, "m", record), (row,)))


@pytest.fixture
def forge(engine: Store, make: Maker, place: Place) -> Forge:
    for name in NAMES:
        make.file(name, name * 100)
    point = make.point(engine)
    made = by_hand.location(place, engine, [SECRET])
    data = engine._open.reader.read(top(engine, point))
    return Forge(made, engine, decode_point(data))


def everything(root: Path) -> set[str]:
    return {os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names}


def adopted(forge: Forge, tmp_path: Path) -> AdoptReport:
    """Adopt; whatever comes of it, nothing is made but the store and a ring."""
    place = forge.made.place
    before, there = everything(tmp_path), place.names()
    try:
        return Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    finally:
        new = everything(tmp_path) - before
        assert place.names() == there
        assert all(path.startswith(str(tmp_path / "new" / "")) for path in new)


def refused(forge: Forge, tmp_path: Path, text: str) -> None:
    with pytest.raises(HoldfastError, match=text):
        adopted(forge, tmp_path)
    assert not (tmp_path / "new").exists() and not (tmp_path / "new.adopting").exists()


def sound(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "new")) as store:
        assert store.check(read_data=True).problems == []


@pytest.mark.seldom
def test_of_two_records_the_one_that_can_be_read_wins(forge: Forge, tmp_path: Path) -> None:
    cid, _ = forge.node()
    pack = forge.builder()
    forge.add(pack, b"something else", cid)
    false = forge.put(pack)
    genuine = tuple(forge.made.rows)
    forge.name(gone=tuple(row.name for row in genuine))
    forge.name(false)
    forge.name(*genuine)  # a reader meets the false one first
    report = adopted(forge, tmp_path)
    assert report.points == 1 and not report.left_out
    sound(tmp_path)


@pytest.mark.seldom
def test_a_record_under_anothers_id_is_not_taken_for_it(
    forge: Forge, tmp_path: Path, expect_log: Expect
) -> None:
    expect_log("suspect")
    cid, data = forge.node()
    pack = forge.builder()
    for row in forge.made.rows:
        forge.name(gone=(row.name,))
    point = encode_point(forge.point)
    forge.add(pack, point, kind=KIND_POINT)
    forge.add(pack, data + b"\0", cid)
    forge.name(forge.put(pack))
    report = adopted(forge, tmp_path)
    assert any("is not whole" in text for text in report.done)
    with Store.open(str(tmp_path / "new")) as store, pytest.raises(Corrupt):
        store.glance(forge.point.id).lookup(NAMES[0])


@pytest.mark.seldom
def test_a_trailer_of_other_ids_is_found_when_it_is_read(
    forge: Forge, tmp_path: Path, expect_log: Expect
) -> None:
    expect_log("suspect")
    cid, data = forge.node()
    pack = forge.builder()
    forge.add(pack, encode_point(forge.point), kind=KIND_POINT)
    forge.add(pack, data + b"\0")
    pack.entries[1] = pack.entries[1]._replace(id=cid)
    forge.name(gone=tuple(row.name for row in forge.made.rows))
    forge.name(forge.put(pack))
    report = adopted(forge, tmp_path)
    assert any("is not whole" in text for text in report.done)


@pytest.mark.parametrize(
    ("field", "value"), [("plain", 2**32 - 1), ("depth", 200), ("bases", tuple([bytes(32)] * 17))]
)
@pytest.mark.seldom
def test_absurd_records_leave_their_pack_out(
    forge: Forge, tmp_path: Path, field: str, value: object
) -> None:
    pack = forge.builder()
    forge.add(pack, b"one")
    pack.entries[0] = pack.entries[0]._replace(**{field: value})
    forge.name(forge.put(pack))
    report = adopted(forge, tmp_path)
    assert report.left_out == 1 and "is left out" in report.done[0] and report.points == 1
    sound(tmp_path)


@pytest.mark.parametrize("name", ["holdfast.json", "keys/00000009.json", path_of(9)])
def test_absurd_sizes_are_refused_before_they_are_fetched(
    forge: Forge, tmp_path: Path, name: str
) -> None:
    forge.made.place.swell(name)
    if name == path_of(9):
        assert adopted(forge, tmp_path).points == 1  # behind a gap: it says nothing
    elif name.startswith("keys/"):
        report = adopted(forge, tmp_path)  # the one that is a ring is there as well
        assert report.points == report.left_out == 1 and "at most" in report.done[0]
    else:
        refused(forge, tmp_path, "at most")


def _dots(node: bytes) -> bytes:
    return node.replace(NAMES[0], b"../../aa")


def _twice(node: bytes) -> bytes:
    return node.replace(NAMES[1], NAMES[0])


def _cut(node: bytes) -> bytes:
    return node[:-3]


@pytest.mark.parametrize("change", [_dots, _twice, _cut])
@pytest.mark.seldom
def test_names_that_lead_away_are_refused(
    forge: Forge, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    forge.point_with(change(forge.node()[1]))
    report = adopted(forge, tmp_path)
    assert report.points == 2 and report.left_out
    with Store.open(str(tmp_path / "new")) as store:
        tree = store.open_live("m")
        assert list(tree.readdir(1, 0)) == []
        tree.close()
        before = everything(tmp_path)
        with contextlib.suppress(HoldfastError):
            assert store.restore(
                "1" + forge.point.id[1:], b"", os.fsencode(tmp_path / "out")
            ).damaged
        inside = (str(tmp_path / "out" / ""), str(tmp_path / "new" / ""))
        assert all(path.startswith(inside) for path in everything(tmp_path) - before)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.seldom
def test_a_tree_that_contains_itself_is_refused(
    forge: Forge, tmp_path: Path, expect_log: Expect
) -> None:
    """Its id would have to be the hash of what contains it: it is told by its content."""
    expect_log("suspect")
    node = forge.node()[1]
    claimed = codec.chunk_id(forge.made.vault.id_key, b"whatever")
    pack = forge.builder()
    forge.add(pack, node[:-32] + claimed, claimed)
    root = forge.point.root._replace(root=claimed + forge.point.root.root[32:])
    other = dataclasses.replace(forge.point, id="1" + forge.point.id[1:], sequence=9, root=root)
    record = forge.add(pack, encode_point(other), kind=KIND_POINT)
    forge.made.append(PointMade(PointCopy(other.id, "m", record), (forge.put(pack),)))
    assert any("is not whole" in text for text in adopted(forge, tmp_path).done)


@pytest.mark.seldom
def test_deltas_of_each_other_end(forge: Forge, tmp_path: Path, expect_log: Expect) -> None:
    expect_log("suspect")
    one, two = bytes([1]) * 32, bytes([2]) * 32
    pack = forge.builder()
    for cid, base in ((one, two), (two, one)):
        head = encode_record_head(KIND_NODE, ENC_DELTA, 1, 100, 20, cid, (Base(base, 0, 90),))
        entry = Entry(cid, 0, len(head) + 20, 100, KIND_NODE, ENC_DELTA, 1, (base,))
        pack.add(head, bytes(20), entry)
    forge.made.append(PointMade(PointCopy("1" + forge.point.id[1:], "m", one), (forge.put(pack),)))
    report = adopted(forge, tmp_path)
    assert report.points == 1 and "is left out" in report.done[0]
    with (
        Store.open(str(tmp_path / "new")) as store,
        pytest.raises(Corrupt, match="nothing is freed"),
    ):
        store.copies.reclaim("origin", dry_run=True)


@pytest.mark.seldom
def test_more_inodes_than_the_point_says_are_refused(forge: Forge, tmp_path: Path) -> None:
    few = dataclasses.replace(forge.point, id="1" + forge.point.id[1:], sequence=9, files=1)
    pack = forge.builder()
    record = forge.add(pack, encode_point(few), kind=KIND_POINT)
    forge.made.append(PointMade(PointCopy(few.id, "m", record), (forge.put(pack),)))
    refused(forge, tmp_path, "inodes")


@pytest.mark.seldom
def test_two_mounts_of_one_number_are_refused(forge: Forge, tmp_path: Path) -> None:
    other = dataclasses.replace(forge.point, id="1" + forge.point.id[1:], mount="n")
    pack = forge.builder()
    record = forge.add(pack, encode_point(other), kind=KIND_POINT)
    forge.made.append(PointMade(PointCopy(other.id, "n", record), (forge.put(pack),)))
    refused(forge, tmp_path, "number")


def test_bombs_do_not_go_off(forge: Forge, tmp_path: Path, expect_log: Expect) -> None:
    """What is announced is small, what comes out is a GiB: nothing is decompressed beyond what was announced."""
    expect_log("suspect")
    squeeze, part = zstd.ZstdCompressor(level=1), bytes(1 << 24)
    bomb = b"".join(squeeze.compress(part) for _ in range(64)) + squeeze.flush()
    cid, _ = forge.node()
    pack = forge.builder()
    head = encode_record_head(KIND_NODE, ENC_ZSTD, 0, 100, len(bomb), cid)
    pack.add(head, bomb, Entry(cid, 0, len(head) + len(bomb), 100, KIND_NODE, ENC_ZSTD, 0, ()))
    for row in forge.made.rows:
        forge.name(gone=(row.name,))
    forge.add(pack, encode_point(forge.point), kind=KIND_POINT)
    forge.name(forge.put(pack))
    seal = forge.made.vault.new_file(
        JOURNAL_MAGIC, 0
    )  # and one in the journal, behind all that is genuine
    entry = seal.seal(64, struct.pack("<I", 1 << 20) + bomb)
    forge.made.put(path_of(forge.made.chain.seq + 1), seal.header + entry)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = adopted(forge, tmp_path)
    assert any("is not whole" in text for text in report.done)
    assert any("journal entry" in text and "left out" in text for text in report.done)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB


def _newer_marker(forge: Forge) -> None:
    place = forge.made.place
    place.write(marker.NAME, place.read(marker.NAME).replace(b'"holdfast":1', b'"holdfast":2'))


def _newer_slot(forge: Forge) -> None:
    ring = json.loads(forge.made.place.read("keys/00000001.json"))
    ring["ring"], ring["slots"][0]["kind"] = 2, "quantum"
    raw = json.dumps(ring, sort_keys=True, separators=(",", ":")).encode()
    forge.made.put("keys/00000002.json", raw)


def _newer_journal(forge: Forge) -> None:
    place = forge.made.place
    place.write(path_of(1), place.read(path_of(1)).replace(b"HFJRNL01", b"HFJRNL02"))


@pytest.mark.parametrize("change", [_newer_marker, _newer_slot, _newer_journal])
@pytest.mark.seldom
def test_what_is_newer_is_refused(
    forge: Forge, tmp_path: Path, change: Callable[[Forge], None]
) -> None:
    change(forge)
    with pytest.raises(FormatTooNew, match=r"Holdfast that wrote it|newer"):
        adopted(forge, tmp_path)
    assert not (tmp_path / "new").exists() and not (tmp_path / "new.adopting").exists()


@pytest.mark.seldom
def test_a_link_out_of_the_target_is_not_followed(forge: Forge, tmp_path: Path) -> None:
    """Neither one that lies in the target, nor one of the tree itself: of two entries of a name there is none."""
    outside = tmp_path / "outside"
    outside.mkdir()
    node = forge.node()[1]
    first = node.index(NAMES[0])
    forge.point_with(node[:first] + node[first:].replace(NAMES[1], NAMES[0]))
    adopted(forge, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAMES[0].decode()).symlink_to(outside)
    with Store.open(str(tmp_path / "new")) as store:
        for point in ("1" + forge.point.id[1:], forge.point.id):
            with contextlib.suppress(HoldfastError):
                store.restore(point, b"", os.fsencode(tmp_path / "out"), force=True)
    assert list(outside.iterdir()) == []


def test_a_missing_pack_is_told_and_nothing_else_lost(forge: Forge, tmp_path: Path) -> None:
    data = [row for row in forge.made.rows if row.kind == sealed.DATA]
    forge.made.place.delete(sealed.path_of(data[0].name))
    report = adopted(forge, tmp_path)
    assert report.points == 1 and report.left_out == 2
    with Store.open(str(tmp_path / "new")) as store:
        assert [name for name, *_ in store.glance(forge.point.id).scan(forge.point.root)]
        assert [one.state for one in store.copies.uploads()] == [
            "failed"
        ] and store.check().problems
        assert store.copies.retry("origin") == 0


def test_a_journal_cut_in_two_is_read_as_far_as_it_goes(forge: Forge, tmp_path: Path) -> None:
    forge.point_with(forge.node()[1])
    forge.point = dataclasses.replace(forge.point, id="2" + forge.point.id[1:])
    forge.name()
    place = forge.made.place
    place.delete(path_of(3))
    with pytest.raises(Corrupt, match="gap"):
        Store.adopt(str(tmp_path / "new"), place.url, SECRET, take_over=True)
    report = adopted(forge, tmp_path)
    assert report.points == 1 and "3 is missing" in report.done[0]


@pytest.mark.seldom
def test_a_checkpoint_goes_before_what_lies_behind_a_gap(forge: Forge, tmp_path: Path) -> None:
    forge.name()
    forge.made.append(forge.made.chain.state.checkpoint())
    forge.made.place.delete(path_of(2))
    report = adopted(forge, tmp_path)
    assert report.points == 1 and not report.left_out
    sound(tmp_path)


def test_another_stores_marker_is_refused(forge: Forge, tmp_path: Path) -> None:
    place, store_id = forge.made.place, forge.store._open.context.store_id.hex()
    place.write(marker.NAME, place.read(marker.NAME).replace(store_id.encode(), b"ab" * 16))
    refused(forge, tmp_path, "find out who changed it")
    place.write(marker.NAME, b'{"holdfast":2}')
    refused(forge, tmp_path, "format 1")
