"""Bugs that the rigs of faults must find. Each patches the process it is called in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.chunks.segments import Segments
from engine.errors import HoldfastError, StoreFull
from engine.incidents import Journal
from engine.index import Index
from engine.live.commit import Committer
from engine.live.content import Contents
from engine.live.seal import Sealing
from engine.packs.segment import SegmentWriter
from engine.seam import Os
from fsmount.worker import Worker
from tools.torture.bugs import bug


def patch(owner: type, name: str, value: object) -> None:
    """Put something else in the place of a method."""
    setattr(owner, name, value)


@bug("fsync-tried-again")
def fsync_tried_again() -> None:
    """A sync that failed is tried once more, and its "ok" is believed."""
    real = SegmentWriter.sync

    def sync(self: Any) -> int:
        try:
            return real(self)
        except HoldfastError:
            self.broken = False
            return real(self)

    patch(SegmentWriter, "sync", sync)


@bug("short-write-ignored")
def short_write_ignored() -> None:
    """A write of which the kernel took a part counts as written."""

    def pwritev(self: Os, fd: int, parts: Sequence[bytes], offset: int) -> int:
        from engine import seam

        vars(seam)["os"].pwritev(fd, parts, offset)
        return sum(map(len, parts))

    patch(Os, "pwritev", pwritev)


@bug("full-disk-swallowed")
def full_disk_swallowed() -> None:
    """A commit for which there was no room is taken for done."""
    real = Committer.commit

    def commit(self: Any, *, force: bool = False) -> None:
        try:
            real(self, force=force)
        except StoreFull:
            return

    patch(Committer, "commit", commit)


@bug("failed-seal-acknowledged")
def failed_seal_acknowledged() -> None:
    """A file forgets that its data could not be stored, and its fsync succeeds."""
    real = Contents.seal_failed

    def seal_failed(self: Any, inode: Any, span: Any, error: HoldfastError) -> None:
        real(self, inode, span, error)
        inode.error = None

    patch(Contents, "seal_failed", seal_failed)


@bug("incidents-forgotten")
def incidents_forgotten() -> None:
    """Nothing is noted."""
    patch(Journal, "note", lambda self, kind, thing, text: None)


@bug("failed-segment-left-open")
def failed_segment_left_open() -> None:
    """The descriptor of a segment that failed is never closed."""
    real = SegmentWriter.close

    def close(self: Any) -> None:
        if not self.broken:
            real(self)

    patch(SegmentWriter, "close", close)


@bug("failed-segment-forgotten")
def failed_segment_forgotten() -> None:
    """What a failed segment held is not written again, and the commit goes on without it."""

    def write_again(self: Any, moved: object) -> None:
        self._unsafe = [u for u in self._unsafe if not u.segment.broken]

    patch(Segments, "_write_again", write_again)


@bug("index-left-broken")
def index_left_broken() -> None:
    """After a commit that failed the index is used on as it is."""
    patch(Index, "broken", property(lambda self: False, lambda self, value: None))


@bug("dead-thread-unnoticed")
def dead_thread_unnoticed() -> None:
    """A seal thread that dies counts as at work for ever."""

    def run(self: Any) -> None:
        while True:
            with self._state.lock:
                if not self._queue:
                    self._ended()
                    return
                jobs = self._next()
            self._seal(jobs)

    patch(Sealing, "_run", run)


@bug("background-turn-unguarded")
def background_turn_unguarded() -> None:
    """A bug in the background turn of a worker ends it."""
    import trio

    async def ticks(self: Any, live: Any) -> None:
        while True:
            await trio.sleep(1.0)
            await trio.to_thread.run_sync(live.tree.tick)

    patch(Worker, "_ticks", ticks)
