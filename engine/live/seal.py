"""Sealing: a queue of spans whose fragments are to become chunks, worked off by a few threads.

What is queued, and when: a span as soon as it is full; a file when its last descriptor closes (small ones gathered,
so that one hand-over to a thread serves many); the oldest files when much is waiting; a file that is fsynced at once
and before all others, the calling thread lending a hand.

Seal threads hold the tree's lock only to take fragments and to put extents back.  A span is in one thread at a time:
what is written to it meanwhile gathers on top and is sealed in the next round (``again``).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter

from engine import limits
from engine.errors import HoldfastError, ShuttingDown
from engine.ingest.jobs import Mode, SealJob
from engine.live.content import Contents
from engine.live.inode import Inode
from engine.live.lineage import Lineage, group_of
from engine.live.names import NameTable
from engine.live.ports import Ports
from engine.live.spans import Content, Span
from engine.live.state import State
from engine.nodes.extents import Extent, encode_extents

log = logging.getLogger("holdfast.engine.live")

_HEAD = 4096  # first bytes of a file by which its mode is chosen
_RELIEF_STEP = (
    4 * limits.MIB
)  # so much more must be waiting before the oldest files are looked through again
_size = itemgetter(0)

Work = list[tuple[Inode, Span]]


class _Job:
    """One span in work. ``head``: the file's first bytes, when its mode is not chosen yet."""

    __slots__ = ("head", "inode", "job", "lineage", "span")

    def __init__(
        self, inode: Inode, span: Span, job: SealJob, lineage: Lineage, head: bytes | None
    ) -> None:
        self.inode = inode
        self.span = span
        self.job = job
        self.lineage = lineage
        self.head = head


class Sealing:
    """The queue and its threads. With ``threads=0`` only callers of ``seal_now`` do the work."""

    def __init__(
        self,
        state: State,
        contents: Contents,
        names: NameTable,
        ports: Ports,
        chunking: str,
        threads: int = limits.SEAL_THREADS,
    ) -> None:
        self._state = state
        self._contents = contents
        self._names = names
        self._ports = ports
        self._chunking = chunking
        self._threads = threads
        self._active = 0
        self._queue: deque[Work] = deque()
        self.relief_at = limits.DIRTY_SEAL
        self._small: Work = []
        self._small_bytes = 0
        self._executor = ThreadPoolExecutor(max(1, threads), thread_name_prefix="seal")

    def close(self) -> None:
        """Let the threads end; nothing may be queued any more."""
        self._executor.shutdown(wait=True)

    # --- queueing (lock held) -----------------------------------------------------------------------------

    def full(self, inode: Inode, span: Span) -> None:
        """A span that cannot grow any more."""
        self._enqueue([(inode, span)])

    def closed(self, inode: Inode) -> None:
        """The last writer of a file went away."""
        content = inode.content
        if content is None or not content.unsealed or inode.nlink == 0:
            return
        if len(content.unsealed) == 1:
            (span,) = content.unsealed.values()
            if span.fragments is None or span.queued:
                return
            if span.fragments.size <= limits.SLOT:
                span.queued = True
                self._small.append((inode, span))
                self._small_bytes += span.fragments.size
                if (
                    len(self._small) >= limits.SMALL_BATCH_FILES
                    or self._small_bytes >= limits.SMALL_BATCH_BYTES
                ):
                    self.flush_small()
                return
        self.file(inode)

    def flush_small(self) -> None:
        """Hand over the small files gathered so far."""
        if self._small:
            work, self._small, self._small_bytes = self._small, [], 0
            self._queue.append(work)
            self._spawn()

    def file(self, inode: Inode) -> None:
        """Every unsealed span of a file."""
        if inode.content is not None:
            self._enqueue_all([(inode, span) for span in inode.content.unsealed.values()])

    def relieve(self) -> None:
        """Much is waiting: queue spans of the files that have waited longest, fullest first, until enough is."""
        excess = self._contents.dirty_bytes - limits.DIRTY_SEAL
        self.relief_at = self._contents.dirty_bytes + _RELIEF_STEP
        for inode, _ in list(self._contents.waiting.values()):
            if inode.content is None or inode.error is not None:
                continue
            sized = [(s.fragments.size, s) for s in inode.content.unsealed.values() if s.fragments]
            chosen: Work = []
            for size, span in sorted(sized, key=_size, reverse=True):
                if excess <= 0:
                    break
                excess -= size
                chosen.append((inode, span))
            self._enqueue_all(chosen)
            if excess <= 0:
                break

    def keep_up(self) -> None:
        """Queue more when nothing is queued: looking at all that waits costs as much as sealing a span."""
        if not self._queue:
            self.relieve()

    def check_pressure(self) -> None:
        """Called after a write: queue more when much more is waiting than at the last look."""
        waiting = self._contents.dirty_bytes
        if waiting > self.relief_at:
            self.relieve()
        elif waiting < limits.DIRTY_SEAL // 2:
            self.relief_at = limits.DIRTY_SEAL

    def older_than(self, moment: float) -> list[Inode]:
        """Files with data written before ``moment`` (monotonic) and not sealed; unlinked ones left out."""
        found = []
        for inode, since in self._contents.waiting.values():
            if since > moment:
                break
            if inode.nlink:
                found.append(inode)
        return found

    def _enqueue_all(self, work: Work) -> None:
        ready = [
            (inode, span)
            for inode, span in work
            if span.fragments is not None and span.sealing is None and not span.queued
        ]
        for batch in _batches(ready):
            self._enqueue(batch)

    def _enqueue(self, work: Work) -> None:
        for _, span in work:
            span.queued = True
        self._queue.append(work)
        self._spawn()

    def _spawn(self) -> None:
        if self._active < self._threads:
            self._active += 1
            self._executor.submit(self._run)

    # --- working (lock not held) --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                with self._state.lock:
                    if not self._queue:
                        self._ended()
                        return
                    jobs = self._next()
                self._seal(jobs)
        except BaseException as error:
            log.exception("a seal thread died; another takes its place")
            self._ports.incidents.note("internal", "seal thread", f"died of {error!r}")
            with self._state.lock:
                self._ended()
                if self._queue:
                    self._spawn()

    def _ended(self) -> None:
        self._active -= 1
        self._contents.room.notify_all()

    def _next(self) -> list[_Job]:
        """Take the first work of the queue, if any. Lock held: what is neither queued nor in work is at rest."""
        if not self._queue:
            return []
        work = self._queue.popleft()
        return [job for inode, span in work if (job := self._take(inode, span)) is not None]

    @property
    def idle(self) -> bool:
        """Nothing is queued, gathered or in work."""
        return not (self._queue or self._small or self._contents.in_work)

    def seal_now(self, inodes: Iterable[Inode]) -> None:
        """All data these files received before the call is in chunks when this returns, or they carry an error."""
        condition = self._contents.room
        with self._state.lock:
            targets = self._targets(inodes)
        while True:
            with self._state.lock:
                if all(span.done >= round_ or span.dropped for span, round_ in targets):
                    return
                if not self._queue:
                    condition.wait()
                jobs = self._next()
            self._seal(jobs)

    def _targets(self, inodes: Iterable[Inode]) -> list[tuple[Span, int]]:
        """Queue what is to be sealed, in front; returns the round each span must have come back from."""
        targets = []
        ready: Work = []
        for inode in inodes:
            if inode.content is None:
                continue
            for span in inode.content.unsealed.values():
                targets.append((span, span.taken + (span.fragments is not None)))
                if span.sealing is not None:
                    span.again = span.again or span.fragments is not None
                elif span.fragments is not None:
                    ready.append((inode, span))
        for work in _batches(ready):
            self._queue.appendleft(work)
        for _ in range(min(len(ready) - 1, self._threads)):
            self._spawn()
        return targets

    def _seal(self, jobs: list[_Job]) -> None:
        done = 0
        try:
            if len(jobs) > 1:
                self._seal_together(jobs)
            for job in jobs:
                self._seal_one(job)
                done += 1
            if jobs and self._ports.writer.wants_commit():
                self._state.wake_committer()
        finally:  # interrupted: what was taken must not be taken for stored
            for job in jobs[done:]:
                self._failed(job, ShuttingDown("sealing", found="an interruption"))

    def _seal_together(self, jobs: list[_Job]) -> None:
        """Small files share chunks. What fails here is tried again file by file, so that each has its own error."""
        try:
            for job in jobs:
                self._choose(job)
            self._ports.seal_small([job.job for job in jobs])
        except HoldfastError as error:
            log.debug("sealing small files together: %s", error)

    def _seal_one(self, job: _Job) -> None:
        try:
            extents = self._work(job)
            encoded = encode_extents(extents) if extents else None
        except HoldfastError as error:
            self._failed(job, error)
        except Exception as error:  # a bug must cost an error, not a thread
            log.exception("sealing span %d of inode %d", job.span.number, job.inode.ino)
            self._ports.incidents.note("internal", "sealing", repr(error))
            self._failed(job, HoldfastError(f"sealing inode {job.inode.ino}", found=repr(error)))
        else:
            with self._state.lock:
                if job.head is not None and job.inode.hint == 0:
                    job.inode.hint = int(job.job.mode)
                self._contents.sealed(job.inode, job.span, extents, encoded, job.job.hold)
        if job.span.again:
            self._again(job)

    def _failed(self, job: _Job, error: HoldfastError) -> None:
        with self._state.lock:
            self._contents.seal_failed(job.inode, job.span, error)

    def _again(self, job: _Job) -> None:
        with self._state.lock:
            job.span.again = False
            if job.span.fragments is not None and not job.span.dropped:
                self._queue.appendleft([(job.inode, job.span)])
                self._spawn()
                self._contents.room.notify_all()

    def _take(self, inode: Inode, span: Span) -> _Job | None:
        content = inode.content
        if content is None:
            span.queued = False
            return None
        head = _head(content) if inode.hint == 0 else None
        lineage = content.lineage
        try:
            if lineage is None:
                lineage = content.lineage = Lineage(self._ports, self._names.path(inode))
            taken = self._contents.take(inode, span)
        except HoldfastError as error:  # a damaged row of this file must not stop the others
            self._contents.not_taken(inode, span, error)
            return None
        except (
            Exception
        ) as error:  # nor must a bug: what is taken from the queue is never just dropped
            log.exception("taking span %d of inode %d", span.number, inode.ino)
            self._ports.incidents.note("internal", "sealing", repr(error))
            failure = HoldfastError(f"sealing inode {inode.ino}", found=repr(error))
            self._contents.not_taken(inode, span, failure)
            return None
        if taken is None:
            return None
        old, fragments = taken
        group = group_of(self._state.mount, lineage.path)
        job = SealJob(
            span.number, old, fragments.items(), Mode(inode.hint), lineage.span, group=group
        )
        return _Job(inode, span, job, lineage, head)

    def _work(self, job: _Job) -> list[Extent]:
        self._choose(job)
        return self._ports.seal(job.job) if job.job.extents is None else job.job.extents

    def _choose(self, job: _Job) -> None:
        if job.head is not None and job.job.mode == Mode.UNKNOWN:
            job.job.mode = self._ports.choose_mode(
                job.lineage.path, job.head, self._chunking, job.lineage.mode
            )


def _head(content: Content) -> bytes:
    span = content.spans.get(0)
    if span is not None:
        for layer in (span.fragments, span.sealing):
            if layer is not None:
                for start, _, data in layer.within(0, _HEAD):
                    return bytes(data) if start == 0 else b""
    return b""


def _batches(work: Work) -> Sequence[Work]:
    """Spans in hand-overs of at most SMALL_BATCH_FILES and SMALL_BATCH_BYTES."""
    result: list[Work] = []
    size = 0
    for inode, span in work:
        assert span.fragments is not None
        if (
            not result
            or len(result[-1]) >= limits.SMALL_BATCH_FILES
            or size + span.fragments.size > limits.SMALL_BATCH_BYTES
        ):
            result.append([])
            size = 0
        result[-1].append((inode, span))
        size += span.fragments.size
    return result
