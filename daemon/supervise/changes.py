"""What changes of jobs, told to whoever watches: each watcher has a queue of its own and is waited for by nobody.

A slow reader misses nothing but steps of progress: of one job, in one state, only the newest is kept for it.  So a
queue is bounded by the number of jobs that change while its reader does not read; one that lets more than
``QUEUE_MAX`` gather is cut off, and asks for the jobs anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from daemon.contract import JobInfo

QUEUE_MAX = 4096


class Watch:
    """The jobs that change, as an asynchronous iterator. Made by ``Changes.watch``; used by one task."""

    def __init__(self, job_id: int) -> None:
        self._job_id = job_id
        self._queue: deque[JobInfo] = deque()
        self._wake = trio.Event()
        self._ended = False

    def put(self, job: JobInfo) -> None:
        """On the loop's thread."""
        if self._ended or (self._job_id and job.id != self._job_id):
            return
        newest = next(
            (i for i, one in enumerate(self._queue) if one.id == job.id and one.state == job.state),
            None,
        )
        if newest is not None:
            del self._queue[newest]
        self._queue.append(job)
        if len(self._queue) > QUEUE_MAX:
            self._queue.clear()
            self._ended = True
        self._wake.set()

    def end(self) -> None:
        """What is queued can still be read."""
        self._ended = True
        self._wake.set()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> JobInfo:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._wake = trio.Event()
            await self._wake.wait()
        await trio.lowlevel.checkpoint()
        return self._queue.popleft()


class Changes:
    """Everything here is on the loop's thread."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._ended = False

    def publish(self, job: JobInfo) -> None:
        """Tell everybody who watches."""
        for one in self._watches:
            one.put(job)

    @contextmanager
    def watch(self, job_id: int = 0) -> Iterator[Watch]:
        """Changes from now on, of one job or (0) of all; they end when the daemon stops."""
        watch = Watch(job_id)
        if self._ended:
            watch.end()
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def end(self) -> None:
        """The daemon stops: nothing changes any more."""
        self._ended = True
        for one in self._watches:
            one.end()
