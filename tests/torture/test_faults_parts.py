"""The parts of the rigs of faults that decide: what a layer loses, what a crash may leave, names of cases."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tools.torture.faults.inject import Inject, every_case
from tools.torture.faults.layer import Fault, FaultyOs, parse
from tools.torture.faults.workload import Model, possible
from tools.torture.faults.writer import content


@pytest.fixture
def opened(tmp_path: Path):
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "fault", [Fault("pwritev", 3, "EIO"), Fault("fsync_dir", 12, "EMFILE", lasting=True)]
)
def test_a_fault_is_named_so_that_it_can_be_asked_for_again(fault: Fault) -> None:
    assert parse(str(fault)) == fault
    made = Inject("index", "pwrite64", "EIO", 3, 15, "openat")
    assert Inject.parse(str(made)) == made


def test_a_failed_sync_loses_what_was_written_since_the_last_good_one(opened: int) -> None:
    system = FaultyOs(1, Fault("fdatasync", 2, "EIO"))
    system.pwritev(opened, [b"a" * 100], 0)
    system.fdatasync(opened)
    system.pwritev(opened, [b"b" * 50], 20)
    system.pwritev(opened, [b"c" * 50], 90)
    with pytest.raises(OSError) as caught:
        system.fdatasync(opened)
    assert caught.value.errno == errno.EIO
    system.fdatasync(opened)  # says "ok", as a kernel does
    assert os.pread(opened, 200, 0) == b"a" * 100 + bytes(40)


def test_faults_are_over_when_they_are(opened: int) -> None:
    once = FaultyOs(1, Fault("pwritev", 1, "ENOSPC"))
    lasting = FaultyOs(1, Fault("pwritev", 1, "ENOSPC", lasting=True))
    for system, errors in ((once, 1), (lasting, 3)):
        met = 0
        for _ in range(3):
            try:
                system.pwritev(opened, [b"x"], 0)
            except OSError:
                met += 1
        assert met == errors
        system.over = True
        system.pwritev(opened, [b"x"], 0)


def test_a_short_write_is_completed_by_the_seam(opened: int) -> None:
    system = FaultyOs(1, Fault("pwritev", 1, "short"))
    assert system.pwritev(opened, [b"a" * 100, b"b" * 101], 7) == 201
    assert system.fired
    assert os.pread(opened, 300, 7) == b"a" * 100 + b"b" * 101


def test_what_a_crash_may_leave() -> None:
    model = Model()
    for data in (b"", b"1" * 1024, b"1" * 512 + b"2" * 512, b"1" * 512 + b"2" * 512 + b"3" * 512):
        model.put(b"f", data)
    model.synced[b"f"] = 2
    allowed = model.allowed(b"f")
    assert allowed == [model.states[n][b"f"] for n in (2, 3, 4)]
    assert possible(b"1" * 1024, allowed)
    assert possible(b"1" * 512 + b"2" * 512 + b"3" * 10, allowed), (
        "it ends before what was not stored"
    )
    for wrong in (None, b"", b"1" * 512, b"2" * 1024, bytes(1024), b"1" * 2048):
        assert not possible(wrong, allowed)
    assert model.allowed(b"never") == [None]


def test_every_call_fails_in_every_way() -> None:
    from collections import Counter

    cases = every_case(Counter(pwrite64=2, fdatasync=1), Counter(unlink=1))
    assert len(set(map(str, cases))) == len(cases)
    assert {case.number for case in cases if case.call == "pwrite64"} == {1, 2}
    assert {case.call for case in cases if case.where == "store"} == {"unlink"}


def test_a_writer_s_files_are_those_of_its_seed() -> None:
    assert content(1, 2, 1000) == content(1, 2, 1000) != content(1, 3, 1000)
    assert 1 <= len(content(1, 2, 1000)) < 1000
