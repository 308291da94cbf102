"""A sealed store and its locations: what travels has the location's seal alone, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Store, home, supply
from engine.copies.connect import Wanted, add, open_link
from engine.copies.office import send
from engine.copies.rows import DROP
from engine.copies.sealed import DATA, PackBuilder, entry_of
from engine.errors import Corrupt, InvalidRequest, NoKey, PermissionDenied
from engine.home import OpenStore
from engine.keys import Key
from engine.maintain.drop import drop
from engine.maintain.needed import Needed
from engine.packs.records import Entry, decode_record_head
from engine.progress import silent
from tests.copies.test_adopt import content
from tests.copies.test_reach import grown
from tests.copies.test_upload import CHEAP, SECRET
from tests.locations.places import Place
from tests.restore.support import Maker, noise

__all__ = ["grown"]
KEY, OTHER = Key(b"k" * 32), Key(b"o" * 32)


@pytest.fixture
def home_(tmp_path: Path) -> Iterator[Path]:
    Store.init(str(tmp_path / "store"), seal=[KEY])
    yield tmp_path / "store"
    supply.forget()


@pytest.fixture
def engine(home_: Path) -> Iterator[Store]:
    with Store.open(str(home_), key=KEY) as one:
        one.create_mount("m")
        yield one


def sent(engine: Store, place: Place) -> None:
    wanted = Wanted(place.url, [SECRET], local=DROP)
    add(engine._open.context, "far", wanted, cost=CHEAP).location.close()
    again(engine)


def again(engine: Store) -> None:
    send(
        engine._open,
        "far",
        extras=lambda point: (),
        settings=lambda mount: {},
        report=silent,
        stop=lambda: False,
    )


def test_sent_dropped_read_and_sent_again(
    engine: Store, make: Maker, grown: list[str], place: Place, home_: Path, tmp_path: Path
) -> None:
    before = [content(engine, point, tmp_path / f"before-{point}") for point in grown]
    sent(engine, place)
    for path in (b"big", *(b"d1/f%d" % number for number in range(40))):
        parent, _, name = path.rpartition(b"/")
        make.tree.unlink(make.inodes[parent], name)
        make.tree.forgotten(make.inodes.pop(path))
    make.point(engine)
    again(engine)
    assert drop(engine._open, report=silent).chunks > 20
    assert drop(engine._open, report=silent).chunks == 0
    engine.collect()
    assert engine.check(read_data=True).problems == []
    with Store.open(str(home_)) as fresh:
        for point, expected in zip(grown, before, strict=True):
            assert content(fresh, point, tmp_path / f"after-{point}") == expected
    make.file(b"back", noise(3_000_000, 7))  # known, and elsewhere only
    make.point(engine)
    again(engine)
    engine.collect()
    assert engine.check(read_data=True).problems == []
    found = Store.check_without_key(str(home_))
    assert found.problems == [] and found.counts["chunks elsewhere"] > 20


@pytest.mark.parametrize("seal", [[], [OTHER]], ids=["plain", "sealed"])
@pytest.mark.seldom
def test_adopted(
    engine: Store, grown: list[str], place: Place, tmp_path: Path, seal: list[Key]
) -> None:
    """Into a store of either kind: a seal is the business of the store that has it."""
    before = [content(engine, point, tmp_path / f"before-{point}") for point in grown]
    sent(engine, place)
    new = tmp_path / "new"
    Store.adopt(str(new), place.url, SECRET, take_over=True, seal=seal, name="far")
    assert home.is_sealed(str(new)) == bool(seal)
    for opened in range(2):
        with Store.open(str(new), key=OTHER if seal else None) as store:
            assert store.check(read_data=True).problems == []
            for point, expected in zip(grown, before, strict=True):
                assert content(store, point, tmp_path / f"after-{opened}-{point}") == expected
            tree = store.open_live("m")
            Maker(tree).file(b"more%d" % opened, noise(50_000, 77 + opened))
            tree.close()
            store.snapshot("m")
            again(store)
    assert not list(new.parent.glob("*.adopting"))


@pytest.mark.seldom
def test_this_machines_key_is_sealed_too(
    engine: Store, grown: list[str], place: Place, home_: Path
) -> None:
    sent(engine, place)
    path = home_ / "locations" / "far.key"
    line = path.read_bytes()
    assert line.startswith(b"sealed:")
    open_link(engine._open.context, "far").location.close()
    path.write_bytes(line[:20] + b"A" + line[21:])
    with pytest.raises((Corrupt, NoKey)):
        open_link(engine._open.context, "far")


@pytest.mark.seldom
def test_a_location_that_is_not_sealed_is_refused(engine: Store, place: Place) -> None:
    with pytest.raises(InvalidRequest, match="a sealed one, as the store is"):
        add(engine._open.context, "far", Wanted(place.url, sealed=False), cost=CHEAP)
    assert not place.names()


@pytest.mark.seldom
def test_a_record_with_the_stores_seal_never_travels(
    engine: Store, grown: list[str], place: Place
) -> None:
    sent(engine, place)
    context = engine._open.context
    row = next(row for row in map(engine._open.reader.row, ids(engine)) if row is not None)
    raw = context.files.read(row.pack, row.offset, row.stored)
    record = decode_record_head(raw)
    assert record.sealed
    link = open_link(context, "far")
    entry = Entry(
        record.id, 0, len(raw), record.plain, record.kind, record.encoding, record.depth, ()
    )
    with pytest.raises(Corrupt):
        PackBuilder(link.vault, DATA).add(raw[: record.head], raw[record.head :], entry)
    with pytest.raises(Corrupt):
        entry_of(record)
    link.location.close()


def ids(engine: Store) -> list[bytes]:
    from engine.index import Table

    with engine._open.context.index.read() as txn:
        return [
            cid for cid in txn.keys(Table.CHUNKS) if not chunk_bases(txn.get(Table.CHUNKS, cid))
        ]


def chunk_bases(raw: bytes | None) -> bool:
    return raw is None or len(raw) > 24 or len(raw) < 20


@pytest.mark.seldom
def test_an_adopted_sealed_store_needs_its_own_key(
    engine: Store, grown: list[str], place: Place, tmp_path: Path
) -> None:
    sent(engine, place)
    new = str(tmp_path / "new")
    Store.adopt(new, place.url, SECRET, seal=[OTHER])
    with pytest.raises(PermissionDenied):
        OpenStore(new, key=KEY)
    supply.forget()
    with pytest.raises(PermissionDenied):
        OpenStore(new)
    OpenStore(new, key=OTHER).close()


def test_what_is_borrowed_of_a_sealed_store_is_sealed(
    engine: Store, grown: list[str], place: Place, tmp_path: Path
) -> None:
    before = content(engine, grown[-1], tmp_path / "before")
    sent(engine, place)
    (tmp_path / "scratch").mkdir()
    for number in range(2):
        with engine.copies.borrow("far", scratch=str(tmp_path / "scratch")) as other:
            assert home.is_sealed(other.path)
            keys = list(Path(other.path).glob("locations/*.key"))
            assert keys and all(path.read_bytes().startswith(b"sealed:") for path in keys)
            assert content(other, grown[-1], tmp_path / f"out{number}") == before
    OpenStore(
        engine.path
    ).close()  # the key of a store that is gone is forgotten, that of this one is not
    assert sum(map(len, supply._known.values())) == 1


def test_what_is_needed_there_is_known_here(
    engine: Store, make: Maker, grown: list[str], place: Place
) -> None:
    """The store's own seal makes a record longer, and no other one: nothing is read there to find that out."""
    sent(engine, place)
    link = open_link(engine._open.context, "far")
    for dropped in (False, True):
        if dropped:
            make.tree.unlink(make.inodes[b""], b"big")
            make.tree.forgotten(make.inodes.pop(b"big"))
            make.point(engine)
            again(engine)
            assert drop(engine._open, report=silent).chunks
        looked = Needed(engine._open, link, silent)
        before = link.location.counts()
        with engine._open.context.index.read() as txn:
            looked.mark(txn)
            found = looked.look(txn)
        assert link.location.counts() == before
        assert (found.here == found.live) != dropped and found.here
    link.close()
