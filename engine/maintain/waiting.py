"""What a collection waits for: writers that have seen its flags, and readers of states older than its own."""

from __future__ import annotations

from collections.abc import Callable

from engine.chunks import alive
from engine.errors import Busy
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.gcstate import GcState
from engine.index.rows import U64, worker_row

WAIT = 60.0  # s for writers to make a commit; a worker ticks every second
_POLL = 0.1


class Patience:
    """Waiting in small steps, for ``wait_s`` in all."""

    def __init__(self, store: OpenStore, wait_s: float, sleep: Callable[[float], None]) -> None:
        self._store = store
        self._context = store.context
        self._sleep = sleep
        self._end = self._context.system.monotonic() + wait_s

    def writers(self, state: GcState) -> None:
        """Until every living worker has made a commit that began after the flags were set. Raises Busy."""
        self._store.session.writer.acknowledge()  # work in progress of this process counts as well
        self._until(lambda: self._late(state))

    def older_readers(self, txn: Txn) -> None:
        """Until no process reads a state older than ``txn``: none then builds a point from one. Raises Busy."""
        number = int(txn._txn.id())  # noqa: SLF001  (the index has no word for it)
        self._context.index.reader_check()
        self._until(lambda: self._older(number))

    def _until(self, reason: Callable[[], str]) -> None:
        while found := reason():
            if self._context.system.monotonic() >= self._end:
                raise Busy("collection", expected="every writer to go on", found=found,
                           do="let it end or see to it, then run the collection again")  # fmt: skip
            self._sleep(_POLL)

    def _late(self, state: GcState) -> str:
        with self._context.index.read() as txn:
            behind = [
                U64.unpack(key)[0]
                for key, raw in txn.scan(Table.WORKERS)
                if worker_row(raw).epoch < state.epoch
            ]
        late = [worker for worker in behind if alive(self._context, worker)]
        return f"worker {late[0]} standing still" if late else ""

    def _older(self, number: int) -> str:
        # One line per reader: pid, thread, transaction or "-"; a text is all that LMDB gives out.
        for line in self._context.index._env.readers().splitlines()[1:]:  # noqa: SLF001
            fields = line.split()
            if len(fields) == 3 and fields[2].isdecimal() and int(fields[2]) < number:
                return f"process {fields[0]} reading an older state (a snapshot or a check)"
        return ""
