"""Any tree a mount can have comes back equal, whole and in part."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Store, limits
from engine.keys import Key
from engine.live.tree import LiveTree
from tests.restore.support import Maker, noise, seen, wanted

NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
LONG = NAMES.map(lambda name: (name * 255)[:255])
TIMES = st.integers(1 - 2**31, 2**33).map(lambda seconds: seconds * 10**9 + 123_456_789)
PLACES = st.one_of(
    st.integers(0, 10),
    st.builds(
        lambda base, times, by: max(0, base * times + by),
        st.sampled_from([4096, limits.SLOT, limits.CHUNK_MAX, limits.SPAN]),
        st.integers(0, 5),
        st.integers(-3, 3),
    ),
)
WRITES = st.lists(st.tuples(PLACES, st.integers(1, 200_000), st.integers(0, 3)), max_size=4)
XATTRS = st.dictionaries(
    NAMES.filter(lambda name: len(name) < 12).map(lambda name: b"user." + name),
    st.one_of(st.binary(max_size=20), st.integers(200, 1000).map(noise)),
    max_size=2,
)


def attributes(**more: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "place": st.integers(0, 50),
            "name": st.one_of(NAMES, NAMES, LONG),
            "mode": st.integers(0, 0o7777),
            "owner": st.integers(0, 2**31),
            "mtime": TIMES,
            **more,
        }
    )


THINGS = st.one_of(
    attributes(kind=st.just("folder"), xattrs=XATTRS),
    attributes(kind=st.just("file"), xattrs=XATTRS, writes=WRITES, size=st.none() | PLACES),
    attributes(kind=st.just("link")),
    attributes(kind=st.just("symlink"), target=st.one_of(NAMES, st.just(b"t" * 4000))),
    attributes(kind=st.sampled_from(["fifo", "socket"])),
)


def grow(make: Maker, things: list[dict[str, Any]]) -> None:
    """Make what can be made of these; names that are taken are passed over."""
    folders, files = [b""], []
    set_at_last: list[tuple[int, dict[str, Any]]] = []
    for thing in things:
        parent = folders[thing["place"] % len(folders)]
        path = parent + b"/" + thing["name"] if parent else thing["name"]
        if path in make.inodes or len(path) > 3000:  # what reads it back goes by whole paths
            continue
        match thing["kind"]:
            case "folder":
                ino = make.folder(path)
                folders.append(path)
            case "file":
                ino = make.file(path)
                for at, size, seed in thing["writes"]:
                    make.tree.write(ino, at, noise(size, seed))
                if thing["size"] is not None:
                    make.tree.setattr(ino, size=thing["size"], now_ns=1)
                files.append(path)
            case "symlink":
                make.symlink(path, thing["target"])
                continue
            case "link":
                if files:
                    make.link(files[thing["place"] % len(files)], path)
                continue
            case kind:
                ino = make.special(
                    path, (stat.S_IFIFO if kind == "fifo" else stat.S_IFSOCK) | 0o600
                )
        for name, value in thing.get("xattrs", {}).items():
            make.tree.setxattr(ino, name, value)
        set_at_last.append((ino, thing))
    for ino, thing in set_at_last:
        owner = thing["owner"] if os.geteuid() == 0 else os.geteuid()
        make.tree.setattr(ino, uid=owner, gid=owner, now_ns=1)
        mode = thing["mode"] if os.geteuid() == 0 else thing["mode"] & 0o777 | 0o700
        make.tree.setattr(ino, mode=mode, mtime_ns=thing["mtime"], now_ns=1)


@pytest.fixture
def mounts(
    engine: Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Iterator[tuple[str, LiveTree]]]:
    """A mount of its own for each example: its name, its live tree."""
    monkeypatch.setattr("engine.restore.tree._sync", lambda fd: None)
    opened: list[LiveTree] = []

    def fresh() -> Iterator[tuple[str, LiveTree]]:
        for number in itertools.count():
            while opened:
                opened.pop().close()
            engine.create_mount(f"any{number}")
            opened.append(engine.open_live(f"any{number}"))
            yield f"any{number}", opened[-1]

    yield fresh()
    while opened:
        opened.pop().close()


@pytest.fixture(params=[False, True], ids=["plain", "sealed"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    seal = [Key(b"k" * 32)] if request.param else []
    Store.init(str(tmp_path / "store"), seal=seal)
    if seal:
        Store.open(str(tmp_path / "store"), key=seal[0]).close()  # from here on it is known
    return tmp_path / "store"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(things=st.lists(THINGS, max_size=25), again=st.lists(THINGS, max_size=5))
def test_any_tree_comes_back(
    engine: Store,
    mounts: Iterator[tuple[str, LiveTree]],
    tmp_path: Path,
    things: list[dict[str, Any]],
    again: list[dict[str, Any]],
) -> None:
    name, tree = next(mounts)
    make = Maker(tree)
    points = []
    for some in (things, again):
        grow(make, some)
        tree.barrier()
        points.append((engine.snapshot(name).id, wanted(tree)))
    out = os.fsencode(tmp_path / name)
    for point, expected in points:
        report = engine.restore(point, b"", out)
        assert seen(out) == expected
        assert report.damaged == report.skipped == []
        assert report.files == len(expected)
        shutil.rmtree(out)
    folders = [path for path, row in expected.items() if stat.S_ISDIR(row[0])]  # type: ignore[arg-type]
    for folder in folders[:1]:
        engine.restore(points[-1][0], folder, out)
        below = {
            p[len(folder) + 1 :]: row for p, row in expected.items() if p.startswith(folder + b"/")
        }
        assert {p: (*r[:4], *r[5:]) for p, r in seen(out).items()} == {
            p: (*r[:4], *r[5:]) for p, r in below.items()
        }  # links to what lies outside are not counted
        shutil.rmtree(out)
