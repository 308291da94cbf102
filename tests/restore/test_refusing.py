"""Targets that refuse: full, read-only, failing disks; what a file system does not take; and what is left then."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from engine import Store, limits
from engine.errors import HoldfastError, LocationUnavailable, ReadOnly, StoreFull
from engine.index import Index
from engine.restore.job import Job
from tests.restore.support import Maker, noise, seen, wanted


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, number: int, after: int = 0) -> None:
    """From the call ``after`` on the operating system answers with an error."""
    real = getattr(os, call)
    left = [after]

    def refused(*arguments: object, **options: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, refused)


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, ReadOnly),
        (errno.EIO, LocationUnavailable),
    ],
)
def test_a_target_that_takes_no_data(
    engine: Store, make: Maker, out: bytes, number: int, kind: type[HoldfastError], after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for n in range(4):
        make.file(b"%d.img" % n, noise(limits.SPAN + 10 * limits.SLOT, n))
    point = make.point(engine)
    with monkeypatch.context() as patch:
        refuse(patch, "pwritev", number, after)
        with pytest.raises(kind, match="restore"):
            engine.restore(point, b"", out)
    engine.restore(point, b"", out, force=True)  # nothing is in the way of the next try
    assert seen(out) == wanted(make.tree)


@pytest.mark.parametrize(
    "call", ["mkdir", "symlink", "mknod", "link", "ftruncate", "fchmod", "utime"]
)
def test_a_target_that_takes_no_names_or_attributes(
    engine: Store, make: Maker, point: str, out: bytes, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.tree.setattr(make.inodes[b"file"], size=1000, now_ns=1)  # it ends with a hole
    point = make.point(engine)
    os.mkdir(out)
    with monkeypatch.context() as patch:
        refuse(patch, call, errno.EROFS)
        with pytest.raises(ReadOnly, match="restore"):
            engine.restore(point, b"", out, force=True)
    engine.restore(point, b"", out, force=True)
    assert seen(out) == wanted(make.tree)


@pytest.mark.parametrize("error", [StoreFull, ReadOnly, LocationUnavailable])
def test_a_store_that_cannot_be_written_is_restored_from(
    engine: Store, make: Maker, point: str, out: bytes, error: type[HoldfastError],
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None],
) -> None:  # fmt: skip
    """A restore marks its point as in use; a full or failing disk must not stand in its way for that."""
    expect_log("nothing keeps point")

    @contextmanager
    def refused(index: Index) -> Iterator[None]:
        raise error("index", found="a disk that takes nothing")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(Index, "write", refused)
        engine.restore(point, b"", out)
    assert seen(out) == wanted(make.tree)


def test_a_sync_that_fails_is_told(
    engine: Store, point: str, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def syncfs(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("engine.restore.tree._sync", syncfs)
    for subpath in (b"", b"file"):
        with pytest.raises(LocationUnavailable, match="error"):
            engine.restore(point, subpath, out, force=True)


def test_a_write_cut_short_is_gone_on_with(
    engine: Store, make: Maker, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.file(b"f.img", noise(5 * limits.SLOT))
    point = make.point(engine)
    shorts = []

    def pwritev(fd: int, parts: Sequence[bytes], offset: int) -> int:
        shorts.append(offset)
        return os.pwrite(fd, parts[0][:1000], offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    report = engine.restore(point, b"", out)
    assert shorts
    assert report.bytes == 5 * limits.SLOT
    assert seen(out) == wanted(make.tree)


def test_attributes_a_file_system_does_not_take_are_listed(
    engine: Store, make: Maker, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.file(b"f", b"x")
    make.tree.setxattr(make.inodes[b"f"], b"user.a", b"1")
    point = make.point(engine)
    refuse(monkeypatch, "setxattr", errno.ENOTSUP)
    report = engine.restore(point, b"", out)
    assert [notice.path for notice in report.skipped] == [b"f"]
    assert "user.a" in report.skipped[0].text
    assert seen(out)[b"f"][5] == b"x"


def test_special_files_that_need_root_are_listed_and_left_out(
    engine: Store, make: Maker, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.special(b"a", stat.S_IFIFO | 0o600)
    make.link(b"a", b"b")
    make.file(b"f", b"x")
    point = make.point(engine)
    refuse(monkeypatch, "mknod", errno.EPERM)
    report = engine.restore(point, b"", out)
    assert sorted(notice.path for notice in report.skipped) == [b"a", b"b"]
    assert os.listdir(out) == [b"f"]


@pytest.fixture
def failing(
    engine: Store, make: Maker, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """A restore that fails at its first write, while much is queued."""
    for n in range(60):
        make.file(b"%02d" % n, noise(1000, n))
    point = make.point(engine)
    engine.restore(point, b"", out + b".first")  # what is opened once and kept

    def pwritev(*_: object) -> int:
        time.sleep(0.02)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def restore() -> None:
        monkeypatch.setattr(os, "pwritev", pwritev)
        with pytest.raises(StoreFull):
            engine.restore(point, b"", out)

    return restore


def test_a_failed_restore_leaves_no_descriptor_open(failing: Callable[[], None]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    failing()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_failed_restore_logs_no_traceback(
    failing: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    failing()
    assert [r.getMessage() for r in caplog.records if r.name.startswith("concurrent")] == []


def test_a_full_target_is_not_called_the_store(
    engine: Store, point: str, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "pwritev", errno.ENOSPC)
    with pytest.raises(StoreFull) as caught:
        engine.restore(point, b"", out)
    assert "the store's file system" not in str(caught.value)


def test_an_error_before_all_is_walked_ends_the_walk(
    engine: Store, make: Maker, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is told when it is found full, not after the last of a million names was made."""
    for n in range(400):
        make.file(b"%03d" % n, b"x")
    point = make.point(engine)
    refuse(monkeypatch, "pwritev", errno.ENOSPC)
    real = Job.submit

    def submit(self: Job, *arguments: Callable[[], None]) -> None:
        real(self, *arguments)
        if self._error is None:
            self._pool.submit(lambda: None).result()  # let what is queued be done

    monkeypatch.setattr(Job, "submit", submit)
    with pytest.raises(StoreFull):
        engine.restore(point, b"", out)
    assert len(os.listdir(out)) < 100
