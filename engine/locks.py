"""Locks of recovery points: until when nobody may delete one, whoever asks.

A lock is a row ``locked POINT`` of META, and a line of the file ``locked`` that is synced before the row's transaction
ends: an index made anew takes them from there, and so does whoever locks or deletes, for an index may be an older one
that was put back. Both are only ever raised; a row goes with its point, in the transaction
that deletes it, and that refuses while the lock holds. A lock ends when the earliest time that it may be (``clock``) is
past it; it begins from the latest.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from zlib import crc32

from engine import clock, limits
from engine.chunks import Context
from engine.errors import Corrupt, Held, InvalidRequest, from_os
from engine.index import Table, Txn
from engine.index.rows import U64
from engine.nodes.point import is_point_id
from engine.seam import save

FILE = "locked"
_PREFIX = b"locked "
_SECOND = 10**9
_LINE = 60  # bytes of one, about


def until(txn: Txn, point: str) -> int:
    """Until when a point is locked, ns since the epoch; 0 when it never was. The lock may have ended."""
    raw = txn.get(Table.META, _PREFIX + point.encode("ascii"))
    return 0 if raw is None else _value(raw)


def every(txn: Txn) -> dict[str, int]:
    """Every lock, by point."""
    return {
        key[len(_PREFIX) :].decode("ascii"): _value(raw)
        for key, raw in txn.scan(Table.META, prefix=_PREFIX)
    }


def put(context: Context, txn: Txn, wanted: dict[str, int]) -> None:
    """Lock points in a write transaction; none is shortened. Raises what the store's file system says."""
    longer = {point: end for point, end in wanted.items() if end > until(txn, point)}
    if not longer:
        return
    _written(context, txn, longer)
    regain(txn, longer)


def regain(txn: Txn, wanted: dict[str, int]) -> None:
    """Rows of locks that the file has."""
    for point, end in wanted.items():
        txn.put(Table.META, _PREFIX + point.encode("ascii"), U64.pack(end))


def lock(context: Context, txn: Txn, point: str, *, until_ns: int = 0, for_s: float = 0) -> int:
    """Lock a point until a time, or for so long from now on; until when it is. The same again is fine.

    Raises InvalidRequest, and Held for less than there is.
    """
    now = clock.look(context.system, txn, context.root)
    if bool(until_ns) == bool(for_s):
        raise InvalidRequest(f"lock of point {point}", expected="a time or a duration, one of them")
    end = until_ns or now.latest + int(for_s * _SECOND)
    if end <= now.latest:
        raise InvalidRequest(
            f"lock of point {point}", expected=f"a time after {shown(now.latest)}", found=shown(end)
        )
    if end > now.latest + limits.LOCK_MAX * _SECOND:
        raise InvalidRequest(
            f"lock of point {point}", expected="100 years at most: nobody can take it back", found=shown(end)
        )  # fmt: skip
    known = until(txn, point)
    if end < known:
        raise Held(
            f"lock of point {point}", expected=f"a time not before {shown(known)}, until when it is locked",
            found=shown(end), do="a lock can be made longer only",
        )  # fmt: skip
    put(context, txn, {point: end})
    return end


def lock_new(context: Context, txn: Txn, point: str, made_ns: int, for_s: float) -> None:
    """Lock a point that is being made, for so long."""
    now = clock.look(context.system, txn, context.root)
    put(context, txn, {point: max(made_ns, now.latest) + int(for_s * _SECOND)})


def refuse_held(context: Context, txn: Txn, points: Iterable[str]) -> clock.Now:
    """In a write transaction that is about to delete points: the time. Raises Held while one of them is locked."""
    now = clock.look(context.system, txn, context.root)
    for point in points:
        end = until(txn, point)
        if end > now.earliest:
            wall = context.system.time_ns()
            by = (
                f" (the clock says {shown(wall)}, and may have been set: this store knows of {shown(now.earliest)})"
                if wall > end
                else ""
            )
            raise Held(
                f"point {point}", expected="no lock", found=f"one until {shown(end)}{by}",
                do="it can be deleted after that, and by nobody before",
            )  # fmt: skip
    return now


def forget(txn: Txn, point: str) -> None:
    """The point is deleted."""
    txn.delete(Table.META, _PREFIX + point.encode("ascii"))


def shown(time_ns: int) -> str:
    """A time for people."""
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    try:
        return f"{moment + datetime.timedelta(seconds=time_ns // _SECOND):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        return f"{time_ns // _SECOND} s after 1970"


def _value(raw: bytes) -> int:
    if len(raw) != U64.size:
        raise Corrupt("index row of a lock", expected=f"{U64.size} bytes", found=f"{len(raw)}")
    return int(U64.unpack(raw)[0])


# --- the file -----------------------------------------------------------------------------------------------


def _line(point: str, end: int) -> bytes:
    body = f"{point} {end}"
    return f"{body} {crc32(body.encode('ascii')):08x}\n".encode("ascii")


def _written(context: Context, txn: Txn, locks: dict[str, int]) -> None:
    """Add lines, synced. One process at a time is in a write transaction, so nobody else is at the file."""
    system, path = context.system, os.path.join(context.root, FILE)
    lines = b"".join(_line(point, end) for point, end in locks.items())
    try:
        new = not system.exists(path)
        fd = system.open(path, os.O_RDWR | os.O_CREAT)
        try:
            size = system.size(fd)
            spare = size - limits.LOCK_SPARE * _LINE
            if spare < 0 or spare < 2 * len(every(txn)) * _LINE:
                # Behind what a crash may have torn.
                torn = size and system.pread(fd, 1, size - 1) != b"\n"
                system.pwritev(fd, [b"\n" + lines if torn else lines], size)
                system.fsync(fd)
                if new:
                    system.fsync_dir(context.root)
                return
        finally:
            system.close(fd)
        needed = _merged(kept(context)[0], every(txn), locks)
        needed = {
            point: end
            for point, end in needed.items()
            if point in locks or txn.get(Table.POINTS, point.encode("ascii")) is not None
        }
        save(system, path, b"".join(_line(*one) for one in needed.items()))
    except OSError as error:
        raise from_os(error, path) from None


def _merged(*several: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in several:
        for point, end in one.items():
            found[point] = max(end, found.get(point, 0))
    return found


def kept(context: Context) -> tuple[dict[str, int], int]:
    """(locks by point, lines that cannot be read) of the file."""
    system, path = context.system, os.path.join(context.root, FILE)
    try:
        fd = system.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return {}, 0
    except OSError as error:
        raise from_os(error, path) from None
    try:
        raw = system.pread(fd, system.size(fd), 0)
    except OSError as error:
        raise from_os(error, path) from None
    finally:
        system.close(fd)
    locks: dict[str, int] = {}
    damaged = 0
    for line in raw.split(b"\n"):
        one = _read(line) if line else None
        if one is not None:
            locks[one[0]] = max(one[1], locks.get(one[0], 0))
        elif line:
            damaged += 1
    return locks, damaged


def _read(line: bytes) -> tuple[str, int] | None:
    try:
        point, end, _ = line.decode("ascii").split(" ")
        number = int(end)
    except ValueError:
        return None
    if not is_point_id(point) or not 0 < number < 2**63:
        return None
    return (point, number) if _line(point, number) == line + b"\n" else None


def missing(context: Context, txn: Txn) -> dict[str, int]:
    """Locks of the index that the file does not have: an index made anew would not."""
    locks = every(txn)
    known = kept(context)[0] if locks else {}
    return {point: end for point, end in locks.items() if known.get(point, 0) < end}


def regain_kept(context: Context) -> int:
    """Rows for locks of points that are here which only the file has; how many. An index that was put back from an
    older copy lacks them, and so does one whose writer was killed behind the line."""
    known = kept(context)[0]
    if not known:
        return 0
    with context.index.read() as txn:
        if not _lacking(txn, known):
            return 0
    with context.index.write() as txn:
        found = _lacking(txn, known)
        regain(txn, found)
    return len(found)


def _lacking(txn: Txn, known: dict[str, int]) -> dict[str, int]:
    return {
        point: end
        for point, end in known.items()
        if end > until(txn, point) and txn.get(Table.POINTS, point.encode("ascii")) is not None
    }


def keep_missing(context: Context) -> int:
    """Have the file know every lock; how many it did not."""
    with context.index.write() as txn:
        found = missing(context, txn)
        if found:
            _written(context, txn, found)
    return len(found)
