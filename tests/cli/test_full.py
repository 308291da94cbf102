"""A store, a target and a quota that get full: what writers are told, what stays, and how it goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.support import (
    LIMIT,
    Done,
    files,
    good,
    holdfast,
    mounted,
    new_store,
    noise,
    refused,
    restored,
    snapshot,
    unmounted,
    write,
)

MIB = 1 << 20
FIRST = noise(2 * MIB, 1)
NO_SPACE = os.strerror(errno.ENOSPC)
NO_QUOTA = os.strerror(errno.EDQUOT)
INPUT_OUTPUT = os.strerror(errno.EIO)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a tmpfs")
Disk = Callable[[str, int], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Makes small file systems, by name and MiB; the same name again changes the size."""
    made: list[Path] = []

    def make(name: str, mib: int) -> Path:
        where = tmp_path / name
        options = f"size={mib}m"
        if where in made:
            options = f"remount,{options}"
        else:
            where.mkdir()
            made.append(where)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", where], check=True)
        return where

    yield make
    for where in made:
        unmounted(where)


class Full:
    """A store on 24 MiB with a point of one file, that has been written into until there was no room."""

    def __init__(self, disk: Disk, live: Path) -> None:
        self.live = live
        self.store = new_store(disk("small", 24) / "store")
        mounted(self.store, "m", live)
        (live / "first").write_bytes(FIRST)
        self.point = snapshot(self.store)
        self.refusals = [dd(live / name, mib) for name, mib in (("big", 40), ("more", 3))]

    def kept(self, target: Path) -> None:
        """Nothing of the point is lost, and nothing in the store is damaged."""
        assert restored(self.store, self.point, target) == {b"first": FIRST}
        assert "no problems found" in good(holdfast(self.store, "check", "--read-data"))

    def log(self) -> str:
        return (self.store / "run" / "m.log").read_text()


@pytest.fixture
def full(disk: Disk, live: Path) -> Iterator[Full]:
    made = Full(disk, live)
    yield made
    unmounted(live)  # before the file system below it goes


def run(*command: str | Path) -> Done:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, "LC_ALL": "C"}
    )


def dd(target: Path, mib: int, sync: bool = True) -> Done:
    """Write so much that does not compress."""
    last = ["conv=fsync"] if sync else []
    return run("dd", "if=/dev/urandom", f"of={target}", "bs=256k", f"count={mib * 4}", *last)


def soon(action: Callable[[], object]) -> None:
    """Do it, once a tick of the worker has found that there is room again."""
    end = time.monotonic() + 5
    while True:
        try:
            action()
        except OSError as error:
            if error.errno != errno.ENOSPC or time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def served(live: Path, seconds: float) -> None:
    """For so long, the mount answers; a worker that dies of a full store does so at one of its ticks."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert "first" in os.listdir(live)
        time.sleep(0.1)


# --- the store ------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.needs_fuse
def test_writers_are_told_that_there_is_no_space_and_the_point_stays(
    full: Full, tmp_path: Path
) -> None:
    for done in full.refusals:
        assert done.returncode == 1
        assert NO_SPACE in done.stderr and INPUT_OUTPUT not in done.stderr
    assert (full.live / "first").read_bytes() == FIRST
    full.kept(tmp_path / "out")


@needs_root
@pytest.mark.needs_fuse
def test_a_program_that_does_not_sync_is_told_at_close(disk: Disk, live: Path) -> None:
    store = new_store(disk("small", 24) / "store")
    mounted(store, "m", live)
    try:
        done = dd(live / "big", 40, sync=False)
        assert done.returncode == 1
        assert NO_SPACE in done.stderr and INPUT_OUTPUT not in done.stderr
    finally:
        unmounted(live)


@needs_root
@pytest.mark.needs_fuse
def test_a_full_store_is_served_on_and_a_snapshot_says_what_is_missing(
    full: Full, tmp_path: Path
) -> None:
    done = holdfast(full.store, "snapshot", "m")
    if done.returncode:
        refused(done, 16, "free space on the store's file system")
    served(full.live, 1.5)
    assert (full.live / "first").read_bytes() == FIRST
    full.kept(tmp_path / "out")


@needs_root
@pytest.mark.needs_fuse
def test_a_worker_outlives_a_disk_without_one_free_byte(
    disk: Disk, live: Path, tmp_path: Path
) -> None:
    """Something else fills the disk while data waits to be written; the worker tries, and leaves nothing behind."""
    small = disk("small", 24)
    store = new_store(small / "store")
    mounted(store, "m", live)
    try:
        (live / "first").write_bytes(FIRST)
        point = snapshot(store)
        (live / "waits").write_bytes(FIRST[: 3 * MIB : -1])
        assert run("dd", "if=/dev/zero", f"of={small / 'foreign'}", "bs=4k").returncode == 1
        time.sleep(1)
        before = len(list((store / "segments").iterdir()))
        time.sleep(2.5)  # several ticks: at each the worker tries again
        assert run("stat", live / "first").returncode == 0, "the worker died"
        after = len(list((store / "segments").iterdir()))
        (small / "foreign").unlink()
        soon(lambda: (live / "after").write_bytes(b"after"))
        found = restored(store, snapshot(store), tmp_path / "new")
        assert found == {b"first": FIRST, b"waits": FIRST[: 3 * MIB : -1], b"after": b"after"}
        assert restored(store, point, tmp_path / "old") == {b"first": FIRST}
        assert "no problems found" in good(holdfast(store, "check", "--read-data"))
        assert after <= before + 1, "a new segment at every try"
    finally:
        unmounted(live)


@needs_root
@pytest.mark.needs_fuse
def test_after_deleting_what_filled_it_a_store_is_written_to_again(
    full: Full, tmp_path: Path
) -> None:
    (full.live / "big").unlink()
    (full.live / "more").unlink(missing_ok=True)  # for its name there may have been no room
    served(full.live, 1.2)
    # The worker commits the deletions at one of its ticks; on a busy machine that may be a late one.
    end = time.monotonic() + 30
    while True:
        good(holdfast(full.store, "gc"))
        if not dd(full.live / "again", 4).stderr.count(NO_SPACE):
            break
        assert time.monotonic() < end, "there is no room again"
    again = (full.live / "again").read_bytes()
    assert len(again) == 4 * MIB
    point = snapshot(full.store)
    assert restored(full.store, point, tmp_path / "new") == {b"first": FIRST, b"again": again}
    full.kept(tmp_path / "old")


@needs_root
@pytest.mark.needs_fuse
def test_after_the_disk_has_grown_a_store_is_written_to_again(
    full: Full, disk: Disk, tmp_path: Path
) -> None:
    disk("small", 96)
    done = dd(full.live / "again", 8)
    assert done.returncode == 0, done.stderr
    again = (full.live / "again").read_bytes()
    point = snapshot(full.store)
    found = restored(full.store, point, tmp_path / "new")
    assert (found[b"first"], found[b"again"]) == (FIRST, again)
    full.kept(tmp_path / "old")
    assert "suspect" not in full.log()


@needs_root
@pytest.mark.needs_fuse
def test_what_a_full_store_took_can_be_read_when_there_is_room(full: Full, disk: Disk) -> None:
    """Of a file that did not fit, what was not refused is there: no read of it fails, no chunk is called damaged."""
    holdfast(full.store, "snapshot", "m")  # whether or not there is room for it
    disk("small", 96)
    there = [one for one in (full.live / "big", full.live / "more") if one.exists()]
    assert there  # the second may have been refused its name already
    for path in there:
        with path.open("rb") as file:
            while file.read(MIB):
                pass
    snapshot(full.store)
    assert "suspect" not in full.log()
    assert "no problems found" in good(holdfast(full.store, "check", "--read-data"))


@needs_root
def test_a_full_store_says_so_to_commands_and_loses_nothing(disk: Disk, tmp_path: Path) -> None:
    """Something else has taken the last byte of the file system."""
    store = new_store(disk("small", 24) / "store")
    write(store, {b"first": FIRST})
    point = snapshot(store)
    many = {b"%d" % number: noise(100, number) for number in range(2000)}
    write(
        store, many
    )  # durable, but in no point: its manifest takes more than the room left in a page
    assert dd(tmp_path / "small" / "foreign", 40).returncode == 1
    done = holdfast(store, "snapshot", "m")
    assert done.returncode == 16, done.stderr
    assert "Traceback" not in done.stderr
    assert "free space on the store's file system" in done.stderr.splitlines()[-1]
    assert len(good(holdfast(store, "points")).splitlines()) == 2
    assert restored(store, point, tmp_path / "full") == {b"first": FIRST}
    (tmp_path / "small" / "foreign").unlink()
    assert restored(store, snapshot(store), tmp_path / "new") == {b"first": FIRST, **many}
    assert restored(store, point, tmp_path / "again") == {b"first": FIRST}
    assert "no problems found" in good(holdfast(store, "check", "--read-data"))


# --- the target -----------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("what", [[], ["first"]], ids=["the point", "a file of it"])
def test_a_full_target_is_said_to_be_the_target(
    empty: Path, disk: Disk, tmp_path: Path, what: list[str]
) -> None:
    write(empty, {b"first": FIRST})
    point = snapshot(empty)
    target = str(disk("target", 1) / "out")
    line = refused(holdfast(empty, "restore", point, *what, target), 16, NO_SPACE, target)
    assert "store's file system" not in line
    assert restored(empty, point, tmp_path / "elsewhere") == {b"first": FIRST}


# --- quota ----------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(empty: Path, live: Path) -> Path:
    """A store with the mount ``q``, which may hold 8 MiB and holds one."""
    good(holdfast(empty, "create", "q", "--quota", "8M"))
    write(empty, {b"first": FIRST[:MIB]}, "q")
    return empty


def room(live: Path) -> tuple[int, int]:
    """Size and free bytes as df sees them."""
    found = os.statvfs(live)
    assert found.f_bavail == found.f_bfree
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


@pytest.mark.needs_fuse
def test_a_quota_is_the_size_of_the_mount_and_its_end_is_told(
    limited: Path, live: Path, tmp_path: Path
) -> None:
    mounted(limited, "q", live)
    assert room(live) == (8 * MIB, 7 * MIB)
    done = dd(live / "big", 20)
    assert done.returncode == 1 and NO_SPACE in done.stderr, done.stderr
    size, free = room(live)
    assert size == 8 * MIB and free < MIB
    assert (live / "first").read_bytes() == FIRST[:MIB]
    (live / "big").unlink()
    assert dd(live / "fits", 6).returncode == 0
    point = snapshot(limited, "q")
    found = restored(limited, point, tmp_path / "out")
    assert found == {b"first": FIRST[:MIB], b"fits": (live / "fits").read_bytes()}
    assert room(live) == (8 * MIB, MIB)
    good(holdfast(limited, "umount", str(live)))
    assert "no problems found" in good(holdfast(limited, "check", "--read-data"))


@pytest.mark.needs_fuse
def test_a_program_that_does_not_sync_is_told_of_the_quota_and_of_no_broken_disk(
    limited: Path, live: Path
) -> None:
    """Of errors at write-back the kernel keeps ENOSPC for close; every other one it turns into EIO."""
    mounted(limited, "q", live)
    done = dd(live / "big", 9, sync=False)
    assert done.returncode == 1
    assert NO_SPACE in done.stderr, done.stderr
    good(holdfast(limited, "umount", str(live)))


@pytest.mark.needs_fuse
def test_written_through_the_quota_refuses_the_write_itself(limited: Path, live: Path) -> None:
    mounted(limited, "q", live, "--write-through")
    taken = 0
    with (live / "big").open("wb", buffering=0) as file:
        while taken < 7 * MIB:
            taken += file.write(noise(MIB // 4, taken))
        with pytest.raises(OSError) as caught:
            file.write(b"more")
        assert caught.value.errno == errno.EDQUOT
    assert taken == (live / "big").stat().st_size == 7 * MIB
    assert room(live) == (8 * MIB, 0)
    with (live / "first").open("r+b", buffering=0) as file:  # nothing grows by overwriting
        assert file.write(b"over") == 4
    found = files(live)
    assert found[b"big"] == b"".join(noise(MIB // 4, at) for at in range(0, 7 * MIB, MIB // 4))
    assert found[b"first"] == b"over" + FIRST[4:MIB]
    good(holdfast(limited, "umount", str(live)))


@pytest.mark.needs_fuse
def test_a_quota_of_one_mount_is_none_of_another(limited: Path, live: Path) -> None:
    mounted(limited, "m", live)
    assert dd(live / "big", 10).returncode == 0
    assert (live / "big").stat().st_size == 10 * MIB
    good(holdfast(limited, "umount", str(live)))


@pytest.mark.needs_fuse
def test_a_mount_holds_no_more_files_than_it_may(empty: Path, live: Path) -> None:
    good(holdfast(empty, "create", "few", "--max-files", "4"))
    mounted(empty, "few", live)
    for name in ("a", "b"):
        (live / name).touch()
    (live / "d").mkdir()
    assert os.statvfs(live).f_files == 4 and os.statvfs(live).f_ffree == 0
    for more in ((live / "c").touch, (live / "e").mkdir, lambda: (live / "s").symlink_to("a")):
        with pytest.raises(OSError) as caught:
            more()
        assert caught.value.errno == errno.EDQUOT
    (live / "a").unlink()
    end = time.monotonic() + 10
    while not (live / "c").exists():  # the kernel lets go of what was removed a moment later
        with contextlib.suppress(OSError):
            (live / "c").touch()
        assert time.monotonic() < end, "the room of a removed file is not given back"
    good(holdfast(empty, "umount", str(live)))
    mounted(empty, "few", live)
    with pytest.raises(OSError) as caught:
        (live / "e").touch()
    assert caught.value.errno == errno.EDQUOT
    good(holdfast(empty, "umount", str(live)))


@pytest.mark.parametrize("quota", ["8X", "", "-1", "many", "8 M M"])
def test_a_quota_that_is_no_size_makes_no_mount(empty: Path, quota: str) -> None:
    done = holdfast(empty, "create", "n", "--quota", quota)
    assert done.returncode == 2 and "no size" in done.stderr
    refused(holdfast(empty, "points", "n"), 10, "mounts: m")
