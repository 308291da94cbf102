"""The parts of the rigs that kill: what a point may hold, the book of points, chance of rests, what is heard."""

from __future__ import annotations

import importlib
import logging
import operator
import random
from contextlib import closing
from pathlib import Path

import pytest

from tools.torture.history import History, Meta, Op, Seen
from tools.torture.kill import service
from tools.torture.kill.asking import LostError, Phoenix
from tools.torture.kill.bare import Intruder
from tools.torture.kill.book import fingerprint, fingerprint_of
from tools.torture.kill.clients import ACTS, Client
from tools.torture.kill.daemons import FIRST, OTHERS
from tools.torture.kill.fuzz import Fuzz
from tools.torture.kill.heard import heard
from tools.torture.kill.races import MOMENTS, cases
from tools.torture.kill.writers import Asked, Pages, Stream
from tools.torture.rig import Job


def done(history: History, *ops: Op) -> None:
    for op in ops:
        history.begin(op)
        history.done(op)


def test_a_snapshot_that_was_asked_for_may_hold_what_a_later_fsync_settled_and_not_less_than_before() -> (
    None
):
    history = History()
    done(history, Op("create", b"f", number=0o644), Op("write", b"f", number=0, data=b"old"))
    asked = Asked(history)
    later = [Op("write", b"f", number=0, data=b"new"), Op("fsync", b"f"), Op("unlink", b"f")]
    for op in later:
        asked.history.begin(op)
        asked.history.finished = asked.history.begun
    done(history, *later)
    picture = asked.history.picture(asked.floor)

    def seen(data: bytes) -> dict[bytes, Seen]:
        return {b"f": Seen(Meta("f", 0o644), 7, data)}

    assert [bool(picture.misfit(seen(data))) for data in (b"old", b"new", b"nld", b"")] == [
        False, False, False, True,
    ]  # fmt: skip
    assert picture.misfit({}) == ""


@pytest.mark.parametrize("kind", [Stream, Pages])
def test_sources_ask_only_for_what_can_be_done(kind: type[Stream | Pages]) -> None:
    history = History()
    source = kind(random.Random(1), history)
    for _ in range(300):
        done(history, source.next())
    assert history.contents


def test_a_fingerprint_tells_content_names_and_links() -> None:
    history = History()
    done(history, Op("create", b"a", number=0o644), Op("link", b"a", b"b"))
    done(history, Op("mkdir", b"d", number=0o755))
    seen = {
        b"b": Seen(Meta("f", 0o644), 40),
        b"a": Seen(Meta("f", 0o644), 40),
        b"d": Seen(Meta("d", 0o755), 41),
    }
    assert fingerprint(seen) == fingerprint_of(history)
    for path, other in ((b"a", {"ino": 42}), (b"a", {"data": b"x"}), (b"d", {"ino": 40})):
        assert fingerprint({**seen, path: seen[path]._replace(**other)}) != fingerprint_of(history)


def test_rests_are_those_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tools.torture.kill.fuzz.time.sleep", slept.append)
    beats: list[None] = []
    runs = []
    for _ in range(2):
        fuzz = Fuzz(random.Random(3), lambda: beats.append(None))
        for _ in range(1000):
            fuzz.rest()
        runs.append(tuple(slept))
        slept.clear()
    assert runs[0] == runs[1]
    assert 0 < len(runs[0]) < 500
    assert len(beats) == 2000


def test_what_the_engine_says_is_heard_and_goes_no_further() -> None:
    with heard() as said:
        logging.getLogger("holdfast.engine").warning("pack %d", 3)
        logging.getLogger("holdfast.engine").info("not this")
    assert said == ["pack 3"]


def test_every_order_is_a_case_once(tmp_path: object) -> None:
    job = Job("kill-races", 1, 1.0, tmp_path)  # type: ignore[arg-type]
    found = cases(job)
    assert len(found) == len(set(found)) == 7 * MOMENTS * (MOMENTS + 1) // 2
    assert len(cases(Job("kill-races", 1, 0.1, tmp_path))) == round(len(found) * 0.1)  # type: ignore[arg-type]


def test_moments_are_of_functions_there_are_and_lead_there_by_what_clients_can_ask() -> None:
    for moment in service.MOMENTS.values():
        owner = importlib.import_module(moment.module)
        assert callable(operator.attrgetter(moment.name)(owner)), moment
        assert not moment.act or hasattr(Client, f"_{moment.act}"), moment
    for plan in (*FIRST, *OTHERS):
        assert plan.removeprefix("answer ") in {plan, "begin", *ACTS}
    assert not any(name.startswith("answer ") for name in service.MOMENTS)


def test_who_gets_no_answer_is_told_so() -> None:
    with closing(Phoenix("127.0.0.1:1", "a")) as phoenix, pytest.raises(LostError):
        phoenix.begin()


def test_what_lands_beside_the_store_is_seen(tmp_path: Path) -> None:
    place = tmp_path / "mnt" / "a"
    place.mkdir(parents=True)
    intruder = Intruder([place])
    intruder._files = [place / "intruder"]
    with intruder.at_work():
        while not intruder.landed:
            pass
    assert set(intruder.landed) == {str(place / "intruder")}
