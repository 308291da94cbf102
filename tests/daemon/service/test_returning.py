"""What the service kept with points comes back from a location: all of it, once, and retention waits for it."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Config, Mount
from daemon.config.writing import mount_table
from daemon.contract import LocationSpec, MountSpec
from daemon.service import Service, adopting, returning
from daemon.service.copies import ADOPTED, SETTINGS
from daemon.service.extras import Kept
from daemon.service.sending import kept, settings_of
from daemon.state import State
from engine import Store
from engine.copies import extras as copies_extras
from engine.keys import Key
from engine.maintain.refill import AdoptReport
from tests.cli.support import good, holdfast
from tests.daemon.service.support import fill, new_store, served, settings
from tests.locations.places import Place

RMAN = b"connected to target database: ORCL (DBID=1)\npiece handle=/b/one.bkp tag=T\n"
POLICY: dict[str, Any] = {
    "snapshots": "every 6h", "keep": {"last": 1}, "quota": 1 << 40,
    "hooks": {"after_commit": {"command": ["/bin/echo", 'say "ü\t\U0001f600"']}},
    "exports": [{"client": "10.1.0.0/16"}],
}  # fmt: skip
LOG = os.urandom(3 << 20)
KEY = Key(bytes(range(32)))


@dataclass
class Lost:
    """A store that is gone, but not what lay at its location. ``points``: oldest first; ``kept``: of each, what its
    state had."""

    there: Path
    points: list[str]
    kept: dict[str, Kept]
    logs: int


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Lost:
    base = tmp_path_factory.mktemp("lost")
    place = Place(base / "there")
    path = str(base / "store")
    new_store(path)
    policy = {**POLICY, "hooks": {}}
    with served(path, settings(path, {"m": policy})) as service:
        service.create_mount(MountSpec("m"))
        fill(path, "m", {"one.bkp": b"x", "two.bkp": b"y"})
        first = service.snapshot("m").point.id
        service.add_location(LocationSpec("far", place.url, keys=[KEY.printed()]))
        assert service.start_job("upload", {"location": "far"}).state == "done"
        service.keep(first)  # said after it was sent
        session = service.begin("m", holder="me", label="night")
        service.attach_log(session.id, "rman.log", [RMAN])
        service.attach_log(session.id, "long.log", [LOG])
        second = service.commit(session.id).detail.point.id
        third = service.snapshot("m").point.id
        assert service.start_job("upload", {"location": "far"}).state == "done"
        points = [first, second, third]
        return Lost(place.root, points, {one: kept(service.state, one) for one in points}, 2)


@pytest.fixture
def there(lost: Lost, place: Place) -> Place:
    place.fill(lost.there)
    return place


def adopted(tmp_path: Path, there: Place) -> str:
    def furnish(at: str, found: AdoptReport) -> None:
        assert adopting.furnish(at, found.settings) == []

    path = str(tmp_path / "new")
    Store.adopt(path, there.url, KEY, furnish=furnish)
    return path


@pytest.fixture
def service(tmp_path: Path, there: Place) -> Iterator[Service]:
    path = adopted(tmp_path, there)
    with served(path, settings(path, {"m": {"keep": {"last": 1}}})) as one:
        yield one


def all_of(service: Service, lost: Lost) -> dict[str, Kept]:
    return {point: kept(service.state, point) for point in lost.points}


def test_all_comes_back_once(service: Service, lost: Lost) -> None:
    assert returning.missing(service.store, service.state) == sorted(lost.points)
    found = returning.give_back(service.store, service.state)
    assert (found.points, found.attachments, found.kept, found.lost) == (3, lost.logs, 1, [])
    assert all_of(service, lost) == lost.kept
    detail = service.point(lost.points[1])
    assert service.session(detail.session).holder == "me"
    assert service.databases(lost.points[1]) == {"ORCL": 1}
    assert service.files_of(lost.points[1], "ORCL") == ["one.bkp"]
    assert b"".join(service.attachment(detail.attachments[1].id)[1]) == LOG
    assert returning.give_back(service.store, service.state).points == 0
    service.prune()
    assert service.session(detail.session).point == lost.points[1]
    assert tomllib.loads((Path(service.path) / adopting.FILE).read_text())["mounts"]["m"]["quota"]


def test_the_command_gives_all_back(lost: Lost, there: Place, tmp_path: Path) -> None:
    new, key = tmp_path / "new", tmp_path / "key"
    key.touch(0o600)
    key.write_text(KEY.printed())
    words = ("adopt", there.url, "--key-file", str(key))
    told = json.loads(good(holdfast(new, *words, "--json")))
    assert told["returned"] == {
        "points": 3, "attachments": 2, "kept": 1, "lost": [], "waiting": 0, "why": "",
    }  # fmt: skip
    assert told["configuration"] == str(new / adopting.FILE) and told["left_out"] == 0
    shutil.rmtree(new)
    said = good(holdfast(new, *words))
    assert "3 points is back: 2 attachments, 1 marked" in said and str(adopting.FILE) in said
    assert '"kept": true' in good(holdfast(new, "show", lost.points[0], "--json"))


@pytest.mark.seldom
def test_a_state_that_was_lost_comes_back(service: Service, lost: Lost) -> None:
    service.give_back()
    service.state.close()
    for name in os.listdir(os.path.join(service.path, "daemon")):
        if name.startswith("state.db"):
            os.unlink(os.path.join(service.path, "daemon", name))
    with State.open(service.path) as state, Store.open(service.path) as store:
        assert returning.give_back(store, state).points == 3
        assert {point: kept(state, point) for point in lost.points} == lost.kept


@pytest.mark.seldom
def test_whoever_is_killed_is_followed_by_the_next(
    service: Service, lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    write = service.state.database.write
    last = 0
    for deadline in range(1, 100):
        left = [deadline]

        def killed(left: list[int] = left) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return write()

        with monkeypatch.context() as patch:
            patch.setattr(service.state.database, "write", killed)
            try:
                found = returning.give_back(service.store, service.state)
            except KilledError:
                assert len(returning.missing(service.store, service.state)) in (1, 2, 3)
                continue
        assert not found.waiting
        last = deadline
        break
    assert last > 8
    assert all_of(service, lost) == lost.kept
    with service.state.database.read() as db:
        assert db.execute("SELECT count(*) FROM attachments").fetchone()[0] == lost.logs
        assert db.execute("SELECT count(*) FROM attachment_parts").fetchone()[0] == 4


def test_retention_waits_until_it_is_known_what_is_kept(
    service: Service, lost: Lost, there: Place, expect_log: Any
) -> None:
    first, second, third = lost.points
    assert service.expire("m", service.clock()) == []
    there.gone()
    expect_log("not back yet")
    service.give_back()
    assert service.expire("m", service.clock()) == []
    there.back()
    service.give_back()
    assert [one.id for one in service.expire("m", service.clock())] == [second]
    assert {one.id for one in service.store.points()} == {first, third}


@pytest.mark.seldom
def test_what_is_said_here_counts_more(service: Service, lost: Lost) -> None:
    first, second, _ = lost.points
    service.keep(first, kept=False)
    service.keep(second)
    assert [one.id for one in service.expire("m", service.clock())] == [first]
    service.give_back()
    assert service.point(second).kept and service.point(second).consistency == "consistent"
    assert service.databases(second) == {"ORCL": 1}
    assert not service.state.marks.names("half ")


@pytest.mark.parametrize("bytes_", [b"", b"HFX1\xff\xff\xff\xff", b"HFX1\x00\x00\x00\x02{}"])
@pytest.mark.seldom
def test_what_cannot_be_read_costs_its_own_point_only(
    service: Service, lost: Lost, monkeypatch: pytest.MonkeyPatch, bytes_: bytes
) -> None:
    _, second, third = lost.points
    read = copies_extras.extras

    def damaged(store: Any, point: str) -> Iterator[bytes]:
        return iter([bytes_]) if point == second else read(store, point)

    with monkeypatch.context() as patch:
        patch.setattr(copies_extras, "extras", damaged)
        found = returning.give_back(service.store, service.state)
        assert found.points == 2 and len(found.lost) == 1 and second in found.lost[0]
        assert service.expire("m", service.clock()) == []  # as long as nobody says otherwise
        again = returning.give_back(service.store, service.state)
        assert again.points == 0 and "keep" not in again.lost[0]
    assert service.point(second).kept
    assert any(second in one.thing for one in service.store.incidents.known())
    assert returning.give_back(service.store, service.state).points == 1  # it was mended
    service.keep(second, kept=False)
    assert [one.id for one in service.expire("m", service.clock())] == [second]
    assert all_of(service, lost)[third] == lost.kept[third]


def test_a_pack_that_is_damaged(service: Service, lost: Lost, there: Place) -> None:
    for name in there.names("packs/"):
        there.flip(name, 70)
    shutil.rmtree(os.path.join(service.path, "cache"), ignore_errors=True)
    found = returning.give_back(service.store, service.state)
    assert found.points + len(found.lost) == 3 and found.lost


@pytest.mark.seldom
def test_two_at_once(service: Service) -> None:
    from daemon.service.core import alone
    from engine.errors import Busy

    with alone(service.path, returning.LOCK, "it", 0):
        with pytest.raises(Busy):
            returning.give_back(service.store, service.state)
        service.give_back()
    assert service.point("m@latest").session == ""


def test_tables_of_mounts_are_those_that_were(tmp_path: Path) -> None:
    mount = Mount.model_validate(POLICY)
    text = mount_table("a.b", mount)
    assert Mount.model_validate(tomllib.loads(text)["mounts"]["a.b"]) == mount
    assert isinstance(Config.model_validate({"store": "/s", **tomllib.loads(text)}), Config)
    store = tmp_path / "store"
    store.mkdir()
    wrong: dict[str, Any] = {
        "x": {"configuration": {"quota": -1}},
        "y": {"configuration": [1]},
        "z": {},
    }
    assert len(adopting.furnish(str(store), wrong)) == 2
    assert os.listdir(store) == []
    assert adopting.furnish(str(store), {**wrong, "a.b": {"configuration": POLICY}})
    assert tomllib.loads((store / adopting.FILE).read_text()) == tomllib.loads(text)
    with State.open(str(store)) as state:
        assert state.marks.names(ADOPTED) == [ADOPTED + "a.b"] and not state.marks.names(SETTINGS)


@pytest.mark.seldom
def test_settings_are_sent_on_until_the_configuration_has_its_own(service: Service) -> None:
    def sent() -> Any:
        return settings_of(service.store, service.state, "m")["configuration"]

    before = sent()
    assert before["keep"] == POLICY["keep"] and before["exports"]
    service.keep_settings("m")  # as a drill does, whose hooks are never those of another machine
    assert sent() == before
    service._prepare_upload("origin")
    assert sent() == {"keep": {"last": 1}}
