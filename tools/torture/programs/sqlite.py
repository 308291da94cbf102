"""sqlite3 on the mount: what it acknowledged must be there after its worker was killed, and in recovery points.

A database may be held to what its settings promise: in WAL mode ``synchronous=FULL`` makes a commit durable, in the
rollback modes ``EXTRA`` does (FULL may take the last transaction back: the journal's removal is not synced).
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.torture.programs.cases import Case, Scene, void
from tools.torture.programs.stage import Refused, environment, run

BUSY_S = (
    90  # sqlite waits for locks by polling: on a busy machine one of three may be unlucky for long
)
ANSWER_S = BUSY_S + 20.0
SETUP = "create table if not exists t (id integer primary key, data blob, half integer);"


@dataclass(frozen=True)
class Mode:
    """How a database is kept. ``slack``: acknowledged transactions its settings allow a power cut to take."""

    name: str
    pragmas: str
    slack: int = 0


MODES = (
    Mode("wal", "pragma journal_mode=wal; pragma synchronous=full; pragma wal_autocheckpoint=40;"),
    Mode("delete", "pragma journal_mode=delete; pragma synchronous=extra;"),
    Mode("truncate", "pragma journal_mode=truncate; pragma synchronous=extra;"),
    Mode("persist", "pragma journal_mode=persist; pragma synchronous=full;", slack=1),
    Mode("mmap", "pragma mmap_size=67108864; pragma journal_mode=wal; pragma synchronous=full;"),
)


class Shell:
    """One sqlite3 process, asked statement by statement."""

    def __init__(self, database: Path, pragmas: str) -> None:
        self._process = subprocess.Popen(
            ["sqlite3", "-batch", "-bail", os.fspath(database)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment(), bufsize=0, cwd="/",
        )  # fmt: skip
        self._rest = b""
        try:
            self.ask(f".timeout {BUSY_S}000\n{pragmas}\n{SETUP}")
        except BaseException:
            self.close()
            raise

    def send(self, sql: str) -> None:
        """Hand over statements; do not wait."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{sql}\nselect '~done~';\n".encode())
        except BrokenPipeError:
            raise Refused("sqlite3 has ended") from None

    def answer(self) -> list[str]:
        """Wait for the end of what was sent; its lines. Raises Refused when it failed."""
        assert self._process.stdout is not None
        end = time.monotonic() + ANSWER_S
        while b"~done~\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, end - time.monotonic()))  # fmt: skip
            more = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not more:
                raise Refused(f"sqlite3 said {self._rest.decode(errors='replace')!r} and no more")
            self._rest += more
        text, _, self._rest = self._rest.partition(b"~done~\n")
        return text.decode().splitlines()

    def ask(self, sql: str) -> list[str]:
        """Run statements; their lines."""
        self.send(sql)
        return self.answer()

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def insert(number: int, size: int) -> str:
    """One transaction: a row, and one of twenty older ones changed; ``half`` is checked by ``sound``."""
    return (
        f"begin; insert into t values ({number}, randomblob({size}), {number} / 2);"
        f" update t set data = randomblob({size}) where id = {max(0, number - 20)}; commit;"
    )


def sound(scene: Scene, database: Path, acknowledged: int, *, slack: int = 0) -> int:
    """The database is whole and has every acknowledged transaction, and no more than the next; how many it has."""
    text = run(
        ["sqlite3", "-batch", "-bail", database],
        stdin=b"pragma integrity_check; select count(*), coalesce(max(id), -1), sum(half != id / 2) from t;",
    ).split()
    scene.want(text[:1] == ["ok"], f"{database}: integrity_check says {text[:5]}")
    count, last, wrong = (int(field or 0) for field in (text[1] + "|||").split("|")[:3])
    whole = count == last + 1 and not wrong
    scene.want(whole, f"{database}: {count} rows, the last {last}, {wrong} wrong")
    scene.want(
        count >= acknowledged - slack,
        f"{database}: {count} transactions, {acknowledged} were acknowledged",
    )
    return count


def killed(scene: Scene, mode: Mode) -> None:
    """Transactions one by one; the worker dies right after an answer, or while one is on its way."""
    database = scene.live / f"{mode.name}.db"
    acknowledged = 0
    for number in range(max(1, scene.rounds(10))):
        rng = scene.random("kill", number)
        shell = Shell(database, mode.pragmas)
        try:
            for _ in range(rng.randrange(30, 90)):
                shell.ask(insert(acknowledged, rng.choice((20, 500, 3000, 20_000))))
                acknowledged += 1
            if number % 2:
                shell.send(insert(acknowledged, 5000))
                time.sleep(rng.random() * 0.004)
            scene.stage.kill()
        finally:
            shell.close()
        scene.stage.job.count("workers killed")
        scene.stage.mount()
        has = sound(scene, database, acknowledged, slack=mode.slack)
        scene.want(has <= acknowledged + 1, f"{has} transactions, {acknowledged} and one were sent")
        scene.stage.job.count("acknowledged transactions checked", acknowledged)
        acknowledged = has
    scene.keep_so(scene.live, lambda found: void(sound(scene, found / database.name, acknowledged)))


class Writer:
    """A database that is written in a thread until told to stop."""

    def __init__(self, mode: Mode, database: Path, rng: random.Random) -> None:
        self.mode = mode
        self.database = database
        self._rng = rng
        self._stop = threading.Event()
        self._shell = Shell(database, mode.pragmas)
        self.done = int(self._shell.ask("select count(*) from t;")[0])

    def write(self) -> None:
        """The thread's work; ``done`` counts what was acknowledged."""
        while not self._stop.is_set():
            self._shell.ask(insert(self.done, self._rng.choice((20, 3000, 20_000))))
            self.done += 1

    def stop(self) -> None:
        """No more after the transaction that is running."""
        self._stop.set()

    def close(self) -> None:
        """End the program."""
        self._shell.close()


def cut(scene: Scene) -> None:
    """Recovery points while databases of every mode are written: each is one after a power cut."""
    for number in range(max(1, scene.rounds(10))):
        writers = [
            Writer(mode, scene.live / f"{mode.name}.db", scene.random("cut", mode.name, number))
            for mode in MODES
        ]
        try:
            _cut(scene, writers, number)
        finally:
            for writer in writers:
                writer.close()


def _cut(scene: Scene, writers: list[Writer], number: int) -> None:
    with ThreadPoolExecutor(len(writers)) as pool:
        writing = [pool.submit(writer.write) for writer in writers]
        try:
            time.sleep(0.1 * scene.random("moment", number).random())
            promised = [writer.done for writer in writers]
            point = scene.stage.snapshot(f"sqlite-{number}")
            later = [writer.done + 1 for writer in writers]
        finally:
            for writer in writers:
                writer.stop()
        for one in writing:
            one.result()
    restored = scene.stage.restore(point, scene.name)
    for writer, least, most in zip(writers, promised, later, strict=True):
        has = sound(scene, restored / writer.database.name, least, slack=writer.mode.slack)
        scene.want(has <= most, f"{writer.database.name}: {has} transactions, {most} were sent")
        scene.stage.job.count("databases cut while written", int(writer.done > least))


def shared(scene: Scene) -> None:
    """Several processes write one database: locks and the shared memory of WAL mode hold."""
    count = max(20, scene.rounds(400))
    for mode in (MODES[0], MODES[1]):
        database = scene.live / f"shared-{mode.name}.db"
        shells = [Shell(database, mode.pragmas) for _ in range(3)]
        try:

            def work(shell: Shell) -> None:
                for _ in range(count):
                    shell.ask(
                        "begin immediate; insert into t select n, randomblob(300), n / 2 from"
                        " (select coalesce(max(id), -1) + 1 as n from t); commit;"
                    )
                    time.sleep(0.002)  # a turn for the others

            with ThreadPoolExecutor(len(shells)) as pool:
                list(pool.map(work, shells))
        finally:
            for shell in shells:
                shell.close()
        has = sound(scene, database, len(shells) * count)
        scene.want(has == len(shells) * count, f"{has} rows of {len(shells) * count}")
        scene.run("sqlite3", database, "vacuum; pragma integrity_check;")


CASES = (
    *(
        Case(f"sqlite-{mode.name}-killed", partial(killed, mode=mode), ("sqlite3",))
        for mode in MODES
    ),
    Case("sqlite-cut", cut, ("sqlite3",)),
    Case("sqlite-shared", shared, ("sqlite3",)),
)
