"""Journals that somebody goes on with who has, or had, this machine's key: what no reader believes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine import Store
from engine.copies.connect import open_link
from engine.copies.journal import Begin, Checkpoint, Entry, Locked, Removed, encode, path_of
from engine.errors import Corrupt
from tests.copies.made import WRITER
from tests.copies.test_adopt_hostile import Forge, adopted, forge, sound
from tests.copies.test_rescue import rescue
from tests.copies.test_upload import SECRET
from tests.locations.places import Place
from tests.restore.support import Maker

__all__ = ["forge"]


def _bare(forge: Forge, entry: Entry) -> None:
    """An entry by who has this machine's key, whatever the chain thinks of it."""
    raw = encode(forge.made.vault, entry)
    forge.made.put(path_of(entry.seq), raw)


@pytest.mark.parametrize("keep", ["nothing", "a shorter lock", "another record", "a later time"])
def test_no_checkpoint_behind_a_gap_forgets_a_locked_point(
    forge: Forge, tmp_path: Path, keep: str
) -> None:
    """Behind an entry that does not follow a reader begins anew, with a checkpoint that says all: but for the locks."""
    forge.made.append(Locked((forge.point.id,), 1000))
    seq, state = forge.made.chain.seq, forge.made.chain.state
    (point,) = state.points.values()
    kept = {
        "nothing": Checkpoint(state.store, (), (), {}),
        "a shorter lock": dataclasses.replace(state.checkpoint(), locks={point.id: 999}),
        "another record": dataclasses.replace(
            state.checkpoint(), points=(dataclasses.replace(point, record=bytes(32)),)
        ),
        "a later time": Checkpoint(state.store, (), (), {}),
    }[keep]
    _bare(forge, Entry(seq + 1, bytes(32), WRITER, 999, Removed((forge.point.id,))))
    time_ns = 1000 if keep == "a later time" else 999
    _bare(forge, Entry(seq + 2, bytes(32), WRITER, time_ns, kept))
    report = adopted(forge, tmp_path)
    if keep == "a later time":  # the lock is over then
        assert report.points == 0
        return
    assert report.points == 1 and f"journal entry {seq + 2} is left out" in " ".join(report.done)
    with Store.open(str(tmp_path / "new")) as store:
        assert store.point(forge.point.id).locked_ns == 1000
    sound(tmp_path)


def test_absurd_entries_are_not_fetched(
    engine: Store, make: Maker, place: Place, tmp_path: Path
) -> None:
    """By who writes there, either, whose index says what the next one is called."""
    make.file(b"one", b"1")
    make.point(engine)
    engine.copies.add("far", place.url, secrets=[SECRET])
    engine.copies.send("far")
    place.swell(path_of(len(place.names("journal/")) + 1))
    for ask in (engine.copies.send, engine.copies.reclaim):
        with pytest.raises(Corrupt, match="at most"):
            ask("far")
    report = Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    assert report.points == 1 and report.left_out == 1


def test_who_was_left_out_adds_no_entry(
    engine: Store, make: Maker, place: Place, tmp_path: Path
) -> None:
    """He knows the keys of before the rotation, the writer, and the hash of the last entry."""
    make.file(b"one", b"1")
    point = make.point(engine)
    engine.copies.add("far", place.url, secrets=[SECRET])
    engine.copies.send("far")
    old = open_link(engine._open.context, "far").vault
    engine.copies.rotate_keys("far", master_for=[SECRET])
    make.file(b"two", b"2")
    make.point(engine)
    engine.copies.send("far")
    row = open_link(engine._open.context, "far").row
    last, writer = bytes.fromhex(row.last), bytes.fromhex(row.writer)
    instead = Begin(engine._open.context.store_id, writer)
    for by, body in ((bytes(16), instead), (writer, Removed((point,)))):
        raw = encode(old, Entry(row.seq + 1, last, by, 1, body))
        place.write(path_of(row.seq + 1), raw)
        with pytest.raises(Corrupt, match="epoch"):
            engine.copies.send("far")
    report = Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    assert report.points == 2 and "epoch" in " ".join(report.done)
    code, out, err = rescue(place.mirror(tmp_path / "mirror"), "list", secret="a word or two")
    assert (code, len(out.splitlines())) == (20, 2) and "epoch" in err
