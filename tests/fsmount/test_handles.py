"""Handles, as NFS servers keep them: what a number and a generation lead to after the kernel has forgotten them."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsmount
from engine import Store

pytestmark = [
    pytest.mark.needs_fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="opening by handle needs root"),
]
MAX = 128
_HEAD = struct.Struct("Ii")  # size, type
_libc = ctypes.CDLL(None, use_errno=True)

Handle = tuple[int, bytes]


def handle_of(path: Path) -> Handle:
    room = ctypes.create_string_buffer(_HEAD.size + MAX)
    _HEAD.pack_into(room, 0, MAX, 0)
    where = ctypes.c_int()
    if _libc.name_to_handle_at(-100, os.fsencode(path), room, ctypes.byref(where), 0):
        raise OSError(ctypes.get_errno(), str(path))
    size, kind = _HEAD.unpack_from(room)
    return kind, room.raw[_HEAD.size : _HEAD.size + size]


def opened(mount: Path, handle: Handle) -> int:
    top = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        kind, data = handle
        room = ctypes.create_string_buffer(_HEAD.pack(len(data), kind) + data)
        fd: int = _libc.open_by_handle_at(top, room, os.O_RDONLY)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "handle")
        return fd
    finally:
        os.close(top)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    store = str(tmp_path / "store")
    Store.init(store)
    with Store.open(store) as one:
        one.create_mount("m")
    (tmp_path / "m").mkdir()
    fsmount.start_background(store, "m", None, str(tmp_path / "m"))
    yield tmp_path / "m"
    subprocess.run(["fusermount3", "-u", str(tmp_path / "m")], check=True, capture_output=True)


def again(live: Path) -> None:
    """The worker is killed, and started again."""
    store = str(live.parent / "store")
    pid = int(fsmount.request(store, "m", "status")["pid"])
    watch = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([watch], [], [], 10)[0]
    os.close(watch)
    fsmount.start_background(store, "m", None, str(live))


def test_a_handle_leads_to_the_same_after_a_restart(live: Path) -> None:
    (live / "d").mkdir()
    (live / "d" / "file").write_bytes(b"the same")
    (live / "d" / "gone").write_bytes(b"gone")
    handles = {name: handle_of(live / "d" / name) for name in ("file", "gone", ".")}
    os.unlink(live / "d" / "gone")
    fsmount.request(str(live.parent / "store"), "m", "barrier")
    again(live)
    (live / "d" / "new").write_bytes(b"another")
    fd = opened(live, handles["file"])
    assert os.read(fd, 100) == b"the same"
    os.close(fd)
    fd = opened(live, handles["."])
    assert sorted(os.listdir(fd)) == ["file", "new"]
    os.close(fd)
    with pytest.raises(OSError) as caught:
        opened(live, handles["gone"])
    assert caught.value.errno == errno.ESTALE


def test_a_handle_of_a_lost_file_leads_to_no_other(live: Path) -> None:
    """A file that was made, never synced, and lost with its worker: its number is not given again."""
    (live / "lost").write_bytes(b"lost")
    handle = handle_of(live / "lost")
    again(live)
    assert not (live / "lost").exists()
    for number in range(100):
        (live / str(number)).write_bytes(b"other")
    with pytest.raises(OSError) as caught:
        opened(live, handle)
    assert caught.value.errno == errno.ESTALE


def test_a_handle_in_a_point_leads_to_no_other_point(live: Path) -> None:
    with Store.open(str(live.parent / "store")) as store:
        first = store.snapshot("m", "first").id
        handle = handle_of(live / ".snapshots" / first)
        store.remove_point(first)
        store.snapshot("m", "second")
    again(live)
    os.listdir(live / ".snapshots")
    with pytest.raises(OSError) as caught:
        opened(live, handle)
    assert caught.value.errno == errno.ESTALE
