"""The database: a PostgreSQL 18 cluster under pgbench load, copied online by pg_basebackup.

How a restored cluster can be held against facts noted while it was copied: a base backup brings
back the state at its end. So the load runs while the copy is made, and is stopped before the copy
ends: pg_basebackup is halted in the middle of the data files, the load's sessions are ended, the
server's own progress view must say that the copy is still on its data files, and only then may it
go on. From there until the next day no transaction changes a row; the facts noted then are the
facts of the copy's end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tools.demolib.commands import Runner, stop_process
from tools.demolib.console import DemoError, size_text
from tools.demolib.dataset import DataSet, Written
from tools.demolib.postgres import DATABASE, Facts, Postgres, Server, Session, give
from tools.demolib.witness import Tree, content_bytes

# pgbench's unit: 100,000 accounts, about 15 MB with the index.
UNITS = 14
TRANSACTIONS_A_DAY = 1500
# Transactions a second while the copy runs: a steady load that leaves the copy its share.
LOAD_RATE = 150
# Halt the copy when this share of the data has been sent.
HALT_AT = 0.25
# On a fast disk a copy may end before the halt; then the day's copy is made again.
TRIES = 4
LOAD_LIMIT_S = 30.0
_POLL_S = 0.01
FOLDER = b"base"

_PROGRESS = "select phase, backup_streamed, backup_total from pg_stat_progress_basebackup"
_HISTORY = "select count(*) from pgbench_history"
_LOAD_SESSIONS = "select count(*) from pg_stat_activity where application_name = 'pgbench'"


class DatabaseSet(DataSet):
    """The PostgreSQL set; the cluster lives on the local disk, below `place`."""

    name = "pg"
    title = "PostgreSQL 18 under pgbench load, by pg_basebackup"

    def __init__(self, runner: Runner, postgres: Postgres, place: Path, scale: float) -> None:
        self._runner = runner
        self._postgres = postgres
        self._place = place
        self._units = max(1, round(UNITS * scale))
        self._transactions = max(100, round(TRANSACTIONS_A_DAY * scale))
        self._server = Server(postgres, place / "cluster", place / "server.log")
        self._load: subprocess.Popen[bytes] | None = None
        self._copy: subprocess.Popen[bytes] | None = None
        self._restored: Server | None = None
        self._facts: dict[int, Facts] = {}
        self._logical: dict[int, int] = {}

    @property
    def proof(self) -> str:
        return "pg_verifybackup; started, its rows and pg_amcheck as noted"

    def prepare(self) -> str:
        place = self._place
        place.mkdir()
        give(place, self._postgres.account)
        self._postgres.run(
            "initdb", "-D", place / "cluster", "--username", "demo", "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip
        # The source is thrown away at the end: its durability costs time and shows nothing. What
        # is copied is complete all the same: the copy reads what the server wrote, synced or not.
        with (place / "cluster" / "postgresql.auto.conf").open("a") as settings:
            settings.write("fsync = off\nmax_wal_size = '512MB'\n")
        self._server.start()
        self._postgres.run("createdb", *self._postgres.address(), DATABASE)
        self._pgbench_to_end("--initialize", "--quiet", "--scale", str(self._units))
        with Session(self._postgres) as session:
            session.ask("create extension amcheck")
            session.ask("checkpoint")
            [(size,)] = session.ask("select pg_database_size(current_database())")
        return f"a cluster with {self._units * 100_000:,} accounts, {size_text(int(size))}"

    def change(self, day: int) -> str:
        self._pgbench_to_end(
            "--client", "2", "--jobs", "2", "--protocol", "prepared",
            "--transactions", str(self._transactions // 2),
        )  # fmt: skip
        return f"{self._transactions:,} transactions of pgbench"

    def write(self, day: int, into: Path) -> Written:
        target = into / os.fsdecode(FOLDER)
        for _ in range(TRIES):
            # The same name every day, as scripts do: yesterday's is removed, today's is written.
            self._runner.run(["rm", "-rf", target])
            target.mkdir(mode=0o700)
            give(target, self._postgres.account)
            seconds, committed = self._copy_under_load(target)
            if committed is not None:
                handed = _bytes_in(target)
                how = f"pg_basebackup while {committed:,} transactions were committed"
                return Written(how, handed, seconds)
            self._runner.console.detail("the copy ended before its load: once more")
        raise DemoError(
            f"pg_basebackup was {TRIES} times too fast to stop the load while it ran; "
            "use a larger --scale"
        )

    def verify_live(self, day: int, live: Tree) -> list[str]:
        self._facts[day] = self._server.facts()
        self._logical[day] = content_bytes(live)
        # The bytes themselves are held against the server's own checksums (its manifest of the
        # copy) after the restore: pg_verifybackup.
        lines = []
        if FOLDER + b"/backup_manifest" not in live:
            lines.append("pg_basebackup left no backup_manifest")
        if self._facts[day].amcheck != "clean":
            lines.append(f"the source itself is damaged: {self._facts[day].amcheck}")
        return lines

    def prove(self, day: int, restored: Path, found: Tree) -> list[str]:
        data = restored / os.fsdecode(FOLDER)
        lines = []
        try:
            self._postgres.run("pg_verifybackup", "--quiet", data)
        except DemoError as error:
            lines.append(str(error))
        # One server at a time: the source has done its work when the proofs begin.
        self._server.stop()
        self._restored = Server(self._postgres, data, self._place / f"restored-{day}.log")
        try:
            self._restored.start()
            return lines + self._facts[day].differences(self._restored.facts())
        except DemoError as error:
            return [*lines, str(error)]
        finally:
            self._restored.stop()

    def logical(self, day: int) -> int:
        return self._logical[day]

    def close(self) -> None:
        for process in (self._copy, self._load):
            if process is not None and process.poll() is None:
                # The copy may be halted, and it has a process of its own for the log.
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGTERM)
                stop_process(process)
        for server in (self._restored, self._server):
            if server is not None:
                server.stop()

    def _pgbench_to_end(self, *words: str) -> None:
        self._postgres.run("pgbench", *self._postgres.address(), "--no-vacuum", *words, DATABASE)

    def _copy_under_load(self, target: Path) -> tuple[float, int | None]:
        """One online copy: its seconds, and the transactions committed while it ran; None for
        those when it ended before the load did, so that the facts would not be its own.
        """
        log = self._place / "producers.log"
        log.touch()
        with Session(self._postgres) as session:
            self._load = self._postgres.start(
                "pgbench", *self._postgres.address(), "--no-vacuum", "--client", "2",
                "--rate", str(LOAD_RATE), "--time", "600", DATABASE, log=log,
            )  # fmt: skip
            self._wait_for_commits(session, _count(session, _HISTORY))
            before = _count(session, _HISTORY)
            started = time.monotonic()
            self._copy = self._postgres.start(
                "pg_basebackup", *self._postgres.address(), "-D", target, "-c", "fast", log=log
            )
            self._wait_for_share(session)
            if self._copy.poll() is None:
                os.kill(self._copy.pid, signal.SIGSTOP)
                self._wait_for_commits(session, before)
            self._end_load(session)
            committed = _count(session, _HISTORY) - before
            progress = session.ask(_PROGRESS)
            inside = len(progress) == 1 and progress[0][0] == "streaming database files"
            if self._copy.poll() is None:
                os.kill(self._copy.pid, signal.SIGCONT)
            status = self._runner.wait(self._copy, "pg_basebackup")
            # The short halt is not taken off: the kernel goes on writing during it.
            seconds = time.monotonic() - started
        if status:
            words = "".join(f"\n    {line}" for line in log.read_text().splitlines()[-8:])
            raise DemoError(f"pg_basebackup: exit status {status}{words}")
        if inside:
            share = int(progress[0][1]) / max(1, int(progress[0][2]))
            self._runner.console.detail(f"load stopped when {share:.0%} of the copy was sent")
        return seconds, committed if inside else None

    def _wait_for_share(self, session: Session) -> None:
        assert self._copy is not None
        while self._copy.poll() is None:
            for _, streamed, total in session.ask(_PROGRESS):
                if int(total or 0) and int(streamed) >= HALT_AT * int(total):
                    return
            time.sleep(_POLL_S)

    def _wait_for_commits(self, session: Session, more_than: int) -> None:
        """Wait until the load has committed something (again): then it is a load."""
        assert self._load is not None
        deadline = time.monotonic() + LOAD_LIMIT_S
        while _count(session, _HISTORY) <= more_than:
            if self._load.poll() is not None or time.monotonic() > deadline:
                raise DemoError("pgbench commits nothing; see its words in producers.log")
            time.sleep(_POLL_S)

    def _end_load(self, session: Session) -> None:
        assert self._load is not None
        stop_process(self._load)
        deadline = time.monotonic() + LOAD_LIMIT_S
        while _count(session, _LOAD_SESSIONS):
            if time.monotonic() > deadline:
                raise DemoError("the sessions of pgbench do not end")
            time.sleep(_POLL_S)


def _count(session: Session, sql: str) -> int:
    [(value,)] = session.ask(sql)
    return int(value)


def _bytes_in(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(folder)
        for name in names
    )
