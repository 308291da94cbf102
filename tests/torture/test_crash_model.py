"""The recorder of calls and the model of the disk: what they say of traces that are known by heart."""

from __future__ import annotations

import itertools
import os
import random
import sys
from pathlib import Path

import pytest

from tools.torture import needs
from tools.torture.crash import trace
from tools.torture.crash.disk import STYLES, Disk, State, Style
from tools.torture.crash.trace import Event

STYLE = {style.name: style for style in STYLES}


def left(disk: Disk, style: Style | str, seed: int = 1) -> dict[str, bytes | None]:
    chosen = STYLE[style] if isinstance(style, str) else style
    return disk.state(chosen, random.Random(seed)).entries


def fed(*events: Event) -> Disk:
    disk = Disk()
    for event in events:
        disk.feed(event)
    return disk


def event(kind: str, path: str, at: int, **more: object) -> Event:
    return Event(kind, path, at, at, **more)  # type: ignore[arg-type]


def test_what_is_not_synced_may_be_gone() -> None:
    disk = fed(event("create", "a", 1), event("write", "a", 2, data=b"abc"))
    assert left(disk, "kept") == {"a": b"abc"}
    assert left(disk, "dropped") == {}
    assert left(disk, "names") == {"a": b""}
    assert left(disk, "data") == {}


def test_a_sync_covers_what_had_ended_when_it_began() -> None:
    disk = fed(
        event("create", "a", 1),
        event("sync", ".", 2),
        event("write", "a", 3, data=b"abc"),
        Event("write", "a", 4, 6, offset=3, data=b"def"),
        Event("sync", "a", 5, 7),
    )
    assert left(disk, "dropped") == {"a": b"abc"}
    assert disk.loose("a", 3) == ""
    assert disk.loose("a", 6) == "a write at 3 of a is not synced"


def test_a_write_through_is_durable_alone() -> None:
    disk = fed(
        event("create", "a", 1),
        event("sync", ".", 2),
        event("write", "a", 3, data=b"abcd"),
        event("write", "a", 4, data=b"X", durable=True),
    )
    assert left(disk, "dropped") == {"a": b"X"}
    assert left(disk, "kept") == {"a": b"Xbcd"}


def test_names_need_their_directory() -> None:
    disk = fed(
        event("mkdir", "d", 1),
        event("create", "d/a", 2),
        event("write", "d/a", 3, data=b"abc"),
        event("sync", "d/a", 4),
        event("sync", "d", 5),
    )
    assert disk.loose("d/a", 3) == "the name of d is not synced"
    assert left(disk, "dropped") == {}
    disk.feed(event("sync", ".", 6))
    assert left(disk, "dropped") == {"d": None, "d/a": b"abc"}
    disk.feed(event("rename", "d/a", 7, other="b"))
    assert left(disk, "dropped") == {"d": None, "d/a": b"abc"}
    disk.feed(event("sync", "d", 8))
    assert left(disk, "dropped") == {"d": None, "d/a": b"abc"}, "the directory moved to counts"
    disk.feed(event("sync", ".", 9))
    assert left(disk, "dropped") == {"d": None, "b": b"abc"}
    disk.feed(event("unlink", "b", 10))
    assert left(disk, "kept") == {"d": None}


def test_the_last_write_is_torn_in_sectors() -> None:
    disk = fed(event("create", "a", 1), event("sync", ".", 2))
    disk.feed(event("write", "a", 3, offset=100, data=b"x" * 5000, durable=True))
    seen = {left(disk, "torn", seed)["a"] for seed in range(60)}
    assert len(seen) > 30
    for content in seen:
        assert content is not None
        edges = [0, 100, *range(512, 5100, 512), 5100]
        for start, end in itertools.pairwise(edges[1:]):
            assert content[start:end] in (b"x" * (end - start), bytes(len(content[start:end])))
    disk.feed(event("mark", "done", 4))
    assert left(disk, "torn")["a"] == bytes(100) + b"x" * 5000, (
        "acknowledged: not in flight any more"
    )


def test_a_state_is_written_and_read(tmp_path: Path) -> None:
    state = State({"d": None, "d/a": b"abc", "e": b""})
    state.write(str(tmp_path))
    assert State.read(str(tmp_path)).entries == state.entries
    known: dict[int, tuple[bytes, bytes]] = {}
    assert state.digest(known) == State.read(str(tmp_path)).digest(known)
    assert state.digest(known) != State({"d": None, "d/a": b"abd", "e": b""}).digest(known)


PROGRAM = """
import os, threading
fd = os.open("a", os.O_CREAT | os.O_RDWR)
os.pwritev(fd, [b"abc", b'"\\\\de'], 10)
os.lseek(fd, 4, os.SEEK_SET)
os.write(fd, b"12")
os.writev(fd, [b"3", b"4"])
os.fdatasync(fd)
here = os.getcwd()
os.rename(f"{here}/a", f"{here}/b")
os.ftruncate(fd, 7)
through = os.open("b", os.O_WRONLY | os.O_DSYNC)
thread = threading.Thread(target=os.pwrite, args=(through, b"z", 1))
thread.start()
thread.join()
marks = os.open("../marks", os.O_WRONLY | os.O_CREAT)
os.write(marks, b"done\\n")
os.mkdir(f"{here}/d")
folder = os.open(".", os.O_RDONLY)
os.fsync(folder)
os.unlink(f"{here}/b")
os.rmdir(f"{here}/d")
"""


def test_calls_are_read_as_they_were_made(tmp_path: Path) -> None:
    reason = needs.missing(("strace",))
    if reason:
        pytest.skip(reason)
    (tmp_path / "root").mkdir()
    code = f"import os; os.chdir({str(tmp_path / 'root')!r})\n{PROGRAM}"
    command = [os.path.realpath(sys.executable), "-I", "-c", code]
    assert trace.record(command, tmp_path / "trace", {}) == ""
    found = trace.read(tmp_path / "trace", str(tmp_path / "root"), str(tmp_path / "marks"))
    assert [(e.kind, e.path, e.other, e.offset, e.data, e.durable) for e in found] == [
        ("create", "a", "", 0, b"", False),
        ("write", "a", "", 10, b'abc"\\de', False),
        ("write", "a", "", 4, b"12", False),
        ("write", "a", "", 6, b"34", False),
        ("sync", "a", "", 0, b"", False),
        ("rename", "a", "b", 0, b"", False),
        ("truncate", "b", "", 7, b"", False),
        ("write", "b", "", 1, b"z", True),
        ("mark", "done", "", 0, b"", False),
        ("mkdir", "d", "", 0, b"", False),
        ("sync", ".", "", 0, b"", False),
        ("unlink", "b", "", 0, b"", False),
        ("rmdir", "d", "", 0, b"", False),
    ]


def test_a_failing_program_is_told(tmp_path: Path) -> None:
    reason = needs.missing(("strace",))
    if reason:
        pytest.skip(reason)
    said = trace.record([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "trace", {})
    assert said.startswith("exit 3")
