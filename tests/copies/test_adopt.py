"""A store is made again from a location alone, and goes on where the lost one was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from engine import Store, keys
from engine.copies.connect import Wanted, add
from engine.copies.rings import newest_ring
from engine.errors import AlreadyExists, Busy, InvalidRequest, LocationDenied, PermissionDenied
from engine.keys import Both, Identity, Key, Passphrase, Secret
from engine.maintain.adopt import NOT_TAKEN_OVER
from engine.maintain.refill import AdoptReport
from tests.copies.test_reach import grown
from tests.copies.test_upload import CHEAP, SECRET
from tests.locations.places import Place, Server, in_a_directory
from tests.maintain.test_killed import scratch
from tests.restore.support import Maker, Seen, found, noise, restored, seen

__all__ = ["grown", "scratch"]
SETTINGS = {"policy": {"keep_last": 7}}
LIMITS = {"quota": 1 << 40, "max_files": 5000, "chunking": "auto"}  # the engine's own


def upload(store: Store, name: str = "far") -> int:
    """Send what waits; bytes of packs."""
    sent = store.copies.send(name, extras=lambda point: [b"a log"], settings=lambda mount: SETTINGS)
    return sum(one.bytes for one in sent)


def content(store: Store, point: str, out: Path) -> Seen:
    assert found(restored(store, point, bytes(out))) == []
    return seen(bytes(out))


def filled(engine: Store, place: Place, secrets: list[Secret]) -> None:
    engine.change_mount("m", quota=1 << 40, files=5000)
    add(engine._open.context, "far", Wanted(place.url, secrets), cost=CHEAP).location.close()
    upload(engine)


def adopted(tmp_path: Path, place: Place, **other: object) -> AdoptReport:
    return Store.adopt(str(tmp_path / "new"), place.url, SECRET, **other)  # type: ignore[arg-type]


def paused(store: Store) -> str:
    return store.copies.locations()[0].paused


def test_a_store_comes_back_and_goes_on(
    engine: Store, grown: list[str], place: Place, tmp_path: Path
) -> None:
    filled(engine, place, [SECRET])
    identity = engine._open.context.store_id, engine._open.context.key
    before = [content(engine, point, tmp_path / f"before-{point}") for point in grown]
    infos = engine.points()
    report = adopted(tmp_path, place, take_over=True)
    assert report.points == 3 and report.mounts == 1 and report.taken_over and not report.left_out
    assert report.settings == {"m": SETTINGS | LIMITS} and len(report.fingerprint) == 16
    with Store.open(str(tmp_path / "new")) as store:
        assert (store._open.context.store_id, store._open.context.key) == identity
        checked = store.check(read_data=True)
        assert checked.problems == [] and checked.counts["chunks elsewhere"] == report.chunks
        assert store.points() == infos
        for point, expected in zip(grown, before, strict=True):
            assert content(store, point, tmp_path / f"after-{point}") == expected
        mount = store.mount("m")
        assert (mount.quota, mount.files, mount.points) == (1 << 40, 5000, 3)
        assert store.copies.with_extras() == sorted(grown) and store.copies.has_extras(grown[0])
        assert list(store.copies.extras(grown[1])) == [b"a log"]
        place_info = store.copies.locations()[0]
        assert (place_info.verified, place_info.queued, place_info.paused) == (3, 0, "")
        tree = store.open_live("m")
        again = Maker(tree)
        again.file(b"once more", noise(50_000, 77))
        again.file(b"known", noise(3_000_000, 7))  # there since the first point
        again.point(store)
        assert 50_000 < upload(store, "origin") < 150_000
        assert upload(store, "origin") == 0
        tree.close()
        store.remove_points([grown[0]])
        assert store.collect().dead_chunks > 0
        assert list(store.copies.extras(grown[1])) == [b"a log"]
        assert grown[0] not in store.copies.with_extras()
        upload(store, "origin")
        assert store.check(read_data=True).problems == []


@pytest.mark.seldom
def test_the_old_writer_is_refused(
    engine: Store, make: Maker, grown: list[str], place: Place, tmp_path: Path
) -> None:
    filled(engine, place, [SECRET])
    adopted(tmp_path, place, take_over=True)
    make.file(b"late", b"late")
    make.point(engine)
    with pytest.raises(Busy, match="took over"):
        upload(engine)
    assert "replaced" in paused(engine)


def test_without_taking_over_it_only_reads(
    engine: Store, make: Maker, grown: list[str], place: Place, tmp_path: Path
) -> None:
    filled(engine, place, [SECRET])
    report = adopted(tmp_path, place, name="bucket")
    assert not report.taken_over
    with Store.open(str(tmp_path / "new")) as store:
        assert paused(store) == NOT_TAKEN_OVER
        with pytest.raises(Busy, match="without taking over"):
            upload(store, "bucket")
        assert store.check(read_data=True).problems == []
    shutil.copytree(tmp_path / "new", tmp_path / "again")
    with Store.open(str(tmp_path / "again")) as store:
        make.file(b"late", b"late")
        make.point(engine)
        assert upload(engine)
        with pytest.raises(Busy, match="to be its last"):
            store.copies.take_over("bucket")
    (tmp_path / "more").mkdir()
    assert adopted(tmp_path / "more", place).points == 4
    for _ in range(2):  # as after a crash between the entry and the row
        shutil.rmtree(tmp_path / "again")
        shutil.copytree(tmp_path / "more" / "new", tmp_path / "again")
        with Store.open(str(tmp_path / "again")) as store:
            store.copies.take_over("origin")
            assert paused(store) == "" and upload(store, "origin") == 0


def slots(place: Place) -> int:
    return len(keys.facts(newest_ring(place.location())[1]).slots)


def test_nothing_is_written_there_before_it_is_taken_over(
    engine: Store, grown: list[str], place: Place, tmp_path: Path
) -> None:
    filled(engine, place, [SECRET])
    before, own = place.everything(), tmp_path / "new" / "locations"
    adopted(tmp_path, place)
    with Store.open(str(tmp_path / "new")) as store:
        assert store.check(read_data=True).problems == []
    assert place.everything() == before and slots(place) == 2
    assert {one.name for one in own.glob("origin*")} == {"origin.key", "origin.ring"}
    assert {one.stat().st_mode & 0o777 for one in own.iterdir()} == {0o600}
    # The ring there is another by now: of another passphrase, and with a new epoch.
    location = place.location()
    ring = keys.with_slots(newest_ring(location)[1], SECRET, add=[Key.new()], now_ns=1)[0]
    assert location.create("keys/00000002.json", ring)
    assert location.create("keys/00000003.json", keys.rotated(ring, SECRET, now_ns=1)[0])
    with Store.open(str(tmp_path / "new")) as store:
        store.copies.take_over("origin")
        assert slots(place) == 4 and not (own / "origin.ring").exists()
        tree = store.open_live("m")
        again = Maker(tree)
        again.file(b"once more", noise(50_000, 77))
        again.point(store)
        tree.close()
        assert upload(store, "origin") > 50_000
        assert store.check(read_data=True).problems == []


@pytest.mark.seldom
def test_another_master_key_since_is_said(
    engine: Store, grown: list[str], place: Place, tmp_path: Path
) -> None:
    filled(engine, place, [SECRET])
    adopted(tmp_path, place)
    location = place.location()
    ring = keys.rotated(newest_ring(location)[1], SECRET, master_for=[SECRET], now_ns=1, cost=CHEAP)
    assert location.create("keys/00000002.json", ring[0])
    before = place.everything()
    with Store.open(str(tmp_path / "new")) as store:
        with pytest.raises(PermissionDenied, match="adopt the location anew"):
            store.copies.take_over("origin")
        assert store.check(read_data=True).problems == []
        assert paused(store) == NOT_TAKEN_OVER
    assert place.everything() == before


@in_a_directory
def test_leave_to_read_is_enough(
    engine: Store, grown: list[str], place: Place, scratch: Path
) -> None:
    """Of its folders, that is; who may do what at a server is the server's business."""
    filled(engine, place, [SECRET])
    there = place.mirror(scratch / "there")
    for one in [there, *there.rglob("*")]:
        one.chmod(0o555 if one.is_dir() else 0o444)
    (scratch / "mine").mkdir(mode=0o777)
    for one in (scratch, scratch / "mine"):
        one.chmod(0o777)
    me = os.geteuid()
    try:
        if not me:
            os.seteuid(65534)
        with pytest.raises(PermissionError):
            (there / "probe").touch()
        url = f"file://{there}"
        assert Store.adopt(str(scratch / "mine" / "new"), url, SECRET).points == 3
        with Store.open(str(scratch / "mine" / "new")) as store:
            assert store.check(read_data=True).problems == []
    finally:
        os.seteuid(me)
        for one in [there, *there.rglob("*")]:
            one.chmod(0o700)


@in_a_directory  # whatever leaves the machine is sealed
def test_nothing_opens_what_is_not_sealed(
    engine: Store, grown: list[str], place: Place, tmp_path: Path
) -> None:
    opens(engine, place, tmp_path, None)


@pytest.mark.parametrize("kind", ["key", "both", "identity"])
@pytest.mark.seldom
def test_whatever_opens_it(
    engine: Store, grown: list[str], place: Place, tmp_path: Path, kind: str
) -> None:
    key = Key.new()
    opens(
        engine,
        place,
        tmp_path,
        {"key": key, "both": Both(SECRET, key), "identity": Identity.new()}[kind],
    )


def opens(
    engine: Store, place: Place, tmp_path: Path, opener: Key | Both | Identity | None
) -> None:
    """This opens it, and nothing else does."""
    secrets: list[Secret] = (
        [opener.recipient if isinstance(opener, Identity) else opener] if opener else []
    )  # type: ignore[list-item]
    wanted = Wanted(place.url, secrets, sealed=bool(opener))
    add(engine._open.context, "far", wanted, cost=CHEAP)
    upload(engine)
    url = place.url
    wrong = None if opener else SECRET
    with pytest.raises((InvalidRequest, PermissionDenied), match=r"sealed|passphrase"):
        Store.adopt(str(tmp_path / "new"), url, wrong)
    with pytest.raises(PermissionDenied):
        Store.adopt(str(tmp_path / "new"), url, Passphrase("another"))
    assert not (tmp_path / "new").exists() and not (tmp_path / "new.adopting").exists()
    assert Store.adopt(str(tmp_path / "new"), url, opener).points == 3
    with Store.open(str(tmp_path / "new")) as store:
        assert store.check(read_data=True).problems == []
    assert not (tmp_path / "new.adopting").exists()


@pytest.mark.seldom
def test_a_place_in_use_is_left_alone(
    engine: Store, grown: list[str], place: Place, tmp_path: Path
) -> None:
    filled(engine, place, [SECRET])
    before = place.everything()
    for name, inside in (("new", "mine"), ("new.adopting", "mine"), ("new.adopting", "store")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / inside).write_text("x")
        with pytest.raises(AlreadyExists):
            adopted(tmp_path, place)
        assert (folder / inside).read_text() == "x"
        shutil.rmtree(folder)
    folder = tmp_path / "new.adopting"  # somebody else's: his would be what becomes the store
    (tmp_path / "his").mkdir()
    folder.symlink_to(tmp_path / "his")
    with pytest.raises(AlreadyExists, match="another's"):
        adopted(tmp_path, place)
    folder.unlink()
    if os.geteuid() == 0:
        folder.mkdir()
        os.chown(folder, 65534, 65534)
        with pytest.raises(AlreadyExists, match="another's"):
            adopted(tmp_path, place)
        folder.rmdir()
    assert list((tmp_path / "his").iterdir()) == []
    assert place.everything() == before
    (tmp_path / "new").mkdir()
    assert adopted(tmp_path, place).points == 3
    with pytest.raises(AlreadyExists):
        adopted(tmp_path, place)


@pytest.mark.seldom
def test_another_writer_while_adopting(
    engine: Store,
    make: Maker,
    grown: list[str],
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from engine.copies.link import Link

    filled(engine, place, [SECRET])
    real = Link.take_over

    def late(link: Link) -> None:
        make.file(b"late", b"late")
        make.point(engine)
        upload(engine)
        real(link)

    monkeypatch.setattr(Link, "take_over", late)
    with pytest.raises(Busy, match="to be its last"):
        adopted(tmp_path, place, take_over=True)
    with Store.open(str(tmp_path / "new")) as store:
        assert paused(store) == NOT_TAKEN_OVER and len(store.points()) == 3


def test_wrong_credentials(
    engine: Store, grown: list[str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in server.credentials.items():
        monkeypatch.setenv(key, value)
    url = server.url()
    add(engine._open.context, "far", Wanted(url, [SECRET]), cost=CHEAP).location.close()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(LocationDenied):
        Store.adopt(str(tmp_path / "more"), url, SECRET)
    assert not (tmp_path / "more").exists() and not (tmp_path / "more.adopting").exists()
