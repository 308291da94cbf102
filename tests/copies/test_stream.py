"""A point that streams in: read at once, all of it near in the end, and ended at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store
from engine.copies import fetch
from engine.copies.connect import Wanted, add
from engine.copies.link import Link
from engine.errors import LocationUnavailable
from engine.locations.retry import Retry
from tests.copies.test_upload import CHEAP, SECRET
from tests.locations.faulty import Delay, Fail, Faulty
from tests.locations.places import Place
from tests.restore.support import Maker, noise

__all__ = []
DATA = noise(24 << 20, 3)


@pytest.fixture
def url(engine: Store, make: Maker, place: Place) -> str:
    make.folder(b"d")
    make.file(b"d/large", DATA)
    make.file(b"small", b"small")
    make.point(engine)
    add(engine._open.context, "far", Wanted(place.url, [SECRET]), cost=CHEAP).location.close()
    engine.copies.send("far")
    return place.url


def through(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Faulty], object]
) -> list[tuple[str, str]]:
    """Calls of the location, which is faulty from now on, beneath the retries."""
    real = fetch.Fetcher._opened
    calls: list[tuple[str, str]] = []

    def opened(self: fetch.Fetcher, name: str) -> Link:
        link = real(self, name)
        faulty = Faulty(link.location)
        faulty.calls = calls
        change(faulty)
        link.location = Retry(faulty)
        return link

    monkeypatch.setattr(fetch.Fetcher, "_opened", opened)
    return calls


def test_who_reads_goes_first_and_all_comes(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = through(monkeypatch, lambda one: one.on("ranges", Delay(0.2), times=-1))
    with Store.borrow(url, SECRET, scratch=str(tmp_path)) as store:
        stream = store.stream("m@latest")
        view = stream.view
        begun = time.monotonic()
        assert view.read(view.find(b"d/large"), len(DATA) - 9000, 9000) == DATA[-9000:]
        assert time.monotonic() - begun < 1.9 and not stream.done.is_set()
        assert stream.done.wait(30)
        calls.clear()
        assert view.read(view.find(b"d/large"), 0, len(DATA)) == DATA and calls == []
        stream.close()


def test_it_ends_while_the_location_is_gone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Fail(LocationUnavailable("a server"))
    through(monkeypatch, lambda one: one.on("ranges", gone, times=-1))
    with Store.borrow(url, SECRET, scratch=str(tmp_path)) as store:
        stream = store.stream("m@latest")
        time.sleep(0.2)
        begun = time.monotonic()
        stream.close()
        assert time.monotonic() - begun < 5 and stream.done.is_set()
