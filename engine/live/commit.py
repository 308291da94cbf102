"""Commits: everything dirty, in one transaction, shared by all who wait for it.

What a crash leaves of a commit: FORMAT.md, "Crash tables".

A commit that fails changes nothing: what it gathered is dirty again, the next one tries anew, and changes that need
room are refused until one succeeds.  ``commit`` returns only when a commit that gathered after the call is durable.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from engine import limits
from engine.errors import HoldfastError
from engine.live.batch import Batch
from engine.live.content import Contents
from engine.live.ports import Ports
from engine.live.seal import Sealing
from engine.live.state import State, repeated

log = logging.getLogger("holdfast.engine.live")

_REPLACED_ROUNDS = 3  # files renamed over others while their like were being sealed


class Committer:
    """Group commit and the thread that commits when much is dirty. Lock order: see State."""

    def __init__(self, state: State, contents: Contents, sealing: Sealing, ports: Ports) -> None:
        self._state = state
        self._contents = contents
        self._sealing = sealing
        self._writer = ports.writer
        self._incidents = ports.incidents
        self._name = ports.name
        self._mutex = threading.Lock()
        self._started = 0
        self._finished = 0
        self._withheld: dict[int, int] = {}
        self._asked = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self.reserve = limits.INO_RESERVE
        state.wake_committer = self.wake

    def wake(self) -> None:
        """Commit soon, in the background."""
        if not self._asked:
            self._asked = True
            self._executor.submit(self._background)

    def _background(self) -> None:
        self._asked = False
        try:
            self.try_commit()
        except Exception as error:
            log.exception("background commit")
            self._incidents.note("internal", "commit", repr(error))

    def try_commit(self) -> None:
        """Commit; a failure is logged and remembered, and raised to those who ask for durability."""
        if self._state.frozen:
            return
        before = self._state.failure
        try:
            self.commit()
        except HoldfastError as error:
            if before is None:
                log.error("commit failed, will be tried again: %s", error)

    def close(self) -> None:
        """Wait for a background commit."""
        self._executor.shutdown(wait=True)

    def commit(self, *, force: bool = False) -> None:
        """Returns when everything changed before the call is durable; raises why it cannot be.

        ``force``: write the counters even if nothing is dirty.
        """
        with self._state.lock:
            target = self._started + 1
        with self._mutex:
            if self._state.lost is not None:
                raise repeated(self._state.lost)
            if self._finished >= target and not force:
                return  # somebody else's commit gathered after we asked
            self._seal_replaced()
            self._commit(force)

    def _seal_replaced(self) -> None:
        """A file renamed over another replaces it with its content or not at all, as programs have come to expect."""
        for _ in range(_REPLACED_ROUNDS):
            with self._state.lock:
                waiting = self._state.replaced
                self._state.replaced = {}
                inodes = [
                    inode
                    for inode in waiting.values()
                    if inode.nlink and inode.content is not None and inode.content.unsealed
                ]
            if not inodes:
                return
            self._sealing.seal_now(inodes)

    def _commit(self, force: bool) -> None:
        state = self._state
        with state.lock:
            self._started += 1
            number = self._started
            purge = state.purge and not state.frozen
            if not (force or state.dirty or state.dirty_names or purge or state.failure):
                self._finished = number
                for hold in state.limbo:
                    hold.release()
                state.limbo = []
                return
            batch = Batch(state, self._contents, self._withheld)
            with self._whole():
                batch.gather(self.reserve)
        try:
            self._writer.commit(batch.write)
        except BaseException as error:
            with state.lock, self._whole():
                batch.restore()
                if isinstance(error, HoldfastError):
                    state.failure = error
                    self._incidents.error(error)
                elif isinstance(error, Exception):
                    self._incidents.note("internal", "commit", repr(error))
                self._contents.room.notify_all()
            raise
        with state.lock:
            with self._whole():
                batch.settle()
            if state.failure is not None:
                log.info("commits succeed again")
                self._incidents.over(state.failure.kind.slug, "store")
            state.failure = None
            self._finished = number
            self._contents.room.notify_all()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Of steps that must happen wholly: a bug or a lack of memory in one, and nothing is acknowledged any more."""
        try:
            yield
        except BaseException as error:
            lost = HoldfastError(
                f"live tree of {self._name}", found=repr(error), do="mount it again"
            )
            self._state.lost = self._state.failure = lost
            self._incidents.error(lost)
            raise
