"""Through a real mount: what programs do to files and directories."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.fsmount.conftest import Host

pytestmark = pytest.mark.needs_fuse


def test_bytes_survive_any_way_of_writing(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"0123456789")
    with path.open("r+b") as file:
        file.seek(4)
        file.write(b"xx")
        file.seek(3_000_000)
        file.write(b"end")
    data = path.read_bytes()
    assert data[:10] == b"0123xx6789" and data[-3:] == b"end" and len(data) == 3_000_003
    assert data[10:3_000_000] == bytes(3_000_000 - 10)


def test_append_goes_to_the_end_of_all_writers(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"a")
    one = os.open(path, os.O_WRONLY | os.O_APPEND)
    two = os.open(path, os.O_WRONLY | os.O_APPEND)
    for fd, data in ((one, b"b"), (two, b"c"), (one, b"d")):
        os.write(fd, data)
    os.close(one)
    os.close(two)
    assert path.read_bytes() == b"abcd"


def test_part_of_a_page_on_a_write_only_handle(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"x" * 10_000)
    subprocess.run(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"], check=False)
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, b"yy", 5000)
    os.close(fd)
    data = path.read_bytes()
    assert data[5000:5002] == b"yy" and data.count(b"x") == 9_998


def test_direct_io(mounted: Path, shared: Host) -> None:
    path = mounted / "f"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    page = mmap.mmap(-1, 4096)
    page.write(b"d" * 4096)
    before = shared.tell("arrived")
    assert os.pwrite(fd, page, 8192) == 4096
    assert shared.tell("arrived") == before + 4096
    into = mmap.mmap(-1, 4096)
    assert os.preadv(fd, [into], 8192) == 4096
    assert into[:] == b"d" * 4096
    os.close(fd)


def test_synchronous_files_are_synced_at_each_write(mounted: Path, shared: Host) -> None:
    for number, flag in enumerate((os.O_SYNC, os.O_DSYNC, os.O_DSYNC | os.O_DIRECT)):
        fd = os.open(mounted / str(number), os.O_WRONLY | os.O_CREAT | flag)
        before = shared.tell("calls", "fsync")
        page = mmap.mmap(-1, 4096)
        os.write(fd, page)
        assert shared.tell("calls", "fsync") > before, number
        os.close(fd)


def test_fsync_reaches_the_tree_after_the_data(mounted: Path, shared: Host) -> None:
    arrived, calls = shared.tell("arrived"), shared.tell("calls", "fsync")
    directories = shared.tell("calls", "fsyncdir")
    fd = os.open(mounted / "f", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"x" * 3_000_000)
    os.fsync(fd)
    assert shared.tell("arrived") == arrived + 3_000_000
    assert shared.tell("calls", "fsync") == calls + 1
    os.fdatasync(fd)
    os.close(fd)
    directory = os.open(mounted, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    assert shared.tell("calls", "fsyncdir") == directories + 1


def test_a_failing_fsync_is_reported(mounted: Path, shared: Host) -> None:
    fd = os.open(mounted / "f", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"x")
    shared.tell("fail", "fsync", "corrupt")
    with pytest.raises(OSError) as caught:
        os.fsync(fd)
    assert caught.value.errno == errno.EIO
    shared.tell("mend", "fsync")
    os.close(fd)
    assert "chunk ab12" in shared.said()


def test_truncate(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"0123456789")
    os.truncate(path, 4)
    assert path.read_bytes() == b"0123"
    os.truncate(path, 6)
    assert path.read_bytes() == b"0123\0\0"
    path.open("wb").close()
    assert path.stat().st_size == 0


def test_shared_mapping(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(bytes(10_000))
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    mapping[9_000:9_003] = b"abc"
    mapping.flush()
    assert path.read_bytes()[9_000:9_003] == b"abc"
    mapping.close()


def test_unlinked_file_lives_while_open(mounted: Path, shared: Host) -> None:
    path = mounted / "f"
    before = shared.tell("inodes")
    with path.open("w+b") as file:
        path.unlink()
        file.write(b"still here")
        file.flush()
        file.seek(0)
        assert file.read() == b"still here"
        assert os.fstat(file.fileno()).st_nlink == 0
        assert shared.tell("inodes") == before + 1
    assert not path.exists()


def test_links_and_special_files(mounted: Path) -> None:
    (mounted / "f").write_bytes(b"1")
    os.link(mounted / "f", mounted / "g")
    assert (mounted / "g").stat().st_nlink == 2
    assert (mounted / "g").stat().st_ino == (mounted / "f").stat().st_ino
    os.symlink("a/b\nc", mounted / "s")
    assert os.readlink(mounted / "s") == "a/b\nc"
    os.mkfifo(mounted / "p")
    assert stat.S_ISFIFO((mounted / "p").stat().st_mode)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{os.open(mounted, os.O_PATH)}/k")
    assert stat.S_ISSOCK((mounted / "k").stat().st_mode)
    if os.geteuid() == 0:
        os.mknod(mounted / "d", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        assert (mounted / "d").stat().st_rdev == os.makedev(1, 3)


def rename(old: Path, new: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, bytes(old), -100, bytes(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def test_rename_flags(mounted: Path) -> None:
    one, two = mounted / "one", mounted / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    with pytest.raises(FileExistsError):
        rename(one, two, 1)
    rename(one, two, 2)
    assert one.read_bytes() == b"2" and two.read_bytes() == b"1"
    rename(one, two, 0)
    assert two.read_bytes() == b"2" and not one.exists()


def test_times_in_nanoseconds_modes_and_owners(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"x")
    os.utime(path, ns=(1_234_567_890_123_456_789, 1_600_000_000_000_000_001))
    os.chmod(path, 0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 5678)
    found = path.stat()
    assert found.st_atime_ns == 1_234_567_890_123_456_789
    assert found.st_mtime_ns == 1_600_000_000_000_000_001
    assert stat.S_IMODE(found.st_mode) == 0o640
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (1234, 5678)


def test_extended_attributes(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"x")
    with pytest.raises(OSError) as caught:
        os.getxattr(path, "user.none")
    assert caught.value.errno == errno.ENODATA
    os.setxattr(path, "user.colour", b"red")
    assert os.getxattr(path, "user.colour") == b"red"
    assert os.listxattr(path) == ["user.colour"]
    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.colour", b"blue", os.XATTR_CREATE)
    with pytest.raises(OSError) as caught:
        os.setxattr(path, "user.shape", b"round", os.XATTR_REPLACE)
    assert caught.value.errno == errno.ENODATA
    os.removexattr(path, "user.colour")
    assert os.listxattr(path) == []
    with pytest.raises(OSError) as caught:
        os.setxattr(path, "system.posix_acl_access", b"\2\0\0\0\1")
    assert caught.value.errno == errno.EINVAL


@pytest.mark.skipif(os.geteuid() != 0, reason="file capabilities need root")
def test_writes_drop_privileges_set_before(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"x")
    os.chmod(path, 0o6755)
    assert stat.S_IMODE(path.stat().st_mode) == 0o6755
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"pages that are late do not undo what is set after them")
    os.setxattr(path, "security.capability", capability)
    os.close(fd)
    assert os.getxattr(path, "security.capability") == capability
    os.chmod(path, 0o6755)
    with path.open("ab") as file:
        file.write(b"changed")
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert os.listxattr(path) == []


def test_names_of_any_bytes(mounted: Path) -> None:
    odd = [b"new\nline", b"\xff\xfe", b"n" * 255, "å\u202e".encode(), b" ", b"-rf", b"..."]
    for name in odd:
        with open(bytes(mounted) + b"/" + name, "wb") as file:
            file.write(name)
    assert sorted(os.listdir(bytes(mounted))) == sorted(odd)
    with pytest.raises(OSError) as caught:
        open(bytes(mounted) + b"/" + b"n" * 256, "wb").close()
    assert caught.value.errno == errno.ENAMETOOLONG


def test_listing_goes_on_while_names_change(mounted: Path) -> None:
    for number in range(2000):
        (mounted / f"f{number:04}").touch()
    seen = []
    with os.scandir(mounted) as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) % 10 == 0:
                os.unlink(mounted / seen[-5])
                (mounted / f"new{len(seen)}").touch()
    old = [name for name in seen if name.startswith("f")]
    assert len(old) == len(set(old)) == 2000
    names = subprocess.run(["ls", "-a", mounted], capture_output=True, text=True, check=True).stdout
    assert names.split()[:2] == [".", ".."]


def test_what_is_not_there_falls_back(mounted: Path) -> None:
    path = mounted / "f"
    with path.open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, 100_000)
        assert os.fstat(file.fileno()).st_size == 100_000
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 100_000
        libc = ctypes.CDLL(None, use_errno=True)
        punch_hole_keep_size = 3
        done = libc.fallocate(
            file.fileno(), punch_hole_keep_size, ctypes.c_long(0), ctypes.c_long(4096)
        )
        assert done == -1 and ctypes.get_errno() == errno.ENOTSUP
        with (mounted / "g").open("wb") as other:
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            assert os.copy_file_range(file.fileno(), other.fileno(), 100_000) == 100_000
    assert (mounted / "g").stat().st_size == 100_000


def test_locks(mounted: Path) -> None:
    with (mounted / "f").open("wb") as one, (mounted / "f").open("wb") as two:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_space(mounted: Path) -> None:
    found = os.statvfs(mounted)
    assert found.f_bsize == 4096 and found.f_blocks == 1 << 28 and found.f_bavail == 1 << 27
    assert found.f_files == 1 << 20 and found.f_namemax == 255


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_permissions_are_checked(mounted: Path) -> None:
    (mounted / "f").write_bytes(b"secret")
    os.chmod(mounted / "f", 0o600)
    os.chmod(mounted, 0o755)
    for folder in [mounted, *mounted.parents][1:4]:
        os.chmod(folder, 0o755)
    done = subprocess.run(
        ["cat", mounted / "f"], user=65534, group=65534, capture_output=True, text=True
    )
    assert done.returncode != 0 and "Permission denied" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="handles need root")
def test_handles_of_files_without_names(mounted: Path) -> None:
    """What an NFS server does: look an inode up by number, and its parent."""
    (mounted / "d").mkdir()
    (mounted / "d" / "f").write_bytes(b"by handle")
    subprocess.run(["sh", "-c", "echo 2 > /proc/sys/vm/drop_caches"], check=False)
    libc = ctypes.CDLL(None, use_errno=True)
    handle = ctypes.create_string_buffer(8 + 128)
    ctypes.c_uint.from_buffer(handle).value = 128
    mount_id = ctypes.c_int()
    path = bytes(mounted / "d" / "f")
    assert not libc.name_to_handle_at(-100, path, handle, ctypes.byref(mount_id), 0)
    root = os.open(mounted, os.O_RDONLY)
    fd = libc.open_by_handle_at(root, handle, os.O_RDONLY)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    assert os.read(fd, 100) == b"by handle"
    os.close(fd)
    os.close(root)
