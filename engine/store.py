"""The facade: a store as the layers above see it. Everything public of the engine is a method or a value here.

One ``Store`` per process and path; thread-safe.  A store that only reads has no worker: it opens one at the first
call that writes.
"""

from __future__ import annotations

import logging
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

from engine import home, limits, locks, registry
from engine.copies.elsewhere import Elsewhere
from engine.errors import (
    HoldfastError,
    LocationUnavailable,
    PermissionDenied,
    ReadOnly,
    StoreFull,
    from_os,
)  # fmt: skip
from engine.incidents import Journal, reset
from engine.ingest import choose_mode
from engine.nodes import Entry
from engine.nodes.point import Point
from engine.points import diff, snapshot
from engine.points.snapshot import PlannedPoint
from engine.points.view import PointView
from engine.progress import Report, silent
from engine.registry import Mount

if TYPE_CHECKING:  # imported where they are used: no process needs all of them
    from engine.keys import Opener, Secret
    from engine.live import LiveTree, Ports
    from engine.maintain.adopt import Furnish
    from engine.maintain.borrow import Lent
    from engine.maintain.check import CheckReport, Problem
    from engine.maintain.forecast import Forecast
    from engine.maintain.refill import AdoptReport
    from engine.maintain.repair import RepairReport
    from engine.maintain.report import CollectReport
    from engine.maintain.scrub import ScrubReport
    from engine.points.novelty import Novelty
    from engine.points.stream import Stream
    from engine.restore import RestoreReport
    from engine.storecopies import StoreCopies

log = logging.getLogger("holdfast.engine")


class PointInfo(NamedTuple):
    """A recovery point. ``seq`` counts the mount's points from 1; ``files``: inodes of every type; ``locked_ns``: until
    when nobody may delete it, 0 when it never was locked."""

    id: str
    mount: str
    seq: int
    time_ns: int
    label: str
    logical_bytes: int
    files: int
    locked_ns: int = 0


def _info(point: Point, locked_ns: int = 0) -> PointInfo:
    return PointInfo(
        point.id,
        point.mount,
        point.sequence,
        point.time_ns,
        point.label,
        point.logical_bytes,
        point.files,
        locked_ns,
    )


class Store:
    """An open store. Use as a context manager, or close it."""

    def __init__(
        self, opened: home.OpenStore, lent: Lent | None = None, cache: int | None = None
    ) -> None:  # fmt: skip
        self._open = opened
        self.borrowed = None if lent is None else lent.found
        """Of a borrowed store: what was found at the location that it was made from."""
        self.scratch = None if lent is None else lent.scratch
        """Of a borrowed store: its directory, which may be given to a process that goes on with it."""
        opened.context.files.elsewhere = self._elsewhere = Elsewhere(opened.context, cache)
        self._served: list[str] = []

    @staticmethod
    def init(path: str, *, seal: Sequence[Secret] = ()) -> None:
        """Create an empty store; ``seal``: encrypted, and who may open it. Raises AlreadyExists."""
        home.init(path, seal=seal)

    @classmethod
    def open(cls, path: str, *, cache: int | None = None, key: Opener | None = None) -> Self:
        """Open a store. ``cache``: bytes on disk for what is at storage locations only, as far as there is room;
        ``key``: of a sealed one, None for what is at hand (``engine.supply``).

        Raises NotFound, FormatTooNew, Corrupt, Busy; PermissionDenied without the right key.
        """
        return cls(home.OpenStore(path, key=key), cache=cache)

    @staticmethod
    def adopt(
        path: str, url: str, secret: Opener | None, *, credentials: str = "environment", name: str = "origin",
        take_over: bool = False, seal: Sequence[Secret] = (), report: Report = silent,
        furnish: Furnish = lambda path, found: None,
    ) -> AdoptReport:  # fmt: skip
        """Make a store again from a storage location alone; see ``engine.maintain.adopt``.

        Without ``take_over`` the location is only read: who wrote there before may go on. ``seal``: as of ``init``.
        """
        from engine.maintain import adopt

        return adopt.adopt(
            path,
            url,
            secret,
            credentials=credentials,
            name=name,
            take_over=take_over,
            seal=seal,
            report=report,
            furnish=furnish,
        )

    @classmethod
    @contextmanager
    def borrow(
        cls, url: str, secret: Opener | None, *, credentials: str = "environment", scratch: str | None = None,
        report: Report = silent,
    ) -> Iterator[Self]:  # fmt: skip
        """A store that only reads, made from a storage location alone for as long as the block runs.

        Nothing is written at the location. ``scratch``: the directory to make it below, else TMPDIR or /var/tmp; see
        ``engine.maintain.borrow``.
        """
        from engine.maintain import borrow

        with (
            borrow.borrowed(
                url, secret, credentials=credentials, scratch=scratch, report=report
            ) as lent,
            cls(lent.store, lent) as store,
        ):
            yield store

    def close(self) -> None:
        """Commit what is pending, stop serving, leave. Close live trees first."""
        try:
            while self._served:
                registry.let_go(
                    self._open.context, self._served.pop(), self._open.session.worker.id
                )
        finally:
            self._elsewhere.close()
            self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> str:
        return self._open.path

    @property
    def incidents(self) -> Journal:
        """Where this process notes what wants attention."""
        return self._open.context.incidents

    @property
    def copies(self) -> StoreCopies[Store]:
        """Copies of points at storage locations."""
        from engine.storecopies import StoreCopies

        return StoreCopies(self._open, self._changing, Store)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """What the store's own files refuse during an operation is of the error family, and an incident."""
        try:
            yield
        except OSError as error:
            known = from_os(error, f"store {self.path}")
            self.incidents.error(known)
            raise known from None
        except HoldfastError as error:
            self.incidents.error(error)
            raise

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """As ``_noting``, of what changes the store. Raises ReadOnly for a borrowed one."""
        self._open.refuse_borrowed()
        with self._noting():
            yield

    # --- mounts -------------------------------------------------------------------------------------------

    def create_mount(
        self,
        name: str,
        quota: int | None = None,
        chunking: str = "auto",
        files: int | None = None,
    ) -> Mount:
        """A new, empty mount. ``quota``: bytes; ``files``: inodes. Raises AlreadyExists, InvalidRequest."""
        from engine.live import create_tree

        context = self._open.context
        with self._changing(), context.index.write() as txn:
            mount = registry.create(
                txn, name, quota or registry.NO_QUOTA, chunking, files or registry.NO_QUOTA
            )
            now = context.system.time_ns()
            create_tree(txn, mount.id, secret=context.system.random(16), now_ns=now)
        return mount

    def refuse_held(self, name: str) -> None:
        """Before a mount is deleted. Raises Held while a point of it is locked, NotFound."""
        from engine.maintain import unmake

        unmake.refuse_held(self._open.context, name)

    def remove_mount(self, name: str, *, report: Report = silent) -> int:
        """Delete a mount with its points and all that is in it; how many points it had.

        Raises NotFound, Busy while it is served or one of its points is open. What is killed half way is finished by
        the next collection.
        """
        from engine.maintain import unmake

        with self._changing():
            return unmake.remove_mount(self._open, name, report=report)

    def change_mount(
        self, name: str, *, quota: int | None = None, files: int | None = None
    ) -> Mount:
        """Other limits for a mount: 0 for none, None as they are. Who serves it follows within seconds.

        What is in it already stays, also when it is more. Raises NotFound, InvalidRequest.
        """
        with self._changing(), self._open.context.index.write() as txn:
            return registry.change(txn, name, quota, files)

    def mounts(self) -> list[Mount]:
        """All mounts, by name."""
        with self._open.context.index.read() as txn:
            return registry.every(txn)

    def mount(self, name: str) -> Mount:
        """The mount of that name. Raises NotFound."""
        with self._open.context.index.read() as txn:
            return registry.find(txn, name)

    def open_live(self, name: str) -> LiveTree:
        """Serve a mount's live tree. Raises Busy while another process does; close the tree before the store."""
        from engine.live import LiveTree, Quota

        with self._changing():
            session = self._open.session
            mount = registry.claim(self._open.context, name, session.worker.id)
        self._served.append(name)
        return LiveTree(
            mount.id, self._ports(mount), quota=Quota(mount.quota, mount.files), chunking=mount.chunking
        )  # fmt: skip

    def _ports(self, mount: Mount) -> Ports:
        from engine.live import Ports

        session = self._open.session
        return Ports(
            index=self._open.context.index, reader=self._open.reader, writer=session.writer, seal=session.sealer.seal,
            seal_small=session.sealer.seal_small,
            choose_mode=choose_mode, space_left=self.space_left, last_point_entry=self._last_point(mount.name),
            entry_span=self._entry_span, entry_mode=lambda entry: entry.chunking, flush=session.sealer.flush,
            heartbeat=session.writer.acknowledge, incidents=self.incidents, name=f"mount {mount.name}",
            quota=lambda: self._quota(mount.name),
        )  # fmt: skip

    def _quota(self, name: str) -> tuple[int, int]:
        mount = self.mount(name)
        return mount.quota, mount.files

    def _last_point(self, name: str) -> Callable[[bytes], Entry | None]:
        """Look-up by path in the mount's newest point; the point is found again when there is a newer one."""
        known: list[tuple[int, PointView | None]] = [(-1, None)]

        def find(path: bytes) -> Entry | None:
            with self._open.context.index.read() as txn:
                count = registry.find(txn, name).points
                if known[0][0] != count:
                    point = snapshot.latest(txn, name)
                    view = None if point is None else PointView(self._open.reader, point.root)
                    known[0] = (count, view)
            view = known[0][1]
            entry = None if view is None else view.lookup(path)
            return entry if entry is not None and stat.S_ISREG(entry.mode) else None

        return find

    def _entry_span(self, entry: Entry, number: int) -> list[tuple[int, int, bytes, int]]:
        return PointView(self._open.reader, entry).span(entry, number)

    def counters(self) -> dict[str, int]:
        """What this process has stored since it opened the store: chunks that were there already, chunks stored as a
        delta of another, bytes."""
        writer = self._open.session.writer
        return {
            "dedupe_hits": writer.dedupe_hits,
            "delta_hits": writer.delta_hits,
            "appended_bytes": writer.stored_bytes,
        }

    def space_left(self) -> int:
        """Bytes writers may still use on the store's file system; its reserve is taken off.

        Raises LocationUnavailable.
        """
        try:
            free, total = self._open.context.system.space(self._open.path)
        except OSError as error:
            raise from_os(error, f"store {self._open.path}") from None
        part = max(limits.RESERVE_MIN, int(total * limits.RESERVE_PART))
        return max(0, free - min(limits.RESERVE, part))

    # --- recovery points ----------------------------------------------------------------------------------

    def plan_point(self) -> PlannedPoint:
        """Id and time of a point to be made: its id can be written down before ``snapshot`` makes it."""
        return snapshot.plan(self._open.context)

    def snapshot(
        self,
        name: str,
        label: str = "",
        *,
        planned: PlannedPoint | None = None,
        thaw: Callable[[], None] = lambda: None,
        lock_s: float = 0,
        report: Report = silent,
    ) -> PointInfo:
        """A new point of a mount that stands still; ``thaw`` is called when it may go on; ``lock_s``: for how long it
        is locked from the start.

        Raises NotFound, Busy, StoreFull, AlreadyExists when there is a point of the planned id.
        """
        with self._changing():
            made = snapshot.snapshot(
                self._open, name, label, planned=planned, thaw=thaw, lock_s=lock_s, report=report
            )
            with self._open.context.index.read() as txn:
                return _info(made, locks.until(txn, made.id))

    def points(self, name: str | None = None) -> list[PointInfo]:
        """Points of one mount or of all, oldest first. Raises NotFound for a mount that does not exist."""
        with self._open.context.index.read() as txn:
            if name is not None:
                registry.find(txn, name)
            ends = locks.every(txn)
            return [
                _info(p, ends.get(p.id, 0))
                for p in snapshot.every(txn)
                if name is None or p.mount == name
            ]

    def roots(self, name: str) -> list[tuple[PointInfo, Entry]]:
        """Points of a mount, oldest first, each with its root directory's attributes. Raises NotFound."""
        with self._open.context.index.read() as txn:
            registry.find(txn, name)
            ends = locks.every(txn)
            return [
                (_info(p, ends.get(p.id, 0)), p.root)
                for p in snapshot.every(txn)
                if p.mount == name
            ]

    def point(self, reference: str) -> PointInfo:
        """A point by id, unique prefix, or MOUNT@latest. Raises NotFound, InvalidRequest."""
        with self._open.context.index.read() as txn:
            found = snapshot.find(txn, reference)
            return _info(found, locks.until(txn, found.id))

    def glance(self, reference: str) -> PointView:
        """A point's tree for browsing: nothing keeps the point from being deleted meanwhile; reads then fail."""
        with self._open.context.index.read() as txn:
            return PointView(self._open.reader, snapshot.find(txn, reference).root)

    def view(self, reference: str) -> PointView:
        """A point's tree, kept from deletion until the store is closed.

        Where the index cannot be written, it is read all the same: a restore must not need a disk in order.
        """
        try:
            with self._noting():
                return PointView(self._open.reader, snapshot.pin(self._open, reference).root)
        except (StoreFull, ReadOnly, PermissionDenied, LocationUnavailable) as error:
            log.warning(
                "nothing keeps point %s from being deleted while it is read: %s", reference, error
            )
            return self.glance(reference)

    def stream(self, reference: str) -> Stream:
        """A point's tree, while all of it that is elsewhere comes nearer as far as the cache has room; see
        ``engine.points.stream``."""
        from engine.points.stream import Stream

        view, elsewhere = self.view(reference), self._elsewhere
        return Stream(view, elsewhere.filled, elsewhere.close)

    def differences(self, old: str, new: str) -> Iterator[diff.Change]:
        """As ``diff``, of points that nothing keeps from being deleted meanwhile."""
        a, b = self.glance(old), self.glance(new)
        return diff.diff(self._open.reader, a.root_entry, b.root_entry)

    def novelty(self, old: str, new: str) -> Novelty:
        """What is new in a point against another ("" for none), and how small its content was stored."""
        from engine.points.novelty import novelty

        before = self.glance(old).root_entry if old else None
        return novelty(self._open.reader, before, self.glance(new).root_entry)

    def diff(self, old: str, new: str) -> Iterator[diff.Change]:
        """What differs between two points."""
        a, b = self.view(old), self.view(new)
        yield from diff.diff(self._open.reader, a.root_entry, b.root_entry)

    def restore(
        self,
        reference: str,
        subpath: bytes | Sequence[bytes],
        target: bytes,
        *,
        force: bool = False,
        resume: bool = False,
        report: Report = silent,
    ) -> RestoreReport:
        """Materialise a point, a path of it or several, in a directory; see engine.restore."""
        from engine.restore import restore

        return restore(
            self.view(reference), subpath, target, force=force, resume=resume, progress=report, store_path=self.path,
            expected=self.point(reference).logical_bytes, all_far=self.borrowed is not None,
        )  # fmt: skip

    def lock_point(self, reference: str, *, until_ns: int = 0, for_s: float = 0) -> PointInfo:
        """See to it that nobody deletes a point before a time, or for so long from now on; nobody can take it back, or
        make it shorter. Locations that have the point hear of it with what is sent next.

        Raises NotFound, InvalidRequest, Held for less than there is, Busy while it is being deleted.
        """
        with self._changing():
            return _info(*snapshot.lock(self._open, reference, until_ns=until_ns, for_s=for_s))

    def remove_point(self, reference: str) -> PointInfo:
        """Delete a point. Raises NotFound, Held, Busy."""
        return self.remove_points([reference])[0]

    def remove_points(self, references: Sequence[str]) -> list[PointInfo]:
        """Delete points, all of them or none. Raises NotFound, Held while one is locked, Busy."""
        with self._changing():
            return [_info(point) for point in snapshot.remove(self._open, references)]

    def would_free(self, references: Sequence[str], *, report: Report = silent) -> Forecast:
        """What deleting these points would free. Raises NotFound; Corrupt when a node is unreadable."""
        from engine.maintain import forecast

        return forecast.forecast(self._open, references, report=report)

    # --- maintenance --------------------------------------------------------------------------------------

    def collect(
        self, *, dry_run: bool = False, budget_s: float | None = None, report: Report = silent
    ) -> CollectReport:
        """Free what no point and no live tree reaches, beside running writers."""
        from engine.maintain import collect

        with self._changing():
            return collect.collect(
                self._open, dry_run=dry_run, budget_s=budget_s, report=report, sleep=time.sleep
            )

    def check(self, *, read_data: bool = False, report: Report = silent) -> CheckReport:
        """Verify every invariant, and every byte when asked."""
        from engine.maintain import check

        with self._noting():
            found = check.check(self._open, read_data=read_data, report=report)
        self._note_damage("check", found.problems)
        return found

    def _note_damage(self, who: str, problems: Sequence[Problem]) -> None:
        if problems:
            first = problems[0]
            self.incidents.note(
                "corrupt", "store",
                f"{who} found {len(problems)} problems, first {first.code}: {first.thing}: {first.text}",
            )  # fmt: skip

    def scrub(
        self, *, rate: int | None = None, budget_s: float | None = None, every_s: float | None = None,
        report: Report = silent,
    ) -> ScrubReport:  # fmt: skip
        """Verify stored bytes, going on where the last run ended; see engine.maintain.scrub."""
        from engine.maintain import scrub

        with self._changing():
            found = scrub.scrub(
                self._open, rate=rate, budget_s=budget_s, every_s=every_s, report=report, sleep=time.sleep
            )  # fmt: skip
        self._note_damage("scrub", found.problems)
        return found

    def stats(self, name: str | None = None) -> dict[str, int | float]:
        """Sizes and counts of the store or of one mount."""
        from engine.maintain import stats

        return stats.stats(self._open.context, name)

    def repair(self, *, report: Report = silent) -> RepairReport:
        """Mend what ``check`` finds and can be mended."""
        from engine.maintain import repair

        with self._changing():
            return repair.repair(self._open, report=report)

    @staticmethod
    def reset_incidents(path: str) -> None:
        """Forget the incidents that are in the store; it need not be sound. Raises NotFound, LocationUnavailable."""
        try:
            reset(path)
        except OSError as error:
            raise from_os(error, f"incidents of {path}") from None

    @staticmethod
    def rebuild_index(
        path: str, *, key: Opener | None = None, report: Report = silent
    ) -> RepairReport:
        """Make a new index from the packs alone; nobody may have the store open."""
        from engine.maintain import repair

        return repair.rebuild_index(path, report=report, key=key)

    @staticmethod
    def check_without_key(path: str, *, report: Report = silent) -> CheckReport:
        """What can be verified of a store, sealed or not, by who has no key; see ``engine.maintain.keyless``."""
        from engine.maintain import keyless

        return keyless.check(path, report=report)
