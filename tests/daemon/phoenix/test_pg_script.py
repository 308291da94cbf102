"""tools/scripts/pg-basebackup with a real PostgreSQL 18, as the ordinary user that it runs as."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.contract import RestoreSpec
from tests.daemon.phoenix.scripts import Rig, served, wait_for
from tools.demolib.commands import Runner, ordinary_account
from tools.demolib.console import Console
from tools.demolib.postgres import Postgres, Server, Session, give

pytestmark = pytest.mark.needs_fuse


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that an ordinary user can come to."""
    path = Path(tempfile.mkdtemp(prefix="hf-pg-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def rig(place: Path) -> Iterator[Rig]:
    with served(place) as rig:
        yield rig


@pytest.fixture
def postgres(place: Path, rig: Rig) -> Iterator[Postgres]:
    """A running cluster; its superuser owns the mount, and runs the scripts."""
    account = ordinary_account()
    socket = place / "s"
    socket.mkdir()
    for folder in (socket, rig.live):
        give(folder, account)
    postgres = Postgres.unpack(Runner(Console(io.StringIO()), place), account, place / "pg", socket)
    data = place / "cluster"
    data.mkdir(mode=0o700)
    give(data, account)
    postgres.run(
        "initdb", "-D", data, "--username", "demo", "--auth", "trust", "--no-sync", "--locale", "C"
    )
    server = Server(postgres, data, place / "server.log")
    server.start()
    try:
        postgres.run("createdb", *postgres.address(), "demo")
        yield postgres
    finally:
        server.stop()


def rows(postgres: Postgres) -> str:
    with Session(postgres) as session:
        return session.ask("select count(*), sum(n) from numbers")[0][0]


def run(rig: Rig, postgres: Postgres, *words: str) -> subprocess.Popen[str]:
    user = (
        {}
        if postgres.account is None
        else {"user": postgres.account.uid, "group": postgres.account.gid}
    )
    program = postgres.program("pg_basebackup")
    return rig.start(
        "pg-basebackup", "--program", program, "--", *postgres.address(), *words, **user
    )


@pytest.mark.slow
def test_a_cluster_twice_stopped_in_between_and_back_again(
    rig: Rig, postgres: Postgres, place: Path
) -> None:
    with Session(postgres) as session:
        session.ask("create table numbers as select generate_series(1, 20000) as n")
    first = run(rig, postgres)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    old = rig.point_of(out)
    assert {"pg-basebackup.log", "backup_manifest"} <= set(rig.logs(old))
    assert rig.names(old) == ["base"] and "backup_manifest" in rig.names(old, "base")

    with Session(postgres) as session:
        session.ask("insert into numbers select generate_series(1, 5)")
    slow = run(rig, postgres, "--max-rate", "2M")
    wait_for((rig.live / "base.partial").exists)
    slow.send_signal(signal.SIGTERM)
    assert slow.communicate(timeout=60)[1] and slow.returncode == 128 + 15
    assert len(rig.points()) == 1 and rig.open_session()
    assert (rig.live / "base" / "PG_VERSION").exists()  # the last whole one is still in its place
    again = run(rig, postgres)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    new = rig.point_of(out)
    assert rig.names(new) == ["base"]

    job, back = rig.service.restore(RestoreSpec(old)).id, place / "back"
    words = ("--job", job, "--mount-point", rig.live, "--path", "base", "--to", back)
    assert rig.run("restore", *words)[0] == 0
    postgres.run("pg_verifybackup", "--quiet", back)
    postgres.run("pg_verifybackup", "--quiet", rig.live / "base")
    assert (rows(postgres), rows_of(postgres, back)) == ("20005", "20000")


def rows_of(postgres: Postgres, data: Path) -> str:
    """What a restored cluster holds; the source goes on running, elsewhere."""
    socket = data.parent / f"s-{data.name}"
    socket.mkdir()
    give(socket, postgres.account)
    other = Postgres(postgres.runner, postgres.account, postgres.program("postgres").parent, socket)
    server = Server(other, data, data.parent / f"{data.name}.log")
    server.start()
    try:
        return rows(other)
    finally:
        server.stop()


def test_a_server_that_is_not_there_commits_nothing(rig: Rig, place: Path) -> None:
    program = shutil.which("false") or "false"
    status, out, err = rig.run("pg-basebackup", "--program", program)
    assert (status, out) == (5, "") and "nothing was committed" in err
    assert rig.points() == [] and rig.open_session()
    assert os.listdir(rig.live) == []
