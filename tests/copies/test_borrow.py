"""A store borrowed from a location: it reads all there is, writes nothing, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store, limits
from engine.copies.connect import Wanted, add
from engine.copies.rings import newest_ring
from engine.errors import Corrupt, NotFound, PermissionDenied, ReadOnly, StoreFull
from engine.keys import Key, Passphrase
from engine.maintain import borrow
from engine.restore import tree
from tests.copies.test_adopt import SETTINGS, content, filled, upload
from tests.copies.test_reach import grown
from tests.copies.test_upload import CHEAP, SECRET
from tests.locations.places import Place, in_a_directory
from tests.restore.support import Maker

__all__ = ["grown"]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_all_is_read_nothing_is_written_nothing_is_left(
    engine: Store, grown: list[str], place: Place, scratch: Path, tmp_path: Path
) -> None:
    filled(engine, place, [SECRET])
    before, infos = place.everything(), engine.points()
    expected = [content(engine, point, tmp_path / f"before-{point}") for point in grown]
    with Store.borrow(place.url, SECRET, scratch=str(scratch)) as store:
        (folder,) = scratch.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert store.points() == infos and store.point("m@latest").id == grown[-1]
        found = store.borrowed
        assert found is not None and found.points == 3 and not found.left_out
        assert found.settings["m"]["policy"] == SETTINGS["policy"]
        for point, tree in zip(grown, expected, strict=True):
            assert content(store, point, tmp_path / f"after-{point}") == tree
            assert list(store.copies.extras(point)) == [b"a log"]
        assert list((folder / "store" / "cache").iterdir())
    assert list(scratch.iterdir()) == [] and place.everything() == before


def test_from_a_location_of_the_store(
    engine: Store, grown: list[str], place: Place, scratch: Path, tmp_path: Path
) -> None:
    """With this machine's key, taken over or not; what the store knows of it must be so."""
    filled(engine, place, [SECRET])
    assert [list(engine.copies.extras(point)) for point in grown] == [[b"a log"]] * 3
    Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    with Store.open(str(tmp_path / "new")) as adopted:
        for store, name in ((engine, "far"), (adopted, "origin")):
            store.copies.change(name, read_bandwidth="100M")
            with store.copies.borrow(name, scratch=str(scratch)) as found:
                assert found.points() == engine.points()
                assert found.copies.locations()[0].read_bandwidth == "100M"
            with pytest.raises(NotFound, match="nowhere"), store.copies.borrow("nowhere"):
                pass
        place.delete(f"journal/{4:016d}")
        with (
            pytest.raises(Corrupt, match="which this store knows"),
            adopted.copies.borrow("origin", scratch=str(scratch)),
        ):
            pass
    place.clear()
    with Store.open(str(engine.path)) as again, pytest.raises(NotFound):
        again.copies.borrow("far", scratch=str(scratch)).__enter__()
    assert list(scratch.iterdir()) == []


@pytest.mark.seldom
def test_newer_keys_than_an_adopted_store_has(
    engine: Store, make: Maker, grown: list[str], place: Place, tmp_path: Path, scratch: Path
) -> None:
    from engine import keys

    filled(engine, place, [SECRET])
    Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    ring = keys.rotated(newest_ring(place.location())[1], SECRET, now_ns=1)[0]
    place.location().create("keys/00000002.json", ring)
    make.file(b"late", b"late")
    make.point(engine)
    upload(engine)
    with (
        Store.open(str(tmp_path / "new")) as adopted,
        pytest.raises(PermissionDenied, match="adopt the location anew"),
        adopted.copies.borrow("origin", scratch=str(scratch)),
    ):
        pass


@pytest.mark.seldom
def test_every_change_is_refused(
    engine: Store, grown: list[str], place: Place, scratch: Path
) -> None:
    filled(engine, place, [SECRET])
    with Store.borrow(place.url, SECRET, scratch=str(scratch)) as store:
        copies = store.copies
        changes: list[Callable[[], object]] = [
            lambda: store.create_mount("n"),
            lambda: store.change_mount("m", quota=1),
            lambda: store.remove_mount("m"),
            lambda: store.open_live("m"),
            lambda: store.snapshot("m"),
            lambda: store.remove_point(grown[0]),
            store.collect,
            store.scrub,
            store.repair,
            lambda: copies.add("x", f"file://{scratch}", sealed=False),
            lambda: copies.remove("origin"),
            lambda: copies.take_over("origin"),
            lambda: copies.retry("origin"),
            lambda: copies.send("origin"),
            lambda: copies.reclaim("origin"),
            copies.drop_local,
        ]
        for change in changes:
            with pytest.raises(ReadOnly, match="'holdfast adopt'"):
                change()


@pytest.mark.seldom
def test_what_goes_wrong_leaves_nothing(
    engine: Store, grown: list[str], place: Place, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(engine, place, [SECRET])

    def borrowed(url: str, secret: Key | Passphrase) -> None:
        with Store.borrow(url, secret, scratch=str(scratch)):
            raise RuntimeError("while it is read")

    with pytest.raises(PermissionDenied):
        borrowed(place.url, Key.new())
    with pytest.raises(NotFound):
        borrowed(f"file://{scratch}", SECRET)
    with pytest.raises(RuntimeError, match="while it is read"):
        borrowed(place.url, SECRET)
    monkeypatch.setattr(limits, "BORROW_ROOM", 1 << 60)
    with pytest.raises(StoreFull, match="--scratch"):
        borrowed(place.url, SECRET)
    assert list(scratch.iterdir()) == []
    monkeypatch.setenv("TMPDIR", str(scratch / "none"))
    with pytest.raises(NotFound, match="scratch"), Store.borrow(place.url, SECRET):
        pass


PROGRAM = """
import sys, time
from engine import Store
from engine.keys import Passphrase
with Store.borrow(sys.argv[1], Passphrase("a word or two")) as store:
    print("there", flush=True)
    time.sleep(60)
"""


def test_what_the_killed_left_is_removed_and_nothing_else(
    engine: Store, grown: list[str], place: Place, scratch: Path
) -> None:
    filled(engine, place, [SECRET])
    others = [scratch / name for name in ("mine", "holdfast-borrowed-open", "holdfast-borrowed-x")]
    for one in others:
        one.mkdir(mode=0o755)
    (scratch / "holdfast-borrowed-link").symlink_to(others[0])
    command = [sys.executable, "-c", PROGRAM, place.url]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None and child.stdout.readline() == b"there\n"
        there = set(scratch.iterdir())
        assert len(there) == 5
        with Store.borrow(place.url, SECRET, scratch=str(scratch)):
            assert there < set(scratch.iterdir()), "one that lives is left alone"
        child.send_signal(signal.SIGKILL)
    with Store.borrow(place.url, SECRET, scratch=str(scratch)):
        assert len(there & set(scratch.iterdir())) == 4
    assert all(one.exists() for one in others)


@pytest.mark.seldom
def test_helpers_open_it_too(
    engine: Store, make: Maker, grown: list[str], place: Place, scratch: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from engine.restore.helper import Helper

    make.file(b"large", os.urandom(12 << 20))
    point = make.point(engine)
    filled(engine, place, [SECRET])
    asked, real = [], Helper.write_span

    def ready(self: Helper) -> bool:
        end = time.monotonic() + 20
        while not real_ready(self) and time.monotonic() < end:
            time.sleep(0.01)
        return True

    def write_span(self: Helper, *args: object) -> tuple[int, list[str]]:
        found = real(self, *args)  # type: ignore[arg-type]
        asked.append(found)
        return found

    real_ready = Helper.ready
    monkeypatch.setattr(Helper, "ready", ready)
    monkeypatch.setattr(Helper, "write_span", write_span)
    monkeypatch.setattr(tree, "HELP_FROM", 1)
    expected = content(engine, point, tmp_path / "before")
    asked.clear()
    with Store.borrow(place.url, SECRET, scratch=str(scratch)) as store:
        assert content(store, point, tmp_path / "after") == expected
    assert asked and not any(damaged for _, damaged in asked)


@in_a_directory  # whatever leaves the machine is sealed
def test_from_one_that_is_not_sealed(
    engine: Store, grown: list[str], place: Place, scratch: Path
) -> None:
    wanted = Wanted(place.url, [], sealed=False)
    add(engine._open.context, "near", wanted, cost=CHEAP).location.close()
    upload(engine, "near")
    with Store.borrow(place.url, None, scratch=str(scratch)) as store:
        assert store.points() == engine.points()
        assert list(store.copies.extras(grown[1])) == [b"a log"]


def test_the_scratch_is_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/somewhere")
    assert borrow._usual() == "/somewhere"
    monkeypatch.delenv("TMPDIR")
    assert borrow._usual() == "/var/tmp"
