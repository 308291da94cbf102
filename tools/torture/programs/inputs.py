"""Trees of files with everything in them that a program may be asked to copy, and changes to such trees."""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
import subprocess
from pathlib import Path

# cap_net_raw, permitted (struct vfs_cap_data, version 2).
CAPABILITY = struct.pack("<IIIII", 0x02000000, 1 << 13, 0, 0, 0)
NS = 1_600_000_000 * 10**9  # times of made files lie after this, ns
HOLE = 24 << 20  # bytes: far more than any rule of thumb about holes forgives


def content(rng: random.Random, size: int) -> bytes:
    """Bytes that are a third noise, a third text, a third zeros."""
    third = size // 3
    line = b"%d lines of text that repeat\n" % rng.randrange(100)
    return (
        rng.randbytes(third) + (line * (third // len(line) + 1))[:third] + bytes(size - 2 * third)
    )


def sparse(path: Path, rng: random.Random) -> None:
    """A file that is mostly hole: data in front, in the middle, and no end."""
    with path.open("wb") as file:
        file.write(rng.randbytes(10_000))
        file.seek(rng.randrange(HOLE // 4, HOLE // 2))
        file.write(rng.randbytes(70_000))
        file.truncate(HOLE)


def make_tree(root: Path, rng: random.Random, files: int, *, plain: bool = False) -> None:
    """Fill an empty directory. ``plain``: only what every program carries."""
    root.mkdir(exist_ok=True)
    folders = [root]
    for number in range(max(3, files // 8)):
        folder = rng.choice(folders) / f"folder {number}"
        folder.mkdir()
        folders.append(folder)
    made: list[Path] = []
    for number in range(files):
        path = rng.choice(folders) / f"file-{number}"
        path.write_bytes(content(rng, rng.choice((0, 1, 700, 4096, 5000, 70_000, 300_000))))
        path.chmod(rng.choice((0o644, 0o600, 0o755, 0o444)))
        made.append(path)
    (root / "link to folder").symlink_to(folders[1].name)
    (root / "link to nothing").symlink_to("no/such/place")
    sparse(root / "holes", rng)
    for number in range(3):  # one file with names in several folders
        os.link(made[0], rng.choice(folders) / f"again-{number}")
    if not plain:
        _odd(root, rng, made, folders)
    for path in sorted(root.rglob("*"), reverse=True):
        moment = NS + rng.randrange(10**17)
        os.utime(path, ns=(moment, moment), follow_symlinks=False)


def _odd(root: Path, rng: random.Random, made: list[Path], folders: list[Path]) -> None:
    """What only good programs carry: names, owners, attributes, lists of rights, special files."""
    for name in (b"x" * 255, b"new\nline", b"\xff\xfe not utf-8", b" blank ", b"-rf", b"*?[a]"):
        (root / os.fsdecode(name)).write_bytes(rng.randbytes(100))
    os.mkfifo(root / "fifo")
    (root / "setuid").write_bytes(b"#!")
    (root / "setuid").chmod(0o6755)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o3777)
    for path in rng.sample(made, len(made) // 4):
        os.setxattr(path, "user.colour", rng.randbytes(rng.choice((0, 5, 3000))))
    if os.geteuid() != 0:
        return
    for path in rng.sample(made, len(made) // 4):
        os.chown(path, rng.randrange(60_000), rng.randrange(60_000))
    (root / "capable").write_bytes(b"#!")
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    os.setxattr(made[0], "trusted.key", b"1")
    os.setxattr(folders[1], "trusted.key", b"2")
    os.setxattr(root / "link to nothing", "trusted.key", b"3", follow_symlinks=False)
    os.setxattr(root / "fifo", "trusted.key", b"4")
    os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    grant(made[1], "-m", "u:1234:rw,g:77:r,m::rw")
    grant(folders[2], "-m", "u:1234:rx,d:u:1234:rwx,d:g:77:---,d:o::r")
    grant(root / "fifo", "-m", "u:55:rw")


def grant(path: Path, *words: str) -> None:
    """Set a list of rights. The tree's file system must take them; the one below /tmp does."""
    subprocess.run(["setfacl", *words, os.fspath(path)], check=True)


def change_tree(root: Path, rng: random.Random) -> None:
    """A day's work on a tree: overwrites in place, appends, removals, renames, new files."""
    files = sorted(path for path in root.rglob("file-*") if path.is_file())
    for path in rng.sample(files, len(files) // 3):
        with path.open("r+b") as file:
            size = path.stat().st_size
            file.seek(rng.randrange(size + 1))
            file.write(rng.randbytes(rng.choice((1, 100, 9000))))
    for path in rng.sample(files, len(files) // 6):
        path.unlink()
    left = [path for path in files if path.exists()]
    # Never an old name: over one of several names of a file, rsync --inplace writes into them all.
    left[0].rename(root / f"renamed-{rng.randrange(10**9)}")
    folders = sorted(path for path in root.rglob("folder *") if path.is_dir())
    shutil.rmtree(folders[-1])
    for number in range(3):
        (root / f"new-{number}").write_bytes(content(rng, 20_000))
    with (root / "holes").open("r+b") as file:
        file.seek(HOLE // 2 + (1 << 20))
        file.write(rng.randbytes(9000))


def change_unseen(root: Path, rng: random.Random) -> int:
    """Other bytes under the same size and time: only a checksum finds them. How many files."""
    files = sorted(path for path in root.rglob("file-*") if path.stat().st_size >= 700)
    chosen = rng.sample(files, max(1, len(files) // 3))
    for path in chosen:
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(before.st_size // 2)
            file.write(rng.randbytes(16))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return len(chosen)
