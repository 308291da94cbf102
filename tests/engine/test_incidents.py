"""Incidents: what is noted, how often it is written, and that it outlives what it is about."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine import Store, limits
from engine.errors import (
    Corrupt,
    HoldfastError,
    LocationUnavailable,
    NotFound,
    PosixError,
    StoreFull,
)
from engine.incidents import FILE, OLD, Incident, Journal, folded, lines, parsed, reset
from engine.index import Table
from engine.maintain.check import CheckReport, Problem
from engine.seam import Os


class SlowOs(Os):
    """Time that moves when told, and a disk that can be full."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = 0.0  # s the clock is ahead
        self.asleep = 0.0
        self.fault = 0
        self.sync_fault = 0
        self.syncs = 0

    def time_ns(self) -> int:
        return int((self.now + self.wall + self.asleep) * 1e9)

    def monotonic(self) -> float:
        return self.now

    def since_boot(self) -> float:
        return self.now + self.asleep

    def pwritev(self, fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        if self.fault:
            raise OSError(self.fault, os.strerror(self.fault))
        return super().pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        self.syncs += 1
        if self.sync_fault:
            raise OSError(self.sync_fault, os.strerror(self.sync_fault))


@pytest.fixture
def system() -> SlowOs:
    return SlowOs()


@pytest.fixture
def journal(tmp_path: Path, system: SlowOs) -> Journal:
    one = Journal()
    one.placed(str(tmp_path), system)
    return one


def known(root: Path) -> list[tuple[str, str, int]]:
    return [(one.kind, one.thing, one.count) for one in folded(lines(str(root)))]


def written(root: Path) -> int:
    return len(lines(str(root)))


def test_an_incident_is_in_the_store_at_once(journal: Journal, tmp_path: Path) -> None:
    journal.note("corrupt", "chunk ab", "why")
    assert folded(lines(str(tmp_path))) == [
        Incident("corrupt", "chunk ab", "why", 1, 1000 * 10**9, 1000 * 10**9)
    ]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_what_goes_on_is_one_incident_and_few_lines(
    journal: Journal, tmp_path: Path, system: SlowOs
) -> None:
    for _ in range(24 * 3600):
        system.now += 1
        journal.note("location_unavailable", "index", "no answer")
    assert written(tmp_path) < 25
    assert [line.count for line in journal.known()] == [24 * 3600]
    journal.over("location_unavailable", "index")
    journal.flush()
    assert known(tmp_path) == [("location_unavailable", "index", 24 * 3600)]


def test_what_was_quiet_for_long_or_over_is_told_at_once(
    journal: Journal, tmp_path: Path, system: SlowOs
) -> None:
    for pause in (0, 1, limits.INCIDENT_QUIET + 1, 1):
        system.now += pause
        journal.note("store_full", "store", "")
    assert written(tmp_path) == 3, "two beginnings, and how often the first was met in all"
    journal.over("store_full", "store")
    journal.note("store_full", "store", "")
    assert [one.count for one in folded(lines(str(tmp_path)))] == [5]


def test_a_worker_writes_at_its_ticks(journal: Journal, tmp_path: Path) -> None:
    journal.tick()
    journal.note("quota", "mount m", "")
    assert written(tmp_path) == 0
    assert [line.thing for line in journal.waiting()] == ["mount m"]
    journal.tick()
    assert written(tmp_path) == 1
    assert journal.waiting() == []


@pytest.mark.parametrize("way", ["fault", "sync_fault"])
def test_what_cannot_be_written_waits(
    journal: Journal, tmp_path: Path, system: SlowOs, way: str
) -> None:
    setattr(system, way, errno.ENOSPC)
    for _ in range(600):
        system.now += 1
        journal.note("store_full", "store", "")
        journal.tick()
    assert system.syncs < 20, "it is tried ever more rarely"
    assert [line.count for line in journal.waiting()] == [600]
    setattr(system, way, 0)
    system.now += limits.INCIDENT_AGAIN
    journal.tick()
    assert known(tmp_path) == [("store_full", "store", 600)]
    assert journal.waiting() == []


def test_a_flood_is_bounded(journal: Journal, tmp_path: Path, system: SlowOs) -> None:
    journal.tick()
    for number in range(3 * limits.INCIDENTS_MAX):
        journal.note("corrupt", f"chunk {number:064x}", "\x00" * 10_000)
        if number % 100 == 99:
            journal.tick()
    journal.flush(last=True)
    sizes = [(tmp_path / name).stat().st_size for name in (FILE, OLD)]
    assert max(sizes) < 2 * limits.INCIDENT_FILE
    assert ("corrupt", "others", 2 * limits.INCIDENTS_MAX) in known(tmp_path)
    longest = max(map(len, (tmp_path / FILE).read_bytes().split(b"\n")))
    assert longest < 4096


def test_torn_and_foreign_lines_cost_only_themselves(journal: Journal, tmp_path: Path) -> None:
    journal.note("corrupt", "a", "")
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"kind": "corrupt", "thi')
    journal.note("corrupt", "b", "")
    assert {thing for _, thing, _ in known(tmp_path)} == {"a", "b"}
    good = json.loads((tmp_path / FILE).read_bytes().split(b"\n")[1])
    for bad in ({}, [], {**good, "count": "1"}, {**good, "kind": 7}, {**good, "more": 1}):
        assert parsed(json.dumps(bad).encode()) is None
    assert parsed(b"[" * 100_000) is None
    assert parsed(json.dumps(good).encode()) is not None


def test_incidents_of_several_processes_are_one(tmp_path: Path, system: SlowOs) -> None:
    for text in ("first", "last"):
        one = Journal()
        one.placed(str(tmp_path), system)
        one.note("corrupt", "index", text)
        system.now += 5
    (found,) = folded(lines(str(tmp_path)))
    assert (found.count, found.text, found.last - found.first) == (2, "last", 5 * 10**9)
    reset(str(tmp_path))
    reset(str(tmp_path))
    assert lines(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("error", "thing"),
    [
        (StoreFull("segment 3"), "store"),
        (LocationUnavailable("segment 3"), "segment 3"),
        (Corrupt("chunk ab"), "chunk ab"),
        (HoldfastError("sealing"), "sealing"),
        (NotFound("point"), None),
        (PosixError(errno.ENOTEMPTY), None),
    ],
)
def test_errors_are_noted_and_answers_are_not(
    journal: Journal, tmp_path: Path, error: HoldfastError, thing: str | None
) -> None:
    journal.error(error)
    assert [one[1] for one in known(tmp_path)] == ([] if thing is None else [thing])


def test_a_clock_that_jumps_is_told_both_ways_and_sleep_is_not(
    journal: Journal, tmp_path: Path, system: SlowOs
) -> None:
    def pass_by(jump: float = 0, asleep: float = 0) -> None:
        system.now += 1
        system.wall += jump
        system.asleep += asleep
        journal.tick()

    for jump in (0, 0.1, -0.1):
        pass_by(jump)
    pass_by(asleep=36_000)
    assert written(tmp_path) == 0
    pass_by(3600)
    assert "forwards by 3600 s" in folded(lines(str(tmp_path)))[0].text
    pass_by()
    pass_by(-7200)
    journal.over("clock", "clock")
    pass_by()
    (found,) = folded(lines(str(tmp_path)))
    assert (found.kind, found.count) == ("clock", 2)
    assert "back by 7200 s" in found.text


# --- raised by the engine -------------------------------------------------------------------------------------


def test_a_damaged_index_is_told_though_nothing_can_be_opened(home: Path) -> None:
    os.truncate(home / "index" / "data.mdb", 5000)
    for _ in range(2):
        with pytest.raises(Corrupt):
            Store.open(str(home))
    assert known(home) == [("corrupt", "index", 2)]


def test_a_damaged_row_and_a_failed_commit_are_told(home: Path) -> None:
    with Store.open(str(home)) as store:
        index = store._open.context.index
        with index.write() as txn:
            txn.put(Table.META, b"x", b"y")
        with index._env.begin(write=True) as raw:
            raw.put(b"x", b"nonsense", db=index._dbs[Table.META])
        with pytest.raises(Corrupt), index.read() as txn:
            txn.get(Table.META, b"x")
        index.broken = True  # as after a commit that failed
        with index.write() as txn:
            txn.delete(Table.META, b"x")
    assert {kind for kind, _, _ in known(home)} == {"corrupt", "index_reopened"}


def test_a_check_that_finds_damage_tells(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = CheckReport([Problem("bad_pack", "pack 7", "is gone")])
    monkeypatch.setattr("engine.maintain.check.check", lambda *_, **__: found)
    with Store.open(str(home)) as store:
        assert store.check() is found
    (one,) = folded(lines(str(home)))
    assert (one.kind, one.thing) == ("corrupt", "store")
    assert one.text == "check found 1 problems, first bad_pack: pack 7: is gone"


def test_errors_of_the_system_leave_operations_as_errors_of_the_family(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Os, path: str) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with Store.open(str(home)) as store:
        monkeypatch.setattr(Os, "listdir", refused)
        with pytest.raises(LocationUnavailable):
            store.collect()
        monkeypatch.undo()
        store.collect()
    assert ("location_unavailable", f"store {home}", 1) in known(home)


def test_a_file_system_that_does_not_say_its_size(home: Path, monkeypatch) -> None:
    def refused(self: Os, path: str) -> tuple[int, int]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        try:
            monkeypatch.setattr(Os, "space", refused)
            tree.tick()
            with pytest.raises(LocationUnavailable):
                store.space_left()
        finally:
            tree.close()
    assert known(home)[0][0] == "location_unavailable"
