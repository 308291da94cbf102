"""Points go to a location: whole, once, whatever is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Store
from engine.copies import journal, outbox
from engine.copies.chain import Chain
from engine.copies.connect import Wanted, add, open_link
from engine.copies.link import Link
from engine.copies.sealed import path_of, read_pack
from engine.copies.upload import Uploader, UploadReport
from engine.errors import AlreadyExists, Busy, LocationUnavailable
from engine.keys import Passphrase, unlock
from engine.keys.primitives import Cost
from engine.progress import silent
from tests.copies.test_reach import grown, reached, top
from tests.restore.support import Maker

CHEAP = Cost(memory_kib=64, passes=1, lanes=1)
SECRET = Passphrase("a word or two")
__all__ = ["grown"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def make_link(engine: Store, place: Path, name: str = "far") -> Link:
    return add(engine._open.context, name, Wanted(f"file://{place}", [SECRET]), cost=CHEAP)


@pytest.fixture
def link(engine: Store, grown: list[str], place: Path) -> Link:
    return make_link(engine, place)


def send(engine: Store, link: Link, point: str) -> UploadReport:
    return Uploader(engine._open, link, report=silent).upload(point, [b"a log"], {"quota": 7})


def read_all(link: Link) -> tuple[Chain, set[bytes]]:
    """What somebody finds who has the location and the passphrase alone: the journal, and ids of all chunks."""
    raw = link.location.read("keys/00000001.json")
    vault = unlock(raw, SECRET)
    chain = Chain(vault)
    for one in link.location.list("journal/"):
        chain.take(journal.seq_of(one.name.rpartition("/")[2]) or 0, link.location.read(one.name))
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


def test_a_new_point_is_queued_with_itself(engine: Store, make: Maker, link: Link) -> None:
    make.file(b"later", b"x")
    point = make.point(engine)
    with engine._open.context.index.read() as txn:
        row = outbox.get(txn, link.row.id, point)
    assert row is not None and row.state == "queued"


def test_another_store_is_refused(link: Link, place: Path, tmp_path: Path) -> None:
    Store.init(str(tmp_path / "other"))
    with Store.open(str(tmp_path / "other")) as other:
        with pytest.raises(AlreadyExists, match="adopt"):
            make_link(other, place)
        with other._open.context.index.read() as txn:
            assert outbox.locations(txn) == {}


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


class Failing:
    """A location that fails at the n-th change, before or after it was done."""

    def __init__(self, inner: object, at: int, *, done: bool) -> None:
        self._inner, self._left, self._done = inner, at, done

    def __getattr__(self, name: str) -> object:
        real = getattr(self._inner, name)
        if name not in ("put", "create"):
            return real

        def call(*words: object) -> object:
            self._left -= 1
            now = self._left == 0
            if now and not self._done:
                raise LocationUnavailable("a server", found="no answer")
            result = real(*words)
            if now:
                raise LocationUnavailable("a server", found="no answer")
            return result

        return call


@pytest.mark.parametrize("done", [False, True])
def test_cut_off_at_any_change_it_goes_on(
    engine: Store, link: Link, grown: list[str], done: bool
) -> None:
    at, whole = 0, False
    while not whole:
        at += 1
        again = open_link(engine._open.context, "far")
        again.location = Failing(again.location, at, done=done)  # type: ignore[assignment]
        try:
            for point in grown:
                send(engine, again, point)
            whole = True
        except LocationUnavailable:
            continue
    assert at > 3
    chain, ids = read_all(link)
    assert list(chain.state.points) == grown
    assert all(reached(engine, point) <= ids for point in grown)
