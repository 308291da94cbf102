"""Whoever sends, frees or adopts at a server, killed at one request after another: what is there is always sound.

At steps of this machine's disk: test_adopt_killed.py, test_reclaim_killed.py.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from engine import Store, keys
from engine.copies.connect import open_link
from engine.copies.rings import newest_ring
from tests import warm
from tests.copies.test_reach import grown, reached
from tests.copies.test_upload import link, read_all
from tests.locations.places import KINDS, Remote
from tests.locations.proxy import Call

__all__ = ["grown", "link"]
LIMIT = 60.0
pytestmark = [pytest.mark.parametrize("place", KINDS[1:], indirect=True), pytest.mark.seldom]


def killed(place: Remote, at: int, *words: str) -> bool:
    """Run it; it is killed at this request, before the server has it or (every other one) after. Did it end before?"""
    count, child = 0, None

    def kill(path: str) -> None:
        nonlocal count
        count += 1
        if count == (at + 1) // 2 and child is not None:
            child.kill()

    place.proxy.next(Call(kill, after=at % 2), times=-1)
    try:
        child = warm.start(words, program="tests.copies.far_work:main")
        status = child.wait(LIMIT)
    finally:
        place.proxy.clear()
    assert status in (0, -signal.SIGKILL)
    return status == 0


def sound(engine: Store, points: list[str]) -> list[str]:
    """Points that are there, each of them whole; the last ``points`` cannot have gone."""
    chain, ids = read_all(open_link(engine._open.context, "far"))
    for point in set(chain.state.points) & set(points):
        assert reached(engine, point) <= ids
    return list(chain.state.points)


def test_sending_freeing_and_adopting(
    engine: Store, link: object, grown: list[str], place: Remote, tmp_path: Path
) -> None:
    runs = 1
    while not killed(place, runs, "send", engine.path):
        there = sound(engine, grown)
        assert there == grown[: len(there)]
        runs += 1
    assert runs > 10 and sound(engine, grown) == grown
    engine.remove_points(grown[:2])
    engine.collect()
    freed = 1
    while not killed(place, freed, "reclaim", engine.path):
        assert grown[2] in sound(engine, grown[2:])
        freed += 1
    assert freed > 10 and sound(engine, grown[2:]) == grown[2:]
    new, tries = tmp_path / "new", 1
    while not new.exists():
        assert not killed(place, tries, "adopt", str(new), place.url)
        assert not new.exists() or whole(new)
        tries += 4
    taking = 1
    while not killed(place, taking, "take-over", str(new)):
        assert whole(new)
        taking += 2
    assert tries > 20 and taking > 10 and whole(new)
    ring = newest_ring(place.location())[1]
    assert len(keys.facts(ring).slots) == 3, "an earlier try's key is used again"


def whole(new: Path) -> bool:
    with Store.open(str(new)) as store:
        return store.check(read_data=True).problems == [] and len(store.points()) == 1
