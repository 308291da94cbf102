"""The first program of a User-Mode Linux: a store on a disk, its mount through FUSE, and a ``Story`` in it.

Everything is the host's own files, read-only, but for the disk.  The words of the story go to the console; each
``begun`` waits for an answer, so that none is lost with the kernel.

    python -m tools.torture.crash.guest SEED DIRECTORY

DIRECTORY is one whose content is not needed: the disk and the mount go there.
"""

from __future__ import annotations

import ctypes
import os
import platform
import random
import sys
import termios
import time
import traceback
import tty
from pathlib import Path

import engine.maintain.collect  # noqa: F401  (once, before the fork)
import fsmount
import fsmount.lifecycle
from engine import Store, limits
from engine.index import Index
from tools.torture import bugs
from tools.torture.crash import loopfs
from tools.torture.crash.local import MOUNT, small_limits
from tools.torture.crash.story import BEGUN, Scale, Step, Story, work
from tools.torture.history import Op
from tools.torture.workload import Files, PosixFiles

MARK = b"\x02"  # before every word: the kernel writes to the console, too
READY, TROUBLE = b"r", b"!"
STEPS = 100_000  # more than it gets to
OPEN_FILES = 16
FUSE = "/usr/lib/uml/modules/{}/kernel/fs/fuse/fuse.ko"
_FINIT_MODULE = 313
_libc = ctypes.CDLL(None, use_errno=True)


def scale() -> Scale:
    """Larger writes than elsewhere: a kernel has to have something in its cache."""
    return Scale(6, 1_500_000, {"op": 100, "snapshot": 6, "remove": 3, "collect": 2}, burst=16)


class HeldFiles:
    """Files of a mount, of which those written last stay open: what is written is then in the kernel alone."""

    def __init__(self, top: bytes) -> None:
        self._top = top
        self._files = PosixFiles(top)
        self._held: list[int] = []

    def do(self, op: Op) -> None:
        """Carry out one operation."""
        if op.kind != "write":
            self._files.do(op)
            return
        fd = os.open(os.path.join(self._top, op.path), os.O_RDWR)
        self._held.append(fd)
        if len(self._held) > OPEN_FILES:
            os.close(self._held.pop(0))
        done = 0
        while done < len(op.data):
            done += os.pwrite(fd, op.data[done:], op.number + done)


class MountPlace:
    """A store whose mount another process serves."""

    def __init__(self, store: Path, tree: Path) -> None:
        self._path = str(store)
        self._store = Store.open(self._path)
        self._files = HeldFiles(bytes(tree))

    def files(self) -> Files:
        return self._files

    def own(self, step: Step) -> None:
        """As the commands do it."""
        match step.kind:
            case "snapshot":
                with fsmount.client(self._path, MOUNT) as client:
                    client.request("freeze")
                    self._store.snapshot(
                        MOUNT, step.label, thaw=lambda: void(client.request("thaw"))
                    )
            case "remove":
                points = self._store.points()
                self._store.remove_point(next(p.id for p in points if p.label == step.label))
            case "collect":
                self._store.collect()


def void(_: object) -> None:
    """For a callback that returns nothing."""


def guest_limits() -> None:
    """Small ones, and an index that fits the addresses of a process here: there are 512 GiB of them."""
    small_limits()
    assert Index.__init__.__kwdefaults__ is not None
    Index.__init__.__kwdefaults__["map_size"] = 16 * limits.GIB


def prepare(place: Path) -> tuple[Path, Path]:
    """File systems, and the module for FUSE; where the store is, and where its mount goes."""
    loopfs.mount("proc", Path("/proc"), "proc")
    loopfs.mount("tmpfs", place, "tmpfs")
    fd = os.open(FUSE.format(platform.release()), os.O_RDONLY)
    if _libc.syscall(_FINIT_MODULE, fd, b"", 0):
        raise OSError(ctypes.get_errno(), "the FUSE module")
    os.close(fd)
    disk, tree = place / "disk", place / "tree"
    disk.mkdir()
    tree.mkdir()
    loopfs.mount("/dev/ubda", disk, "ext4")
    tty.setraw(0, termios.TCSANOW)
    return disk / "store", tree


def serve(store: Path, tree: Path) -> None:
    """[child] The mount, until the end. Never returns."""
    try:
        bugs.plant_chosen()
        guest_limits()
        fsmount.serve(str(store), MOUNT, None, str(tree), fsmount.Options())
    except BaseException:  # noqa: BLE001
        say(TROUBLE + traceback.format_exc().encode())
    finally:
        os._exit(1)


def say(word: bytes) -> None:
    """To the host."""
    os.write(1, MARK + word)


def tell(word: bytes) -> None:
    """A word of the story."""
    say(word[:1])
    if word == BEGUN:
        assert os.read(0, 1), "the host is gone"


def main() -> None:
    """Until the host ends it."""
    try:
        store, tree = prepare(Path(sys.argv[2]))
        outside = os.stat(tree).st_dev
        if not os.fork():
            serve(store, tree)
        while os.stat(tree).st_dev == outside:
            time.sleep(0.01)
        bugs.plant_chosen()
        guest_limits()
        place = MountPlace(store, tree)
        say(READY)
        work(Story(random.Random(sys.argv[1]), scale()), place, tell, STEPS)
    except BaseException:  # noqa: BLE001  (a first program must not end)
        say(TROUBLE + traceback.format_exc().encode())
    time.sleep(1000)


if __name__ == "__main__":
    main()
