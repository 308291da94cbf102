"""Rig ``crash-order``: the calls of a session are read for their order: data, names, index, acknowledgement.

What a replay on a file system cannot show (ext4 keeps a new name without being asked) is shown here, and in programs of
many threads too: nothing is guessed from timing, every commit is looked at as it becomes durable.

O1  when a commit's last write (LMDB's meta page) begins, all pages of the index written before it are synced;
O2  and so is every committed byte of every segment and pack the index then knows, its name, and its directories';
O3  what is acknowledged as durable was followed by a commit since it was asked for, unless nothing had changed;
O4  a pack is unlinked only when no durable state of the index knows it as more than doomed.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from engine.index import Index, Table
from engine.index.rows import PACK_DOOMED, PACK_SEALED, U32, PackRow, pack_row
from engine.packs.records import HEADER_LEN
from tools.torture.crash import trace
from tools.torture.crash.disk import Disk
from tools.torture.crash.session import Plan
from tools.torture.crash.trace import Event
from tools.torture.history import History
from tools.torture.rig import Job, Rig
from tools.torture.workload import Script

INDEX = "index/data.mdb"
META_PAGES = 8192  # bytes: LMDB has two; a new index writes both whole, at 0
DURABLE = ("fsync", "fsyncdir")  # operations that promise
_NUMBER = re.compile(r"(\d{8})\.(?:seg|pack)$")


class Reader:
    """Fed with events in order; ``wrong`` is why the order is broken."""

    def __init__(self, plan: Plan, folder: str) -> None:
        self._disk = Disk()
        self._folder = folder
        self._history = History()
        self._script = Script(plan.random("script"), self._history)
        self._durable: dict[int, PackRow] = {}  # packs as the last commit knows them
        self._asked = self._committed = self._changed = -1  # lines of the trace
        self._made = False  # until a store is acknowledged it promises nothing
        self.commits = self.acknowledged = 0

    def feed(self, event: Event) -> str:
        """One event; why it breaks the order, or nothing."""
        if event.kind == "mark":
            return self._mark(event)
        wrong = self._before(event)
        self._disk.feed(event)
        if (
            event.kind == "write"
            and event.path == INDEX
            and 0 < event.offset < META_PAGES
            and self._made
        ):
            wrong = wrong or self._commit(event)
        return wrong

    def _before(self, event: Event) -> str:
        if event.kind != "unlink":
            return ""
        number = _NUMBER.search(event.path)
        row = self._durable.get(int(number[1])) if number else None
        if row is None or row.state == PACK_DOOMED:
            return ""
        return f"O4: {event.path} is unlinked while the index says {row}"

    def _commit(self, event: Event) -> str:
        self.commits += 1
        self._committed = event.end
        if event.durable:
            loose = self._disk.loose(INDEX, 1 << 60)
            if loose and "ends before" not in loose:
                return f"O1: a commit is done while {loose}"
        else:
            return "O1: a commit is written without being synced"
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            Path(place, "data.mdb").write_bytes(self._disk.content(INDEX))
            index = Index(place)
            with index.read() as txn:
                packs = {U32.unpack(k)[0]: pack_row(raw) for k, raw in txn.scan(Table.PACKS)}
            index.close()
        wrong = ""
        for number, row in packs.items():
            if row != self._durable.get(number) and row.length > HEADER_LEN:
                wrong = wrong or self._pack(number, row)
        self._durable = packs
        return wrong

    def _pack(self, number: int, row: PackRow) -> str:
        if row.state == PACK_DOOMED:
            return ""
        pack = f"packs/{number // 1024:05d}/{number:08d}.pack"
        segment = f"segments/{number:08d}.seg"
        loose = self._disk.loose(pack, row.length)
        if row.state != PACK_SEALED and loose:
            loose = self._disk.loose(segment, row.length)
        return (
            f"O2: a commit refers to {row.length} bytes of pack {number}, but {loose}"
            if loose
            else ""
        )

    def _mark(self, event: Event) -> str:
        word, what, *_ = event.path.split()
        if word == "begin":
            self._asked = event.start
            if what == "op":
                self._op = self._script.next()
                self._history.begin(self._op)
                if self._op.kind not in DURABLE:
                    self._changed = event.start
            return ""
        self._made = self._made or what == "init"
        if what == "op":
            self._history.done(self._op)
            if self._op.kind not in DURABLE:
                return ""
        elif what != "snapshot":
            return ""
        self.acknowledged += 1
        since = self._changed if what == "op" else self._asked
        return (
            ""
            if self._committed > since
            else f"O3: {what} {event.path} is acknowledged without a commit"
        )


def _read(job: Job, case: str, plan: Plan, module: str, folder: Path) -> None:
    command = plan.command()
    command[2] = module
    wrong = trace.record(command, folder / "trace", {})
    if wrong:
        job.fail(case, f"without any power cut: {wrong}")
    reader = Reader(plan, str(folder))
    for event in trace.read(folder / "trace", plan.store, plan.marks):
        wrong = reader.feed(event)
        if wrong:
            job.fail(case, f"line {event.end}: {wrong}")
    job.count("commits", reader.commits)
    job.count("acknowledgements", reader.acknowledged)
    assert reader.commits and reader.acknowledged, "a lint that sees nothing proves nothing"


def run(job: Job) -> None:
    """Sessions in one thread, in many, and through a real mount."""
    kinds = (
        ("alone", "tools.torture.crash.session", 0),
        ("threads", "tools.torture.crash.session", 2),
        ("mounted", "tools.torture.crash.mounted", 2),
    )
    for number in range(job.size(20)):
        for name, module, threads in kinds:
            case = f"{name}/{number}"
            if not job.wants(case):
                continue
            with tempfile.TemporaryDirectory(dir=job.scratch) as folder:
                seed = job.random(name, number).randrange(10**9)
                plan = Plan(f"{folder}/store", f"{folder}/marks", seed, 120, threads)
                _read(job, case, plan, module, Path(folder))
            job.count("sessions")


RIGS = (
    Rig(
        "crash-order",
        "system calls in order: data, names, index, acknowledgement",
        run,
        ("strace", "fuse"),
        bugs=(
            "data-sync-skipped",
            "directory-sync-skipped",
            "new-folder-sync-skipped",
            "index-sync-off",
            "index-metasync-off",
            "commit-before-data",
            "nodes-not-synced",
            "acknowledged-early",
        ),
        teeth=0.001,
    ),
)
