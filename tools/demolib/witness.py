"""What a tree of files was: noted when it is written, compared with what is restored.

A note holds, for every path, all that a restore promises: kind, mode, owner, modification time in
nanoseconds, content (SHA-256), xattrs, symlink target, device number, which names are one
file, and that holes are still holes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tools.demolib.console import name_text

# hashlib lets go of the interpreter's lock while it works, so two threads use two cores.
_THREADS = 2
# A copy may place its holes a little differently (tools look for zeros in runs of 1 KiB to
# 64 KiB); more than this is a hole that was filled.
HOLE_SLACK_SHARE = 0.10
HOLE_SLACK = 1 << 20

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass(frozen=True, slots=True)
class Noted:
    """One path. Sizes in bytes; `twin` is the first path of the same file (itself, when alone)."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    rdev: int
    size: int
    allocated: int
    sha256: str
    target: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    twin: bytes


Tree = dict[bytes, Noted]
# `allocated` has a rule of its own.
_COMPARED = (
    "kind", "mode", "uid", "gid", "mtime_ns", "rdev", "size", "sha256", "target", "xattrs", "twin",
)  # fmt: skip


def note(
    root: Path,
    *,
    skip: frozenset[bytes] = frozenset(),
    namespaces: tuple[str, ...] = ("user.",),
) -> Tree:
    """Note everything below `root` (not `root` itself), without the top-level names in `skip`.

    Of xattrs those whose names begin with one of `namespaces` count. Reads every byte.
    Raises OSError when something cannot be read.
    """
    top = os.fsencode(root)
    found: Tree = {}
    first_names: dict[tuple[int, int], bytes] = {}
    to_read: list[bytes] = []
    for path in _walk(top, skip):
        full = os.path.join(top, path)
        status = os.lstat(full)
        identity = (status.st_dev, status.st_ino)
        twin = path
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            twin = first_names.setdefault(identity, path)
        found[path] = _noted(full, status, twin, namespaces)
        if stat.S_ISREG(status.st_mode) and twin == path:
            to_read.append(path)
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            digests = pool.map(lambda path: _sha256(os.path.join(top, path)), to_read)
            for path, digest in zip(to_read, digests, strict=True):
                found[path] = replace(found[path], sha256=digest)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for path, entry in found.items():
        if entry.twin != path:
            found[path] = replace(entry, sha256=found[entry.twin].sha256)
    return found


def below(tree: Tree, folder: bytes) -> Tree:
    """The part of a note below `folder`, as if `folder` had been the root."""
    prefix = folder + b"/"
    return {
        path[len(prefix) :]: replace(entry, twin=entry.twin.removeprefix(prefix))
        for path, entry in tree.items()
        if path.startswith(prefix)
    }


def compare(expected: Tree, found: Tree) -> list[str]:
    """Every difference, one line each; an empty list when the trees are equal."""
    lines = [f"{name_text(path)}: missing" for path in sorted(expected.keys() - found.keys())]
    lines += [f"{name_text(path)}: not expected" for path in sorted(found.keys() - expected.keys())]
    for path in sorted(expected.keys() & found.keys()):
        lines += [
            f"{name_text(path)}: {text}" for text in _differences(expected[path], found[path])
        ]
    return lines


def content_bytes(tree: Tree) -> int:
    """Bytes of content in a tree: every file once, holes not counted."""
    return sum(
        min(entry.size, entry.allocated)
        for path, entry in tree.items()
        if entry.kind == "file" and entry.twin == path
    )


def _differences(expected: Noted, found: Noted) -> Iterator[str]:
    for field in _COMPARED:
        want, have = getattr(expected, field), getattr(found, field)
        if want == have:
            continue
        if field == "twin":
            yield f"is one file with {name_text(have)}, expected with {name_text(want)}"
            continue
        if field == "mode":
            want, have = oct(want), oct(have)
        yield f"{field} is {have!r}, expected {want!r}"
    most = expected.allocated + expected.allocated * HOLE_SLACK_SHARE + HOLE_SLACK
    if expected.allocated < expected.size and found.allocated > most:
        yield f"takes {found.allocated} bytes on disk, expected about {expected.allocated}: no holes"


def _walk(top: bytes, skip: frozenset[bytes]) -> Iterator[bytes]:
    """Paths below `top`, relative to it, in a fixed order (parents before members)."""
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(os.path.join(top, folder)) as listing:
            members = sorted(listing, key=lambda member: member.name)
        for member in members:
            if not folder and member.name in skip:
                continue
            path = os.path.join(folder, member.name)
            yield path
            if member.is_dir(follow_symlinks=False):
                waiting.append(path)


def _noted(full: bytes, status: os.stat_result, twin: bytes, namespaces: tuple[str, ...]) -> Noted:
    is_file = stat.S_ISREG(status.st_mode)
    is_link = stat.S_ISLNK(status.st_mode)
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return Noted(
        kind=_KINDS.get(stat.S_IFMT(status.st_mode), "unknown"),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        rdev=status.st_rdev if is_device else 0,
        size=status.st_size if is_file else 0,
        allocated=status.st_blocks * 512 if is_file else 0,
        sha256="",
        target=os.readlink(full) if is_link else b"",
        xattrs=_xattrs(full, namespaces),
        twin=twin,
    )


def _xattrs(full: bytes, namespaces: tuple[str, ...]) -> tuple[tuple[str, bytes], ...]:
    names = os.listxattr(full, follow_symlinks=False)
    return tuple(
        (name, os.getxattr(full, name, follow_symlinks=False))
        for name in sorted(names)
        if name.startswith(namespaces)
    )


def _sha256(full: bytes) -> str:
    with open(full, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
