"""Every kind of location keeps the promises of ``engine.locations.contract``."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine import limits
from engine.errors import Corrupt, InvalidRequest, NotFound, Unsupported
from engine.locations import Location
from engine.locations.contract import Stat


def names(stats: Iterable[Stat]) -> list[str]:
    return [one.name for one in stats]


def test_what_is_put_is_read(location: Location) -> None:
    data = secrets.token_bytes(5_000)
    before = time.time_ns()
    location.put("packs/ab/one", data)
    assert location.read("packs/ab/one") == data
    assert type(location.read("packs/ab/one")) is bytes
    assert location.read("packs/ab/one", 100) == data[100:]
    assert location.read("packs/ab/one", 100, 50) == data[100:150]
    assert location.read("packs/ab/one", 5_000) == location.read("packs/ab/one", 7, 0) == b""
    stat = location.stat("packs/ab/one")
    assert (stat.name, stat.size) == ("packs/ab/one", 5_000)
    assert abs(stat.modified_ns - before) < 30e9


@pytest.mark.parametrize("kind_of_buffer", [bytes, bytearray, memoryview])
def test_buffers(location: Location, kind_of_buffer: Callable[[bytes], bytes]) -> None:
    location.put("a", kind_of_buffer(b"content"))
    assert location.create("b", kind_of_buffer(b"more"))
    assert location.read("a") == b"content" and location.read("b") == b"more"


def test_nothing_in_it(location: Location) -> None:
    location.put("empty", b"")
    assert location.create("empty2", b"")
    assert (
        location.read("empty") == location.read("empty2") == b""
        and location.stat("empty").size == 0
    )
    assert location.ranges("empty", [(0, 0)]) == [b""]


def test_larger_than_a_part(location: Location) -> None:
    data = secrets.token_bytes(limits.PUT_PART * 2 + 12_345)
    location.put("large", memoryview(data))
    assert location.stat("large").size == len(data)
    assert location.read("large") == data
    location.remove(["large"])


def test_what_is_not_there(location: Location) -> None:
    location.put("packs/there", b"x")
    for name in ("nothing", "packs/nothing", "packs", "no/folder/here"):
        for ask in (
            lambda name=name: location.read(name),
            lambda name=name: location.read(name, 0, 5),
            lambda name=name: location.read(name, 0, 0),
            lambda name=name: location.ranges(name, [(0, 5)]),
            lambda name=name: location.ranges(name, []),
            lambda name=name: location.stat(name),
        ):
            with pytest.raises(NotFound, match=name):
                ask()


def test_never_fewer_bytes_than_asked_for(location: Location) -> None:
    location.put("short", b"0123456789")
    for offset, length in ((0, 11), (5, 6), (10, 1), (99, 1), (0, 1 << 40), (11, -1)):
        with pytest.raises(Corrupt, match="short"):
            location.read("short", offset, length)
    with pytest.raises(Corrupt):
        location.ranges("short", [(0, 3), (8, 3)])
    with pytest.raises(InvalidRequest):
        location.ranges("short", [(-1, 3)])
    with pytest.raises(InvalidRequest):
        location.read("short", -1, 3)


def test_ranges(location: Location) -> None:
    data = secrets.token_bytes(3 * limits.RANGE_GAP)
    location.put("ranged", data)
    far = 2 * limits.RANGE_GAP + 500
    parts = [(far, 100), (0, 10), (5, 20), (1000, 0), (30, 40), (far + 50, 10), (0, 10)]
    assert location.ranges("ranged", parts) == [data[at : at + size] for at, size in parts]


def test_create_is_for_one_only(location: Location) -> None:
    assert location.create("journal/0001", b"first") is True
    assert location.create("journal/0001", b"second") is False
    assert location.create("journal/0001", b"first") is False
    assert location.read("journal/0001") == b"first"
    assert location.features().create
    assert names(location.list("")) == ["journal/0001"]


def test_create_by_eight_threads(location: Location) -> None:
    for name in ("j/1", "j/2", "j/3"):
        gate = threading.Barrier(8)

        def attempt(number: int, gate: threading.Barrier = gate, name: str = name) -> bool:
            gate.wait()
            return location.create(name, b"%d" % number * 1000)

        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(attempt, range(8)))
        assert made.count(True) == 1
        assert location.read(name) == b"%d" % made.index(True) * 1000


def test_lists_are_in_order_of_names(location: Location) -> None:
    made = [
        "a",
        "a-b",
        "a.b",
        "b/c",
        "b/c-d",
        "b-c/x",
        "b/d/e",
        "b.c",
        "c",
        "packs/00/x",
        "packs/ff/y",
    ]
    for name in made:
        location.put(name, name.encode())
    expected = sorted(made)
    assert names(location.list("")) == expected
    assert [one.size for one in location.list("")] == [len(name) for name in expected]
    assert names(location.list("b/")) == ["b/c", "b/c-d", "b/d/e"]
    assert names(location.list("b")) == ["b-c/x", "b.c", "b/c", "b/c-d", "b/d/e"]
    assert names(location.list("packs/f")) == ["packs/ff/y"]
    assert names(location.list("nothing/")) == []
    for after in ("a", "a-b", "b/", "b/c", "b/cc", "b/zzz", "c", "packs/00/x", "zz"):
        assert names(location.list("", after)) == [name for name in expected if name > after]
    assert names(location.list("b/", "b/c")) == ["b/c-d", "b/d/e"]


def test_remove(location: Location) -> None:
    for name in ("x/1", "x/2", "x/3"):
        location.put(name, b"1")
    location.remove(["x/1", "never/there", "x/3", "x/1"])
    location.remove(["x/1"])
    location.remove([])
    assert names(location.list("")) == ["x/2"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "..",
        "a/../b",
        "./a",
        ".tmp/x",
        "a b",
        "a\0",
        "ä",
        "a\n",
        "a" * 201,
        "a\\b",
        "a/.b",
    ],
)
def test_names_that_no_location_takes(location: Location, name: str) -> None:
    for ask in (
        lambda: location.put(name, b""),
        lambda: location.create(name, b""),
        lambda: location.read(name),
        lambda: location.ranges(name, [(0, 1)]),
        lambda: location.stat(name),
        lambda: location.remove([name]),
    ):
        with pytest.raises(InvalidRequest, match="name at a storage location"):
            ask()


def test_retention_where_there_is_none(location: Location) -> None:
    location.put("kept", b"1")
    assert not location.features().lock
    with pytest.raises(Unsupported):
        location.retain("kept", int(time.time()) + 100)


def test_many_threads(location: Location) -> None:
    def work(number: int) -> None:
        name, data = f"t/{number}", b"%d" % number * 500
        location.put(name, data)
        assert location.read(name) == data and location.stat(name).size == len(data)
        assert location.ranges(name, [(0, 1), (len(data) - 1, 1)]) == [data[:1], data[-1:]]
        location.remove([name])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(32)))
    assert names(location.list("")) == []
