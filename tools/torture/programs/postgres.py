"""PostgreSQL with its data directory on the mount, under pgbench: the server is killed, its worker is, it is cut.

Acknowledged transactions are recorded here, outside the server: rows of a table ``acked``, by their ids.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tools.demolib.commands import Account, Runner, ordinary_account, stop_process
from tools.demolib.console import Console, DemoError
from tools.demolib.postgres import DATABASE, Postgres, Server, Session, give
from tools.torture.programs.cases import Case, Scene, void
from tools.torture.programs.stage import Refused, Stage, run

SESSIONS = 2
SETTINGS = """
fsync = on
dynamic_shared_memory_type = mmap
full_page_writes = on
synchronous_commit = on
shared_buffers = 16MB
max_connections = 30
wal_level = replica
checkpoint_timeout = 30s
min_wal_size = 2MB
max_wal_size = 8MB
restart_after_crash = off
"""
WAYS_TO_SYNC = ("fdatasync", "fsync", "open_datasync", "open_sync")
# Four sums that every transaction of pgbench keeps equal.
BALANCE = """
select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
       (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history)
"""


class Killable(Server):
    """A server that can be killed with all its processes."""

    def kill(self) -> None:
        """SIGKILL the postmaster, then its children, which would end by themselves a moment later."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(FileNotFoundError):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(signal.SIGKILL)
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
        process.wait()


@dataclass
class Ledger:
    """Ids of transactions: what was begun, and what was acknowledged."""

    begun: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)
    last: int = 0

    def take(self) -> int:
        """The next id."""
        self.last += 1
        self.begun.add(self.last)
        return self.last


class Cluster:
    """PostgreSQL's programs, a template of a data directory, and the one on the mount that all cases go on with."""

    def __init__(self, stage: Stage) -> None:
        self.account: Account | None = ordinary_account()
        self.ledger = Ledger()
        home = stage.place / "pg"
        self.log = home / "server.log"
        self.bench_log = home / "pgbench.log"
        self.data = stage.live / "pg" / "data"
        socket = home / "s"
        for folder in (home, socket, self.data.parent):
            folder.mkdir()
            give(folder, self.account)
        self.runner = Runner(Console(io.StringIO()), home)
        self.postgres = Postgres.unpack(self.runner, self.account, home / "programs", socket)
        self._template = home / "template"
        self._make_template()
        self.copy(self.data)

    @classmethod
    def of(cls, stage: Stage) -> Cluster:
        """The stage's cluster, made when the first case wants it."""
        made = stage.shared.get("postgres")
        if made is None:
            made = stage.shared["postgres"] = cls(stage)
        assert isinstance(made, cls)
        return made

    def _make_template(self) -> None:
        """A small cluster with pgbench's tables; made once, copied for every case."""
        self.postgres.run(
            "initdb", "-D", self._template, "--username", "demo", "--auth", "trust", "--encoding", "UTF8",
            "--locale", "C", "--no-sync", "--wal-segsize", "1",
        )  # fmt: skip
        with (self._template / "postgresql.auto.conf").open("a") as settings:
            settings.write(SETTINGS)
        server = self.server(self._template)
        server.start()
        self.postgres.run("createdb", *self.postgres.address(), DATABASE)
        self.bench("--initialize", "--quiet", "--scale", "1")
        with Session(self.postgres) as session:
            session.ask("create extension amcheck")
            session.ask("create table acked (id bigint primary key, filler text)")
        server.stop()

    def server(self, data: Path) -> Killable:
        """A server on a data directory."""
        return Killable(self.postgres, data, self.log)

    def copy(self, target: Path) -> Path:
        """Another data directory, synced as initdb leaves one."""
        run(["cp", "-a", self._template, target])
        self.postgres.run("initdb", "--sync-only", "-D", target)
        return target

    def set(self, name: str, value: str) -> None:
        """Change a setting of the server on the mount, while it does not run."""
        with (self.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"{name} = '{value}'\n")
            settings.flush()
            os.fsync(settings.fileno())

    def bench(self, *words: str) -> None:
        """Run pgbench to its end."""
        self.postgres.run("pgbench", *self.postgres.address(), "--no-vacuum", *words, DATABASE)


@contextmanager
def loaded(cluster: Cluster, ledger: Ledger) -> Iterator[None]:
    """pgbench at work, and sessions that commit rows of ``acked`` one by one, until the server is gone or told."""
    stop = threading.Event()
    bench = cluster.postgres.start(
        "pgbench", *cluster.postgres.address(), "--no-vacuum", "--client", "3", "--time", "600", DATABASE,
        log=cluster.bench_log,
    )  # fmt: skip
    lock = threading.Lock()

    def commit() -> None:
        with suppress(DemoError, BrokenPipeError), Session(cluster.postgres) as session:
            while not stop.is_set():
                with lock:
                    number = ledger.take()
                session.ask(f"insert into acked values ({number}, repeat('x', {number % 900}))")
                with lock:
                    ledger.acknowledged.add(number)

    threads = [threading.Thread(target=commit) for _ in range(SESSIONS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        stop_process(bench)


def until(condition: Callable[[], bool], what: str, limit: float = 60.0) -> None:
    """Wait. Raises Refused."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise Refused(f"{what}: not within {limit:.0f} s")
        time.sleep(0.005)


def proven(
    scene: Scene, cluster: Cluster, data: Path, ledger: Ledger, promised: set[int]
) -> set[int]:
    """A server starts on the directory, finds itself whole, and has what was promised and nothing that was not begun.

    The ids it has.
    """
    server = cluster.server(data)
    server.start()
    try:
        with Session(cluster.postgres) as session:
            until(lambda: session.ask("select pg_is_in_recovery()") == [("f",)], "recovery")
            there = {int(number) for (number,) in session.ask("select id from acked")}
            sums = session.ask(BALANCE)[0]
        said = cluster.postgres.run(
            "pg_amcheck", *cluster.postgres.address(), "--database", DATABASE, "--heapallindexed",
            "--rootdescend", "--parent-check", ok=(0, 2),
        ).strip()  # fmt: skip
    finally:
        server.stop()
    scene.want(not said, f"{data}: pg_amcheck says {said[:500]}")
    scene.want(len(set(sums)) == 1, f"{data}: pgbench's balances differ: {sums}")
    lost = sorted(promised - there)
    scene.want(
        not lost, f"{data}: {len(lost)} acknowledged transactions are not there: {lost[:10]}"
    )
    strange = there - ledger.begun
    scene.want(not strange, f"{data}: {len(strange)} rows that nobody wrote")
    scene.stage.job.count("acknowledged transactions checked", len(promised))
    return there


def killed(scene: Scene, what: str) -> None:
    """Rounds of load on the mount, each ended by SIGKILL of the server or of the worker beneath it."""
    cluster = Cluster.of(scene.stage)
    ledger = cluster.ledger
    for number in range(max(1, scene.rounds(10))):
        rng = scene.random("round", number)
        cluster.set("wal_sync_method", rng.choice(WAYS_TO_SYNC))
        server = cluster.server(cluster.data)
        server.start()
        try:
            with loaded(cluster, ledger):
                goal = len(ledger.acknowledged) + rng.randrange(50, 300)
                until(lambda: len(ledger.acknowledged) >= goal, "transactions")  # noqa: B023
                time.sleep(rng.random() * 0.05)
                if what == "worker":
                    scene.stage.kill()
                server.kill()
        finally:
            server.kill()
        if what == "worker":
            scene.stage.mount()
        scene.stage.job.count(f"{what}s killed")
        ledger.acknowledged |= proven(
            scene, cluster, cluster.data, ledger, set(ledger.acknowledged)
        )


def cut(scene: Scene) -> None:
    """Recovery points of the data directory of a running server: each starts like one after a power cut."""
    cluster = Cluster.of(scene.stage)
    ledger = cluster.ledger
    for number in range(max(1, scene.rounds(5))):
        server = cluster.server(cluster.data)
        server.start()
        try:
            with loaded(cluster, ledger):
                goal = len(ledger.acknowledged) + 50
                until(lambda: len(ledger.acknowledged) >= goal, "transactions")  # noqa: B023
                promised = set(ledger.acknowledged)
                point = scene.stage.snapshot(f"postgres-{number}")
                scene.stage.job.count("points cut in the middle of work")
        finally:
            server.stop()
        restored = scene.stage.restore(point, "pg/data")
        (restored / "postmaster.pid").unlink()
        proven(scene, cluster, restored, ledger, promised)
        shutil.rmtree(restored)
    acknowledged = set(ledger.acknowledged)
    scene.keep_so(
        cluster.data, lambda found: void(proven(scene, cluster, found, ledger, acknowledged))
    )


NEEDS = ("postgres",)
CASES = (
    Case("postgres-server-killed", lambda scene: killed(scene, "server"), (), NEEDS),
    Case("postgres-worker-killed", lambda scene: killed(scene, "worker"), (), NEEDS),
    Case("postgres-cut", cut, (), NEEDS),
)
