"""pg_receivewal --synchronous into the mount: a commit is acknowledged when the log of it is synced there.

The server lies beside the mount and goes on while the worker under its receiver is killed; so its own log says, byte
for byte, what must be in the mount.  At the end a base copy is recovered from what was received.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.demolib.commands import stop_process
from tools.demolib.console import DemoError
from tools.demolib.postgres import Session, give
from tools.torture.programs.cases import Case, Scene
from tools.torture.programs.postgres import NEEDS, Cluster, Ledger, loaded, proven, until

SEGMENT = 1 << 20
RECEIVER = "receiver"
FLUSHED = f"select coalesce(max(flush_lsn), '0/0') from pg_stat_replication where application_name = '{RECEIVER}'"


def position(lsn: str) -> int:
    """A place in the log, in bytes, from the server's notation."""
    high, _, low = lsn.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def segment(at: int) -> str:
    """The name of the file that holds the byte at this place, of the first timeline."""
    return f"00000001{at >> 32:08X}{(at & 0xFFFFFFFF) // SEGMENT:08X}"


@contextmanager
def receiver(cluster: Cluster, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program at work."""
    with cluster.log.open("ab") as log:
        process = cluster.runner.start(
            [
                cluster.postgres.program("pg_receivewal"), *cluster.postgres.address(), "-D", folder,
                "--synchronous", "--slot", RECEIVER, "--no-loop",
            ],
            output=log.fileno(), account=cluster.account, variables={"PGAPPNAME": RECEIVER},
        )  # fmt: skip
    try:
        yield process
    finally:
        stop_process(process)


class Flushed:
    """What the server was last told is synced in the mount, watched in a thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.last = 0
        self._thread.start()

    def _watch(self) -> None:
        with suppress(DemoError), Session(self._cluster.postgres) as session:
            while not self._stop.is_set():
                [(lsn,)] = session.ask(FLUSHED)
                self.last = max(self.last, position(lsn))

    def stop(self) -> int:
        """End watching; the last place."""
        self._stop.set()
        self._thread.join()
        return self.last


def received(scene: Scene, folder: Path, own: Path, upto: int) -> None:
    """The files in the mount hold the server's log, byte for byte, up to a place. Fails otherwise."""
    first = min((path.name.removesuffix(".partial") for path in folder.iterdir()), default="")
    scene.want(bool(first), f"nothing was received, and the log is said to be synced to {upto}")
    at = int(first[8:16], 16) << 32 | int(first[16:], 16) * SEGMENT
    start = at
    while at < upto:
        name = segment(at)
        mine = folder / name
        if not mine.exists():
            mine = folder / f"{name}.partial"
        length = min(SEGMENT, upto - at)
        scene.want(
            mine.exists(), f"{name}: synced to {upto - at} bytes from its start, and not there"
        )
        same = mine.read_bytes()[:length] == (own / name).read_bytes()[:length]
        scene.want(same, f"{mine.name} is not the server's in its first {length} bytes")
        at += SEGMENT
    scene.stage.job.count("bytes of acknowledged log compared", upto - start)


def killed(scene: Scene) -> None:
    """Commits wait for the receiver; the worker beneath it is killed; it goes on after the next mount."""
    cluster = Cluster.of(scene.stage)
    folder = scene.live / "log"
    folder.mkdir()
    for place in (scene.live, scene.local, folder):
        give(place, cluster.account)
    data, base = cluster.copy(scene.local / "data"), scene.local / "base"
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write("synchronous_standby_names = ''\nwal_keep_size = '512MB'\n")
    ledger = Ledger()
    server = cluster.server(data)
    server.start()
    try:
        with Session(cluster.postgres) as session:  # --create-slot would reserve no log yet
            session.ask(f"select pg_create_physical_replication_slot('{RECEIVER}', true)")
        cluster.postgres.run(
            "pg_basebackup", *cluster.postgres.address(), "-D", base, "-c", "fast", "-X", "none"
        )
        for number in range(max(1, scene.rounds(10))):
            _round(scene, cluster, folder, data, ledger, number)
        with receiver(cluster, folder), Session(cluster.postgres) as session:
            _wait_for(session, received_to(session))
        _settle(cluster, "")
        server.kill()
        _recover(scene, cluster, folder, base, ledger)
    finally:
        server.kill()


def received_to(session: Session) -> int:
    """The end of the server's log."""
    return position(session.ask("select pg_current_wal_flush_lsn()")[0][0])


def _wait_for(session: Session, at: int) -> None:
    until(lambda: position(session.ask(FLUSHED)[0][0]) >= at, "the receiver to catch up")


def _settle(cluster: Cluster, names: str) -> None:
    """Whom commits wait for."""
    with Session(cluster.postgres) as session:
        session.ask(f"alter system set synchronous_standby_names = '{names}'")
        session.ask("select pg_reload_conf()")


def _round(
    scene: Scene, cluster: Cluster, folder: Path, data: Path, ledger: Ledger, number: int
) -> None:
    rng = scene.random("round", number)
    with receiver(cluster, folder) as process:
        with Session(cluster.postgres) as session:
            _wait_for(session, received_to(session))
        _settle(cluster, RECEIVER)
        flushed = Flushed(cluster)
        with loaded(cluster, ledger):
            try:
                goal = len(ledger.acknowledged) + rng.randrange(50, 300)
                until(lambda: len(ledger.acknowledged) >= goal, "transactions")
                scene.stage.kill()
                until(lambda: process.poll() is not None, "the receiver's end with its disk")
            finally:
                promised = flushed.stop()
                _settle(cluster, "")  # commits that wait may go on now
    scene.stage.mount()
    scene.stage.job.count("workers killed")
    received(scene, folder, data / "pg_wal", promised)
    for path in folder.glob("*.partial"):
        if path.stat().st_size not in (0, SEGMENT):  # it died while it made the file longer,
            path.unlink()  # and would refuse to go on with it


def _recover(scene: Scene, cluster: Cluster, folder: Path, base: Path, ledger: Ledger) -> None:
    """The base copy, brought up by what was received alone, has every acknowledged transaction."""
    with (base / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"restore_command = 'cp {folder}/%f %p || cp {folder}/%f.partial %p'\n")
        settings.write("synchronous_standby_names = ''\n")
    (base / "recovery.signal").touch()
    give(base / "recovery.signal", cluster.account)
    proven(scene, cluster, base, ledger, set(ledger.acknowledged))


CASES = (Case("pg-receivewal-killed", killed, (), NEEDS),)
