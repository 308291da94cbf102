"""Making, listing, finding and deleting recovery points.

A snapshot
 1. cuts: one transaction writes down the commit sequence the point is of (``Cut.begun``); the mount must be frozen or
    served by nobody, and a read transaction is opened on exactly that state; from here on the mount may go on;
 2. builds the manifest from the read transaction (build.py), committing nodes as it goes;
 3. commits: point record, ROOTS, ``Cut.done``, the mount's counter, change marks taken account of: one transaction.

What a crash leaves of it: FORMAT.md, "Crash tables".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from engine import limits, locks, registry
from engine.chunks import Context, alive
from engine.copies import outbox
from engine.errors import AlreadyExists, Busy, InvalidRequest, NotFound
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import KIND_POINT, KIND_TOMBSTONE, U64
from engine.live import rows
from engine.nodes import point as codec
from engine.nodes.point import Point, Tombstone
from engine.points.build import Seen, TreeBuilder
from engine.progress import Progress, Report

_DELETING = b"rm"  # of a pin: its worker does not read the point, it is about to delete it


class PlannedPoint(NamedTuple):
    """The id and the time of a point that is still to be made: who writes them down knows after a crash whether it
    was."""

    id: str
    time_ns: int


def plan(context: Context) -> PlannedPoint:
    """An id that no point has, and the time it is now."""
    now = context.system.time_ns()
    return PlannedPoint(codec.new_point_id(now, context.system.random(10)), now)


def snapshot(
    store: OpenStore,
    name: str,
    label: str,
    *,
    planned: PlannedPoint | None = None,
    thaw: Callable[[], None] = lambda: None,
    lock_s: float = 0,
    report: Report,
) -> Point:
    """A new point of a mount. ``thaw`` is called once the cut is taken; ``planned``: which id and time it gets;
    ``lock_s``: for how long it is locked from the start.

    Raises NotFound, Busy, StoreFull, AlreadyExists when there is a point of the planned id.
    """
    try:
        length = len(label.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("label", expected="text", found="bytes that are no UTF-8") from None
    if length > limits.LABEL_MAX:
        raise InvalidRequest(
            "label", expected=f"at most {limits.LABEL_MAX} bytes", found="a longer one"
        )
    writer = store.session.writer
    mount, cut = _cut(store.context, name, planned)
    with store.context.index.read() as txn, writer.holds.open() as hold:
        builder = TreeBuilder(
            txn,
            mount.id,
            store.reader,
            writer,
            hold,
            lambda done: report(Progress("snapshot", done, None, "entries")),
        )
        if builder.meta.seq != cut or registry.find(txn, name).points != mount.points:
            raise _moved(name)
        thaw()
        root = builder.build()
        planned = planned or plan(store.context)
        made = Point(
            id=planned.id, mount=name, mount_id=mount.id,
            sequence=mount.points + 1, time_ns=planned.time_ns, root=root, label=label,
            logical_bytes=builder.meta.used_bytes, files=builder.meta.used_inodes,
            predecessor=_newest(txn, name),
        )  # fmt: skip
        record = codec.encode_point(made)
        writer.put_record(KIND_POINT, record, hold)

        def commit(out: Txn) -> None:
            _commit(out, name, mount.points, cut, made, record)
            if lock_s:
                locks.lock_new(store.context, out, made.id, made.time_ns, lock_s)
            builder.write_roots(out)
            _forget(out, builder.seen[: limits.TXN_DELETES_MAX])

        writer.commit(commit)
    _forget_rest(store.context, builder.seen)
    return made


def _cut(context: Context, name: str, planned: PlannedPoint | None) -> tuple[registry.Mount, int]:
    with context.index.write() as txn:
        mount = registry.find(txn, name)
        if planned is not None:
            _refuse_known(txn, planned.id)
        raw = txn.get(Table.LIVE_META, rows.meta_key(mount.id))
        if raw is None:
            raise NotFound(
                f"live tree of mount {name!r}",
                expected="one",
                found="none",
                do="run 'holdfast check'",
            )
        seq = rows.decode_meta(raw).seq
        cut = rows.decode_cut(txn.get(Table.LIVE_META, rows.cut_key(mount.id)))
        txn.put(Table.LIVE_META, rows.cut_key(mount.id), cut._replace(begun=seq).encode())
    return mount, seq


def _refuse_known(txn: Txn, point_id: str) -> None:
    if not codec.is_point_id(point_id):
        raise InvalidRequest(f"point id {point_id!r}", expected="one that was planned")
    if txn.get(Table.POINTS, point_id.encode()) is not None:
        raise AlreadyExists(f"point {point_id}", expected="a new id", found="a point of that id")


def _moved(name: str) -> Busy:
    return Busy(f"snapshot of {name!r}", expected="the mount to stand still during the cut", found="another commit",
                do="try again")  # fmt: skip


def _newest(txn: Txn, name: str) -> str:
    newest = latest(txn, name)
    return "" if newest is None else newest.id


def _commit(txn: Txn, name: str, before: int, cut: int, made: Point, record: bytes) -> None:
    mount = registry.find(txn, name)
    if mount.points != before:
        raise _moved(name)
    _refuse_known(txn, made.id)
    registry.save(txn, mount._replace(points=before + 1))
    raw = txn.get(Table.LIVE_META, rows.cut_key(mount.id))
    begun = rows.decode_cut(raw).begun
    txn.put(Table.LIVE_META, rows.cut_key(mount.id), rows.Cut(begun, cut).encode())
    txn.put(Table.POINTS, made.id.encode(), record)
    outbox.enqueue(txn, name, made.id, made.time_ns)


def _forget(txn: Txn, seen: list[Seen]) -> None:
    """Delete change marks that still say what was taken account of; a later change has written them anew."""
    for table, key, value in seen:
        if txn.get(table, key) == value:
            txn.delete(table, key)


def _forget_rest(context: Context, seen: list[Seen]) -> None:
    for at in range(limits.TXN_DELETES_MAX, len(seen), limits.TXN_DELETES_MAX):
        with context.index.write() as txn:
            _forget(txn, seen[at : at + limits.TXN_DELETES_MAX])


# --- listing and finding ------------------------------------------------------------------------------------


def every(txn: Txn) -> list[Point]:
    """All points, oldest first; ids do not tell the order of what was made in one millisecond."""
    points = [codec.decode_point(raw) for _, raw in txn.whole(Table.POINTS)]
    return sorted(points, key=lambda point: (point.time_ns, point.mount, point.sequence))


def latest(txn: Txn, name: str) -> Point | None:
    """The point of a mount that was made last, whatever the clock said."""
    points = (point for point in every(txn) if point.mount == name)
    return max(points, key=lambda point: point.sequence, default=None)


def find(txn: Txn, reference: str) -> Point:
    """The point of that id, of a unique prefix of it, or ``MOUNT@latest``. Raises NotFound, InvalidRequest."""
    if reference.endswith("@latest"):
        name = reference.removesuffix("@latest")
        registry.find(txn, name)
        last = latest(txn, name)
        found = [] if last is None else [last]
    else:
        wanted = reference.rpartition("@")[2].lower()
        prefix = wanted.encode(errors="replace")
        found = (
            [codec.decode_point(raw) for _, raw in txn.scan(Table.POINTS, prefix=prefix)]
            if prefix
            else []
        )
    if not found:
        every(txn)  # where a row is hidden by damage, that is what is said
        raise NotFound(f"point {reference!r}", expected="a point of this store", found="none of that id",
                       do="run 'holdfast points'")  # fmt: skip
    if len(found) > 1:
        raise InvalidRequest(f"point {reference!r}", expected="an id or a unique prefix", found=f"{len(found)} points",
                             do="give more of the id")  # fmt: skip
    return found[0]


def find_all(txn: Txn, references: Iterable[str]) -> list[Point]:
    """The points, each once however often it is named. Raises NotFound, InvalidRequest."""
    return list({point.id: point for point in (find(txn, one) for one in references)}.values())


def remove(store: OpenStore, references: Iterable[str]) -> list[Point]:
    """Delete points, all of them or none; their bytes go with the next collection.

    Raises NotFound, Held while one is locked, Busy while one is open for reading.  Once a tombstone is in a pack, an
    index made again from packs has the point no more: so it is written when nobody reads or locks the point, and nobody
    begins to.
    """
    session, context = store.session, store.context
    locks.regain_kept(context)
    with context.index.write() as txn:
        points = find_all(txn, references)
        pins = [U64.pack(session.worker.id) + point.id.encode() for point in points]
        now = locks.refuse_held(context, txn, (point.id for point in points)).latest
        _nobody_reads(context, txn, {point.id for point in points})
        for pin in pins:
            txn.put(Table.PINS, pin, _DELETING)

    def commit(txn: Txn) -> None:
        for point in points:
            if not txn.delete(Table.POINTS, point.id.encode()):
                raise NotFound(f"point {point.id}", found="it was deleted meanwhile")
            locks.forget(txn, point.id)
            outbox.removed(txn, point.id, now)

    try:
        with session.writer.holds.open() as hold:
            for point in points:
                tomb = codec.encode_tombstone(Tombstone(point.id, now))
                session.writer.put_record(KIND_TOMBSTONE, tomb, hold)
            session.writer.commit(commit)
    finally:
        with context.index.write() as txn:
            for pin in pins:
                txn.delete(Table.PINS, pin)
    return points


def _nobody_reads(context: Context, txn: Txn, names: set[str]) -> None:
    for key, _ in txn.scan(Table.PINS):
        name, worker = key[8:].decode(), U64.unpack(key[:8])[0]
        if name in names and alive(context, worker):
            raise Busy(f"point {name}", expected="nobody reading it", found=f"worker {worker}",
                       do="unmount it, or let the restore end")  # fmt: skip


def pin(store: OpenStore, reference: str) -> Point:
    """The point, kept from deletion until the store is closed. Raises NotFound, Busy while it is being deleted."""
    worker = store.reading.id  # opened before the transaction: it needs one itself
    with store.context.index.write() as txn:
        point = find(txn, reference)
        _nobody_deletes(store.context, txn, point.id)
        txn.put(Table.PINS, U64.pack(worker) + point.id.encode(), b"")
    return point


def _nobody_deletes(context: Context, txn: Txn, name: str) -> None:
    for key, value in txn.scan(Table.PINS):
        other = U64.unpack(key[:8])[0]
        if value and key[8:] == name.encode() and alive(context, other):
            raise Busy(f"point {name}", expected="it to stay", found=f"its deletion by worker {other}",
                       do="choose another point")  # fmt: skip


def lock(
    store: OpenStore, reference: str, *, until_ns: int = 0, for_s: float = 0
) -> tuple[Point, int]:
    """Lock a point until a time, or for so long from now on; with until when it is.

    Raises NotFound, InvalidRequest, Held for less than there is, Busy while it is being deleted: its tombstone may be
    in a pack by then.
    """
    locks.regain_kept(store.context)
    with store.context.index.write() as txn:
        point = find(txn, reference)
        _nobody_deletes(store.context, txn, point.id)
        return point, locks.lock(store.context, txn, point.id, until_ns=until_ns, for_s=for_s)
