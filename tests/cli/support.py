"""What the tests of the command line share: running it, filling a store through the engine, comparing trees."""

from __future__ import annotations

import os
import random
import stat
import subprocess
from pathlib import Path

from engine import Store
from engine.errors import NotFound
from engine.live import ROOT, Ctx
from engine.live.tree import LiveTree
from tests import warm

CTX = Ctx(0, 0)
LIMIT = 60  # s for one command; a test that needs as long has failed

Done = subprocess.CompletedProcess[str]


def holdfast(store: Path, *arguments: str | bytes) -> Done:
    """Run one command. Bytes that are no UTF-8 come back as surrogate escapes."""
    return warm.run(["--store", store, *arguments], timeout=LIMIT)


def good(done: Done) -> str:
    """What a command that must succeed has printed."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def refused(done: Done, code: int, *said: str) -> str:
    """The one line on standard error of a command that must end with that exit code."""
    assert done.returncode == code, (done.returncode, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("holdfast: ")
    assert "bug" not in lines[0] and "Traceback" not in lines[0]
    for text in said:
        assert text in lines[0], lines[0]
    return lines[0]


def new_store(path: Path) -> Path:
    """A store with the mount ``m``, made by the command line."""
    good(holdfast(path, "init"))
    good(holdfast(path, "create", "m"))
    return path


def noise(size: int, seed: int) -> bytes:
    """Bytes that neither compress nor repeat."""
    return random.Random(seed).randbytes(size)


def put(tree: LiveTree, name: bytes, data: bytes, parent: int = ROOT) -> int:
    """Make a file, or write one anew, of this content."""
    try:
        ino = tree.lookup(parent, name).ino
        tree.setattr(ino, size=0, now_ns=1)
    except NotFound:
        ino = tree.create(parent, name, 0o640, CTX).ino
    tree.write(ino, 0, data)
    return ino


def write(store: Path, content: dict[bytes, bytes], mount: str = "m") -> None:
    """Write files into the root of a mount's live tree, durably."""
    with Store.open(str(store)) as opened:
        tree = opened.open_live(mount)
        try:
            for name, data in content.items():
                put(tree, name, data)
        finally:
            tree.close()


def snapshot(store: Path, mount: str = "m") -> str:
    """A new point's id, by the command line."""
    return good(holdfast(store, "snapshot", mount)).split()[-1]


def restored(store: Path, point: str, target: Path) -> dict[bytes, bytes]:
    """A point's files after a restore that must succeed."""
    good(holdfast(store, "restore", point, str(target)))
    return files(target)


def files(top: Path) -> dict[bytes, bytes]:
    """Content of every regular file below a directory, by its path in it; a directory has b"/" there."""
    base = os.fsencode(top)
    found = {}
    for folder, folders, names in os.walk(base):
        for name in folders:
            found[os.path.relpath(os.path.join(folder, name), base)] = b"/"
        for name in names:
            path = os.path.join(folder, name)
            assert stat.S_ISREG(os.lstat(path).st_mode), path
            with open(path, "rb") as file:
                found[os.path.relpath(path, base)] = file.read()
    return found


def packs(store: Path) -> list[Path]:
    """Every file that holds records, sealed or not."""
    return sorted([*store.glob("packs/*/*.pack"), *store.glob("segments/*.seg")])


def mounted(store: Path, name: str, where: Path, *options: str) -> Path:
    """Mount in the background at a new directory; ``unmounted`` must follow, whatever happens."""
    where.mkdir(exist_ok=True)
    good(holdfast(store, "mount", name, str(where), "--background", *options))
    return where


def unmounted(where: Path) -> None:
    """Take away whatever is mounted there, in use or dead, and everything above the directory itself."""
    while f" {where} " in Path("/proc/self/mountinfo").read_text(errors="surrogateescape"):
        for command in (["fusermount3", "-uz"], ["umount", "-l"]):
            if subprocess.run([*command, where], capture_output=True).returncode == 0:
                break
        else:
            raise AssertionError(f"{where} cannot be unmounted")
