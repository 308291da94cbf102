"""Helping processes of a restore: they do what a thread does, and their death costs nothing."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import Store, limits
from engine.live import ROOT, Ctx
from engine.restore import helper as helping
from engine.restore import job as jobs
from engine.restore.trays import Trays

CTX = Ctx(0, 0)
SIZE = 9 * limits.SPAN + 12_345


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with one point of a large file that has a hole."""
    monkeypatch.setattr(jobs, "HELP_FROM", 1)
    monkeypatch.setattr("engine.restore.tree.HELP_FROM", 1)
    Store.init(str(tmp_path / "store"))
    with Store.open(str(tmp_path / "store")) as one:
        one.create_mount("m")
        tree = one.open_live("m")
        ino = tree.create(ROOT, b"disk.img", 0o640, CTX).ino
        for number in (0, 1, 2, 3, 6, 7, 8, 9):
            size = min(limits.SPAN, SIZE - number * limits.SPAN)
            tree.write(ino, number * limits.SPAN, random.Random(number).randbytes(size))
        tree.barrier()
        one.snapshot("m")
        yield one
        tree.close()


def content(store: Store) -> bytes:
    view = store.view("m@latest")
    entry = view.find(b"disk.img")
    return view.read(entry, 0, entry.size)


class Waited(helping.Helper):
    """One that is asked from the start, however long it takes to be ready."""

    asked = 0
    _turn = threading.RLock()

    def ready(self) -> bool:
        with self._turn:
            while not super().ready():
                time.sleep(0.001)
        return True

    def write_span(self, *arguments: object) -> tuple[int, list[str]]:
        with self._turn:
            type(self).asked += 1
            return super().write_span(*arguments)  # type: ignore[arg-type]


def asked_by_all(job: jobs.Job) -> None:
    """For ``Job._take_helper``: whichever thread has something to write asks the first helper."""
    job._mine.helper = job._helpers[0] if job._helpers else None


class Dying(Waited):
    """One that is killed when it is asked."""

    def write_span(self, *arguments: object) -> tuple[int, list[str]]:
        self._process.kill()
        self._process.wait()
        return super().write_span(*arguments)


def test_helpers_write_what_threads_write(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "Helper", Waited)
    monkeypatch.setattr(jobs.Job, "_take_helper", asked_by_all)
    Waited.asked = 0
    store.restore("m@latest", b"", os.fsencode(tmp_path / "out"))
    assert Waited.asked > 0
    made = tmp_path / "out" / "disk.img"
    assert made.read_bytes() == content(store)
    assert made.stat().st_blocks * 512 <= SIZE - limits.SPAN  # the hole is one


def test_a_helper_that_dies_costs_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    monkeypatch.setattr(jobs, "Helper", Dying)
    expect_log("helping process")
    result = store.restore("m@latest", b"", os.fsencode(tmp_path / "out"))
    assert result.damaged == []
    assert (tmp_path / "out" / "disk.img").read_bytes() == content(store)


def test_a_helper_says_what_cannot_be_read(store: Store, tmp_path: Path) -> None:
    whole = content(store)
    view = store.view("m@latest")
    extents = view.span(view.find(b"disk.img"), 1)
    row = store._open.reader.row(extents[5][2])
    assert row is not None
    with open(store._open.context.files.segment_path(row.pack), "r+b") as file:
        file.seek(row.offset + row.stored - 20)
        file.write(b"\xff\x00" * 8)
    trays = Trays()
    helper = Waited(store.path, trays.fd)
    try:
        with (tmp_path / "out").open("wb") as out:
            assert helper.ready()
            written, damaged = helper.write_span(out.fileno(), 0, extents)
    finally:
        helper.close()
        trays.close()
    assert written == limits.SPAN - limits.SLOT
    first = 5 * limits.SLOT
    assert [
        f"bytes {first} to {first + limits.SLOT} cannot be read" in text for text in damaged
    ] == [True]
    made = (tmp_path / "out").read_bytes()
    expected = bytearray(whole[limits.SPAN : 2 * limits.SPAN])
    expected[first : first + limits.SLOT] = bytes(limits.SLOT)
    assert made == expected


def test_an_error_of_writing_is_the_restores(store: Store, tmp_path: Path) -> None:
    view = store.view("m@latest")
    extents = view.span(view.find(b"disk.img"), 0)
    trays = Trays()
    helper = Waited(store.path, trays.fd)
    (tmp_path / "readonly").write_bytes(b"")
    fd = os.open(tmp_path / "readonly", os.O_RDONLY)
    try:
        assert helper.ready()
        with pytest.raises(OSError, match="Bad file descriptor"):
            helper.write_span(fd, 0, extents)
    finally:
        os.close(fd)
        helper.close()
        trays.close()
    assert helper._process.returncode == 0
