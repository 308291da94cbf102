"""Points go to a location: whole, once, whatever is cut off."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from engine import Store, limits
from engine.copies import journal, outbox
from engine.copies.chain import Chain
from engine.copies.connect import Wanted, add, open_link
from engine.copies.link import Link
from engine.copies.rings import newest_ring
from engine.copies.rows import WHOLE, CopyRow, copy_row
from engine.copies.sealed import PackBuilder, path_of, read_pack
from engine.copies.upload import Uploader, UploadReport
from engine.errors import (
    AlreadyExists,
    Busy,
    Corrupt,
    HoldfastError,
    InvalidRequest,
    LocationDenied,
    LocationUnavailable,
    StoreFull,
)
from engine.index import Table
from engine.index.rows import ENC_DELTA, KIND_DATA, chunk_row
from engine.keys import Passphrase, unlock
from engine.keys.primitives import Cost
from engine.nodes import walk
from engine.nodes.ports import Ref
from engine.packs.records import Entry
from engine.progress import silent
from tests.copies.test_reach import grown, reached, top
from tests.locations.faulty import Call, Delay, Fail, Fault, Faulty, Flip, Lose, Tear
from tests.locations.places import Place, Server
from tests.restore.support import Maker, noise

CHEAP = Cost(memory_kib=64, passes=1, lanes=1)
SECRET = Passphrase("a word or two")
__all__ = ["grown"]


def make_link(engine: Store, place: Place, name: str = "far") -> Link:
    return add(engine._open.context, name, Wanted(place.url, [SECRET]), cost=CHEAP)


@pytest.fixture
def link(engine: Store, grown: list[str], place: Place) -> Link:
    return make_link(engine, place)


def send(engine: Store, link: Link, point: str) -> UploadReport:
    return Uploader(engine._open, link, report=silent).upload(point, [b"a log"], {"quota": 7})


def read_all(link: Link) -> tuple[Chain, set[bytes]]:
    """What somebody finds who has the location and the passphrase alone: the journal, and ids of all chunks."""
    vault = unlock(newest_ring(link.location)[1], SECRET)
    chain = Chain(vault)
    for one in link.location.list("journal/"):
        seq = journal.seq_of(one.name.rpartition("/")[2]) or 0
        if chain.seq and seq != chain.seq + 1:
            chain = Chain(vault)  # entries before a checkpoint go
        try:
            chain.take(seq, link.location.read(one.name))
        except Corrupt:
            if chain.seq:
                raise
    ids = set()
    for name in chain.state.packs:
        entries, every = read_pack(vault, link.location.read(path_of(name)))
        assert [entry for entry, *_ in every] == entries
        ids |= {entry.id for entry in entries}
    return chain, ids


def test_a_location_has_all_of_its_points_and_says_so(
    engine: Store, link: Link, grown: list[str]
) -> None:
    sent = [send(engine, link, point) for point in grown]
    chain, ids = read_all(link)
    assert list(chain.state.points) == grown and chain.state.settings == {"m": {"quota": 7}}
    for point in grown:
        assert reached(engine, point) <= ids
        made = chain.state.points[point]
        assert made.record == top(engine, point) and set(made.extras) <= ids
    assert sent[1].bytes < sent[0].bytes / 4
    with engine._open.context.index.read() as txn:
        found = dict(outbox.of_location(txn, link.row.id))
    assert {row.state for row in found.values()} == {"verified"} and set(found) == set(grown)
    before = sorted(one.name for one in link.location.list(""))
    assert send(engine, link, grown[0]).packs == 0
    assert sorted(one.name for one in link.location.list("")) == before


@pytest.mark.seldom
def test_a_new_point_is_queued_with_itself(engine: Store, make: Maker, link: Link) -> None:
    make.file(b"later", b"x")
    point = make.point(engine)
    with engine._open.context.index.read() as txn:
        row = outbox.get(txn, link.row.id, point)
    assert row is not None and row.state == "queued"


def test_another_store_is_refused(link: Link, place: Place, tmp_path: Path) -> None:
    Store.init(str(tmp_path / "other"))
    with Store.open(str(tmp_path / "other")) as other:
        with pytest.raises(AlreadyExists, match="adopt"):
            make_link(other, place)
        with other._open.context.index.read() as txn:
            assert outbox.locations(txn) == {}


def test_a_directory_of_the_stores_own_is_refused(engine: Store, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(engine.path)
    for own in (engine.path, f"{engine.path}/run", f"{tmp_path}/link"):
        with pytest.raises(InvalidRequest, match="outlives the store"):
            add(engine._open.context, "far", Wanted(f"file://{own}", [SECRET]), cost=CHEAP)
    make_link(engine, Place(Path(f"{engine.path}-2")))  # one that begins with its name is another


def test_who_was_replaced_stops(engine: Store, link: Link, grown: list[str]) -> None:
    send(engine, link, grown[0])
    entry = journal.Entry(
        link.row.seq + 1, bytes.fromhex(link.row.last), bytes(15) + b"2", 5,
        journal.Begin(engine._open.context.store_id, bytes.fromhex(link.row.writer)),
    )  # fmt: skip
    assert link.location.create(journal.path_of(entry.seq), journal.encode(link.vault, entry))
    with pytest.raises(Busy, match="took over"):
        send(engine, link, grown[1])
    with engine._open.context.index.read() as txn:
        assert "replaced" in outbox.location(txn, "far").paused


@pytest.mark.seldom
def test_a_delta_counts_when_its_base_is_there(engine: Store, link: Link) -> None:
    """Packs come in any order, and a crash leaves some: what has no base there is sent again."""
    base, delta, further = (bytes([number]) * 32 for number in range(3))
    sender = Uploader(engine._open, link, report=silent)
    index = engine._open.context.index

    def there() -> set[bytes]:
        with index.read() as txn:
            return {key[2:] for key in txn.keys(Table.COPIES)}

    def take(cid: bytes, *bases: bytes) -> None:
        sender._flight[cid] = 0
        with index.write() as txn:
            entry = Entry(cid, 64, 100, 90, KIND_DATA, ENC_DELTA, len(bases), bases)
            sender._there(txn, entry, CopyRow(1, 64, 100, 0))
        sender._take_early()

    take(further, delta)
    take(delta, base)
    assert there() == set() and sender._has(delta) is not None  # on its way still
    with pytest.raises(Corrupt, match="a delta of"):
        sender._see_none_early()
    take(base)
    assert there() == {base, delta, further} and not sender._flight
    sender._see_none_early()


@pytest.mark.parametrize("done", [False, True])
def test_cut_off_at_any_change_it_goes_on(
    engine: Store, link: Link, grown: list[str], done: bool
) -> None:
    at, whole = 0, False
    while not whole:
        again = open_link(engine._open.context, "far")
        faulty = again.location = Faulty(again.location)
        for change in ("put", "create"):
            error = LocationUnavailable("a server", found="no answer")
            faulty.on(change, Fail(error, done=done), after=at // 2)
        try:
            for point in grown:
                send(engine, again, point)
            whole = True
        except LocationUnavailable:
            at += 1
    assert at > 1
    chain, ids = read_all(link)
    assert list(chain.state.points) == grown
    assert all(reached(engine, point) <= ids for point in grown)


@pytest.mark.parametrize(
    ("operation", "name", "fault"),
    [
        ("put", "packs/", Lose()), ("put", "packs/", Tear(1000)), ("put", "packs/", Flip(100_000)),
        ("create", "journal/", Lose()), ("create", "journal/", Tear(70)), ("create", "journal/", Flip(999)),
        ("stat", "packs/", Fail(LocationUnavailable("a server"))), ("put", "packs/", Delay(0.05)),
        ("put", "packs/", Fail(LocationDenied("a server"))), ("put", "", Fail(StoreFull("a bucket"))),
    ],
)  # fmt: skip
@pytest.mark.seldom
def test_whatever_the_location_does_it_ends_verified_or_says_why(
    engine: Store, link: Link, grown: list[str], operation: str, name: str, fault: Fault
) -> None:
    """And nothing counts as verified that is not there as it was sent."""
    again = open_link(engine._open.context, "far")
    again.row = replace(again.row, verify=1.0)
    faulty = again.location = Faulty(again.location)
    faulty.on(operation, fault, name=name)
    with suppress(HoldfastError):
        send(engine, again, grown[0])
    with engine._open.context.index.read() as txn:
        row = outbox.get(txn, link.row.id, grown[0])
    chain, ids = read_all(link) if row is not None and row.entry else (None, set())
    if chain is not None:
        assert reached(engine, grown[0]) <= ids
        return
    assert not isinstance(fault, Delay)
    if name == "journal/" and not isinstance(fault, Lose):
        link.location.remove(
            [journal.path_of(link.row.seq + 1)]
        )  # what is no entry stays in the way
    send(engine, open_link(engine._open.context, "far"), grown[0])
    chain, ids = read_all(link)
    assert list(chain.state.points) == grown[:1] and reached(engine, grown[0]) <= ids


@pytest.mark.parametrize("late", [0, 2, 5])
@pytest.mark.seldom
def test_what_is_known_to_be_there_can_be_decoded_there(
    engine: Store, make: Maker, link: Link, grown: list[str], late: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A pack comes late, and then not at all: nothing is known of those that need it."""
    monkeypatch.setattr(limits, "SEALED_PACK", 300 << 10)
    data = bytearray(noise(3_000_000, 7))
    for at in range(0, len(data), 1 << 16):  # deltas of what lies in many packs
        data[at : at + 100] = bytes(100)
    make.tree.write(make.inodes[b"big"], 0, bytes(data))
    point = make.point(engine)

    def fail(*_: object) -> None:
        time.sleep(0.3)
        raise LocationUnavailable("a server", found="no answer")

    faulty = link.location = Faulty(link.location)
    faulty.on("put", Call(fail), after=late)
    with pytest.raises(LocationUnavailable):
        send(engine, link, point)
    with engine._open.context.index.read() as txn:
        known = {key[2:] for key, _ in txn.scan(Table.COPIES)}
        rows = [txn.get(Table.CHUNKS, cid) for cid in known]
    bases = {base for raw in rows if raw is not None for base in chunk_row(raw).bases}
    assert bases <= known
    send(engine, link, point)
    assert reached(engine, point) <= read_all(link)[1]


def test_the_first_packs_are_small_and_none_is_larger_than_is_said(
    engine: Store, make: Maker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEALED_FIRST", 320 << 10)
    monkeypatch.setattr(limits, "SEALED_PACK", 1 << 20)
    make.tree.write(make.inodes[b"big"], 0, noise(5_000_000, 9))
    send(engine, link, make.point(engine))
    sizes = sorted(one.size for one in link.location.list("packs/"))

    def as_large_as(most: int) -> int:
        return sum(most - limits.RECORD_MAX < one <= most for one in sizes)

    assert as_large_as(320 << 10) and as_large_as(640 << 10)
    assert as_large_as(1 << 20) >= 3 and sizes[-1] <= 1 << 20


def not_whole(engine: Store) -> set[bytes]:
    """What nodes refer to that count as whole at the location, and is not there."""
    with engine._open.context.index.read() as txn:
        there = {key[2:]: copy_row(raw).flags for key, raw in txn.scan(Table.COPIES)}
    return {
        child
        for cid, flags in there.items()
        if flags & WHOLE
        for kind, child in walk.children(engine._open.reader.read_node(cid), cid)
        if child not in there or (kind is Ref.NODE and not there[child] & WHOLE)
    }


def test_a_node_that_was_there_is_whole_when_what_it_needs_has_come(
    engine: Store, make: Maker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reclaiming leaves nodes as bases of others, without what they refer to."""
    for number in range(12):
        for name in (b"a%02d", b"b%02d"):
            make.folder(name % number)
            make.file(name % number + b"/x", noise(40_000, 1000 * name[0] + number))
    send(engine, link, make.point(engine))
    with engine._open.context.index.write() as txn:
        for key, raw in list(txn.scan(Table.COPIES)):
            txn.put(Table.COPIES, key, copy_row(raw)._replace(flags=0).pack_bytes())
            chunk = txn.get(Table.CHUNKS, key[2:])
            if chunk is not None and chunk_row(chunk).kind == KIND_DATA:
                txn.delete(Table.COPIES, key)
    for number in range(12):  # new nodes and those that are there take turns
        make.tree.write(make.inodes[b"a%02d/x" % number], 0, b"y" * 100)
    point = make.point(engine)
    monkeypatch.setattr(PackBuilder, "fits", lambda self, entry, most=None: len(self) < 2)
    error = LocationUnavailable("a server", found="no answer")
    for after in (4, 5, 6, 7):
        faulty = Faulty(link.location)
        faulty.on("put", Fail(error), after=after, times=-1)
        again = open_link(engine._open.context, "far")
        again.location = faulty
        with pytest.raises(LocationUnavailable):
            send(engine, again, point)
        assert not not_whole(engine)
    send(engine, open_link(engine._open.context, "far"), point)
    with engine._open.context.index.read() as txn:
        there = {key[2:] for key in txn.keys(Table.COPIES)}
    assert not not_whole(engine) and reached(engine, point) <= there


def test_a_bucket(engine: Store, grown: list[str], server: Server, tmp_path: Path) -> None:
    """A real server of the protocol; credentials come from a file, and are in no message."""
    secret = tmp_path / "credentials"
    secret.touch(0o600)
    secret.write_text("".join(f"{key}={value}\n" for key, value in server.credentials.items()))
    wanted = Wanted(server.url(), [SECRET], f"file:{secret}")
    link = add(engine._open.context, "bucket", wanted, cost=CHEAP)
    for point in grown:
        send(engine, link, point)
    chain, ids = read_all(link)
    assert list(chain.state.points) == grown
    assert all(reached(engine, point) <= ids for point in grown)
