"""The mounts of a store: their rows, their creation, and which worker serves each.

A mount is served by one worker at a time: claiming it is a transaction that finds the row's worker gone.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from engine.chunks import Context, alive
from engine.errors import AlreadyExists, Busy, Corrupt, InvalidRequest, NotFound
from engine.index import Table, Txn
from engine.index.rows import U64
from engine.ingest.mode import CHOICES

_ROW = struct.Struct("<IBQQQ")
_FILES = struct.Struct("<Q")  # follows where files are limited
_NEXT = b"next_mount"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MODES = tuple(CHOICES)
NO_QUOTA = 0
_MOST = 2**63 - 1


class Mount(NamedTuple):
    """A mount. ``quota``: bytes, ``files``: inodes of every type, 0 for no limit; ``worker``: who serves it, 0 nobody;
    ``points``: made so far."""

    name: str
    id: int
    chunking: str
    quota: int
    worker: int
    points: int
    files: int = NO_QUOTA


def valid_name(name: str) -> str:
    """The name, if a mount may have it: it becomes part of paths, so letters, digits, dot, dash, underscore."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"mount name {name!r}",
            expected="1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit",
            do="choose another name",
        )  # fmt: skip
    return name


def _decode(name: str, raw: bytes) -> Mount:
    try:
        number, mode, quota, worker, points = _ROW.unpack_from(raw)
        limited = len(raw) > _ROW.size
        files = _FILES.unpack_from(raw, _ROW.size)[0] if limited else NO_QUOTA
        if len(raw) != _ROW.size + limited * _FILES.size or (limited and not files):
            raise struct.error
        return Mount(name, number, _MODES[mode], quota, worker, points, files)
    except (struct.error, IndexError):
        raise Corrupt(f"mount {name}", expected="a mount's row", found=raw.hex()) from None


def save(txn: Txn, mount: Mount) -> None:
    """Write the mount's row."""
    mode = _MODES.index(mount.chunking)
    row = _ROW.pack(mount.id, mode, mount.quota, mount.worker, mount.points)
    if mount.files:
        row += _FILES.pack(mount.files)
    txn.put(Table.MOUNTS, mount.name.encode(), row)


def find(txn: Txn, name: str) -> Mount:
    """The mount of that name. Raises NotFound."""
    raw = txn.get(Table.MOUNTS, valid_name(name).encode())
    if raw is None:
        known = ", ".join(mount.name for mount in every(txn)) or "none"
        raise NotFound(f"mount {name!r}", expected="a mount of this store", found=f"mounts: {known}",
                       do="run 'holdfast create'")  # fmt: skip
    return _decode(name, raw)


def every(txn: Txn) -> list[Mount]:
    """All mounts, by name."""
    return [_decode(key.decode(), raw) for key, raw in txn.whole(Table.MOUNTS)]


def create(txn: Txn, name: str, quota: int, chunking: str, files: int = NO_QUOTA) -> Mount:
    """A new mount's row. Raises AlreadyExists, InvalidRequest."""
    valid_name(name)
    if chunking not in CHOICES:
        raise InvalidRequest(
            f"chunking {chunking!r}", expected=" or ".join(CHOICES), do="choose one of them"
        )
    if txn.get(Table.MOUNTS, name.encode()) is not None:
        raise AlreadyExists(f"mount {name!r}", expected="a new name", found="a mount of that name")
    raw = txn.get(Table.META, _NEXT)
    number = 1 if raw is None else U64.unpack(raw)[0]
    txn.put(Table.META, _NEXT, U64.pack(number + 1))
    mount = Mount(name, number, chunking, quota, 0, 0, files)
    save(txn, mount)
    return mount


def change(txn: Txn, name: str, quota: int | None, files: int | None) -> Mount:
    """Other limits for a mount; None leaves one as it is. Raises NotFound, InvalidRequest."""
    mount = find(txn, name)
    quota = mount.quota if quota is None else quota
    files = mount.files if files is None else files
    for what, value in (("quota", quota), ("largest number of files", files)):
        if not 0 <= value <= _MOST:
            raise InvalidRequest(
                f"{what} of mount {name!r}", expected=f"0, for none, to {_MOST}", found=str(value)
            )
    mount = mount._replace(quota=quota, files=files)
    save(txn, mount)
    return mount


def claim(context: Context, name: str, worker: int) -> Mount:
    """Make ``worker`` the one that serves the mount. Raises Busy while another that lives does."""
    with context.index.write() as txn:
        mount = find(txn, name)
        if mount.worker not in (0, worker) and alive(context, mount.worker):
            raise Busy(f"mount {name!r}", expected="nobody serving it", found=f"worker {mount.worker}",
                       do="unmount it there first")  # fmt: skip
        mount = mount._replace(worker=worker)
        save(txn, mount)
    return mount


def let_go(context: Context, name: str, worker: int) -> None:
    """The worker serves the mount no longer."""
    with context.index.write() as txn:
        mount = find(txn, name)
        if mount.worker == worker:
            save(txn, mount._replace(worker=0))
