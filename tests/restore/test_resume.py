"""A restore goes on where another was cut off: what is right stays, all else is as if it were the first."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engine import Store, limits
from engine.copies.connect import Wanted, add
from engine.errors import AlreadyExists, InvalidRequest, LocationUnavailable, NotFound
from engine.keys import Key
from engine.locations import Retry
from engine.restore import RestoreReport, resume
from tests.locations.faulty import Fail, Faulty
from tests.locations.places import Place
from tests.restore.support import Maker, Seen, noise, seen

MIB = 1 << 20
LARGE = 3 * limits.SPAN + 12_345


@pytest.fixture
def tree(engine: Store, make: Maker) -> str:
    """Large, with a hole at its beginning, in its middle and at its end; small, linked, and others."""
    make.folder(b"d", 0o750)
    large = make.file(b"d/large", b"")
    for at, size in ((8192, limits.SPAN), (2 * limits.SPAN + 4096, 500_000)):
        make.tree.write(large, at, noise(size, at))
    make.tree.setattr(large, size=LARGE, now_ns=1)
    make.file(b"small", noise(50_000, 1), 0o400)
    make.file(b"d/tiny", b"tiny")
    make.file(b"d/hollow", b"")
    make.tree.setattr(make.inodes[b"d/hollow"], size=100_000, now_ns=1)
    make.file(b"first", noise(70_000, 3))
    make.link(b"first", b"second")
    make.symlink(b"link", b"where")
    make.special(b"fifo", stat.S_IFIFO | 0o600)
    return make.point(engine)


@pytest.fixture
def whole(engine: Store, tree: str, tmp_path: Path) -> Seen:
    engine.restore(tree, b"", bytes(tmp_path / "whole"))
    return seen(bytes(tmp_path / "whole"))


def again(store: Store, point: str, out: bytes) -> RestoreReport:
    found = store.restore(point, b"", out, resume=True)
    assert found.damaged == []
    return found


def spoil(out: Path, outside: Path) -> None:
    """Everything that can be wrong with what is there."""
    outside.write_bytes(b"not ours" * 10_000)
    with (out / "d" / "large").open("r+b") as file:
        for at in (0, 100_000, limits.SPAN + 9000, 2 * limits.SPAN - 5, LARGE - 3):
            file.seek(at)
            file.write(b"other")
        file.seek(0, os.SEEK_END)
        file.write(b"more")
    os.setxattr(out / "d" / "large", "user.other", b"1")
    (out / "d" / "large").chmod(0o777)
    (out / "d" / "hollow").write_bytes(b"\0" * 50_000 + b"x")
    (out / "small").unlink()
    os.link(outside, out / "small")
    (out / "first").unlink()
    (out / "first").symlink_to(outside)
    (out / "second").unlink()
    (out / "link").unlink()
    (out / "link").write_bytes(b"no link")
    (out / "fifo").unlink()
    (out / "d" / "tiny").unlink()
    os.mkfifo(out / "d" / "tiny")


def test_whatever_is_there_it_ends_as_the_first(
    engine: Store, tree: str, whole: Seen, out: bytes, tmp_path: Path
) -> None:
    fresh = again(engine, tree, out)
    assert seen(out) == whole and fresh.kept == 0
    same = again(engine, tree, out)
    assert seen(out) == whole and same.kept > limits.SPAN and same.bytes < 200_000
    outside = tmp_path / "outside"
    spoil(Path(os.fsdecode(out)), outside)
    mended = again(engine, tree, out)
    assert seen(out) == whole and outside.read_bytes() == b"not ours" * 10_000
    assert mended.kept > limits.SPAN // 2
    holes = os.stat(os.path.join(out, b"d/large")).st_blocks * 512
    assert holes < limits.SPAN + MIB, "holes stay holes"
    with pytest.raises(AlreadyExists):
        engine.restore(tree, b"", out)


def test_links_in_the_place_of_directories_are_not_followed(
    engine: Store, tree: str, whole: Seen, out: bytes, tmp_path: Path
) -> None:
    again(engine, tree, out)
    outside = tmp_path / "outside"
    shutil.move(os.path.join(out, b"d"), bytes(outside))
    (outside / "large").write_bytes(b"not ours")
    os.symlink(bytes(outside), os.path.join(out, b"d"))
    with pytest.raises(AlreadyExists):
        again(engine, tree, out)
    assert (outside / "large").read_bytes() == b"not ours"


def test_several_paths_each_in_its_place(engine: Store, tree: str, whole: Seen, out: bytes) -> None:
    paths = [b"d/tiny", b"/second/", b"d/./large"]
    engine.restore(tree, paths, out)
    found = seen(out)
    assert set(found) == {b"d", b"d/tiny", b"d/large", b"second"}
    for name in (b"d", b"d/tiny", b"d/large"):
        assert found[name] == whole[name]
    assert again(engine, tree, out).kept > limits.SPAN and seen(out) == whole
    shutil.rmtree(out)
    engine.restore(tree, [b"d", b"d/tiny"], out)
    assert seen(out) == {k: v for k, v in whole.items() if k.split(b"/")[0] == b"d"}
    with pytest.raises(NotFound):
        engine.restore(tree, [b"d", b"first/none"], out)
    for wrong in ([], [b"/"], [b"d", b""]):
        with pytest.raises(InvalidRequest):
            engine.restore(tree, wrong, out)
    alone = os.path.join(out, b"alone")
    for _ in range(2):  # a file alone goes on as well
        engine.restore(tree, b"small", alone, resume=True)
    assert Path(os.fsdecode(alone)).read_bytes() == noise(50_000, 1)


def test_clearing_leaves_what_is_beside(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "one", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x" * 100_000, 4 * MIB)
    for start, end in ((0, MIB), (3 * MIB, 4 * MIB + 7), (4 * MIB + 50, 4 * MIB + 60)):
        resume.clear(fd, start, end)
    wanted = bytearray(4 * MIB + 100_000)
    wanted[4 * MIB :] = b"\0" * 7 + b"x" * 43 + b"\0" * 10 + b"x" * (100_000 - 60)
    assert os.pread(fd, 8 * MIB, 0) == wanted
    os.close(fd)


PROGRAM = """
import os, sys
from engine import Store
from engine.keys import Key
def slowly(state):
    os.write(1, b"%d\\n" % state.done)  # whole lines, whoever writes beside
    if state.done >= int(sys.argv[4]):
        sys.stdin.read()
with Store.borrow(sys.argv[1], Key(bytes(32)), scratch=sys.argv[3]) as store:
    store.restore("m@latest", b"", sys.argv[2].encode(), report=slowly)
"""


@pytest.fixture
def far(engine: Store, make: Maker, place: Place) -> tuple[str, bytes]:
    """URL of a location, and the content of the large file in its point."""
    data = noise(24 * MIB, 5)
    make.file(b"large", data)
    make.file(b"small", b"small")
    make.point(engine)
    add(engine._open.context, "far", Wanted(place.url, [Key(bytes(32))])).location.close()
    engine.copies.send("far")
    return place.url, data


def test_killed_in_its_middle_it_fetches_what_is_missing(
    far: tuple[str, bytes], out: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, data = far
    (tmp_path / "scratch").mkdir()
    where = [url, os.fsdecode(out), str(tmp_path / "scratch"), str(12 * MIB)]
    command = [sys.executable, "-c", PROGRAM, *where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 12 * MIB:
                break
        time.sleep(0.1)
        child.send_signal(signal.SIGKILL)
    partial = Path(os.fsdecode(out), "large").read_bytes()
    right = sum(
        partial[at : at + 65536] == data[at : at + 65536] for at in range(0, len(data), 65536)
    ) * 65536  # fmt: skip
    assert 11 * MIB < right < len(data)
    fetched = count(monkeypatch)
    with Store.borrow(url, Key(bytes(32)), scratch=str(tmp_path / "scratch")) as store:
        before = fetched()
        found = store.restore("m@latest", b"", out, resume=True)
        fetched_bytes = fetched() - before
    assert Path(os.fsdecode(out), "large").read_bytes() == data and found.damaged == []
    assert found.kept > right - 2 * MIB
    assert fetched_bytes < len(data) - found.kept + 3 * MIB
    assert list((tmp_path / "scratch").iterdir()) == [], "what the killed one left is gone too"


def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Bytes that come from locations from now on."""
    total = [0]
    real = Retry.ranges

    def ranges(self: Retry, name: str, parts: Sequence[tuple[int, int]]) -> list[memoryview]:
        found = real(self, name, parts)
        total[0] += sum(map(len, found))
        return found

    monkeypatch.setattr(Retry, "ranges", ranges)
    return lambda: total[0]


@pytest.mark.seldom
def test_only_what_is_needed_is_fetched(
    far: tuple[str, bytes], out: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = count(monkeypatch)
    with Store.borrow(far[0], Key(bytes(32)), scratch=str(tmp_path)) as store:
        store.restore("m@latest", b"small", out)
        assert fetched() <= 3 * limits.AWAY_BLOCK
        store.restore("m@latest", b"large", out + b"-large")
        assert fetched() < len(far[1]) * 1.1 + 3 * limits.AWAY_BLOCK


def test_a_location_that_is_gone_ends_it_and_it_goes_on_later(
    far: tuple[str, bytes], out: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.copies import fetch

    url, data = far
    with Store.borrow(url, Key(bytes(32)), scratch=str(tmp_path)) as store:
        real = fetch.Fetcher._opened

        def faulty(self: fetch.Fetcher, name: str) -> object:
            link = real(self, name)
            gone = link.location = Faulty(link.location)
            gone.on("ranges", Fail(LocationUnavailable("a server")), times=-1, after=3)
            return link

        with monkeypatch.context() as patch:
            patch.setattr(fetch.Fetcher, "_opened", faulty)
            with pytest.raises(LocationUnavailable):
                store.restore("m@latest", b"", out)
    with Store.borrow(url, Key(bytes(32)), scratch=str(tmp_path)) as store:
        assert store.restore("m@latest", b"", out, resume=True).damaged == []
    assert Path(os.fsdecode(out), "large").read_bytes() == data
