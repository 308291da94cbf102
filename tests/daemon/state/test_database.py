"""The state's file: how it is made, who may read it, what damage, age and other processes do to it."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from daemon.contract import SessionInfo
from daemon.state import State, schema
from daemon.state.database import Database
from engine.errors import Busy, Corrupt, FormatTooNew, HoldfastError, NotFound, StoreFull
from tests.daemon.service.support import new_store


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    new_store(path)
    return path


def test_it_is_for_its_owner_alone_and_every_commit_is_synced(store: str) -> None:
    with State.open(store) as state:
        state.wanted.run("m", running=True)
        folder = Path(store) / "daemon"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for name in ("state.db", "state.db-wal", "state.db-shm"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        with state.database.read() as db:
            assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
    with State.open(store) as state:
        assert state.wanted.get("m").running is True


def test_no_store_no_state(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        State.open(str(tmp_path / "none"))


def test_a_newer_file_is_refused_and_left_alone(store: str) -> None:
    State.open(store).close()
    path = os.path.join(store, "daemon", "state.db")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(FormatTooNew, match="version 99"):
        State.open(store)


def test_another_programs_file_is_refused(store: str) -> None:
    os.mkdir(os.path.join(store, "daemon"))
    with sqlite3.connect(os.path.join(store, "daemon", "state.db")) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(Corrupt, match="other content"):
        State.open(store)


def test_a_version_is_reached_by_steps(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with State.open(store) as state:
        state.wanted.run("m", running=True)
    more = (*schema.MIGRATIONS, "ALTER TABLE wanted ADD COLUMN why TEXT NOT NULL DEFAULT 'asked'")
    monkeypatch.setattr(schema, "MIGRATIONS", more)
    with State.open(store) as state, state.database.read() as db:
        assert db.execute("SELECT why FROM wanted").fetchone()[0] == "asked"
        assert db.execute("PRAGMA user_version").fetchone()[0] == 2
    failing = (*more, "ALTER TABLE wanted ADD COLUMN again; ALTER TABLE nothing ADD COLUMN x")
    monkeypatch.setattr(schema, "MIGRATIONS", failing)
    with pytest.raises(HoldfastError):
        State.open(store)
    monkeypatch.setattr(schema, "MIGRATIONS", more)
    State.open(store).close()


@pytest.mark.parametrize("damage", ["cut", "noise", "head"])
def test_a_damaged_file_is_told_as_what_it_is(store: str, damage: str) -> None:
    with State.open(store) as state:
        for number in range(200):
            state.wanted.place(f"mount{number}", "/" + "x" * 200)
    path = Path(store) / "daemon" / "state.db"
    for side in ("state.db-wal", "state.db-shm"):
        (path.parent / side).unlink(missing_ok=True)
    data = bytearray(path.read_bytes())
    assert len(data) > 40_000
    if damage == "cut":
        del data[20_000:]
    elif damage == "noise":
        data[8192:40_000] = os.urandom(40_000 - 8192)
    else:
        data[:100] = bytes(range(100))
    path.write_bytes(data)

    def use() -> None:
        with State.open(store) as state:
            state.database.verify()
            state.wanted.deleting()

    with pytest.raises(Corrupt, match="recovery points are not"):
        use()


def test_a_file_that_went_is_not_made_anew_behind_ones_back(store: str) -> None:
    with State.open(store) as state:
        (Path(store) / "daemon" / "state.db").unlink()
        state.database._idle.pop().close()
        with pytest.raises(HoldfastError):
            state.wanted.deleting()
        assert not (Path(store) / "daemon" / "state.db").exists()


def test_nothing_of_a_transaction_that_raised_stays(store: str) -> None:
    def half(state: State) -> None:
        with state.database.write() as txn:
            txn.execute("INSERT INTO wanted (mount) VALUES ('m')")
            raise StoreFull("disk")

    with State.open(store) as state:
        with pytest.raises(StoreFull):
            half(state)
        with state.database.read() as db:
            assert db.execute("SELECT count(*) FROM wanted").fetchone()[0] == 0
        state.wanted.run("m", running=False)


def test_a_full_disk_is_told_and_passes(store: str) -> None:
    with State.open(store) as state:
        with state.database.read() as db:
            pages = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {pages + 5}")
        with pytest.raises(StoreFull, match="free space"):
            state.attachments.add("log", "a", "s", [b"x" * 3_000_000], most=1 << 30)
        with state.database.read() as db:
            db.execute("PRAGMA max_page_count = 1000000")
        assert (
            state.attachments.add("log", "a", "s", [b"x" * 3_000_000], most=1 << 30).size
            == 3_000_000
        )
        with state.database.read() as db:
            assert db.execute("SELECT count(*) FROM attachments").fetchone()[0] == 1


def _begin(store: str, number: int, won: object) -> None:
    with State.open(store) as state:
        session = SessionInfo(f"s{number}", "m", "open", 1, 2)
        try:
            state.sessions.begin(session)
            won.put(number)  # type: ignore[attr-defined]
        except Busy:
            won.put(-1)  # type: ignore[attr-defined]


def test_of_several_processes_one_begins(store: str) -> None:
    context = multiprocessing.get_context("spawn")
    won = context.Queue()
    children = [context.Process(target=_begin, args=(store, n, won)) for n in range(4)]
    for child in children:
        child.start()
    found = sorted(won.get(timeout=60) for _ in children)
    for child in children:
        child.join(60)
    won.close()
    won.join_thread()
    assert found[:3] == [-1, -1, -1] and found[3] >= 0
    with State.open(store) as state:
        assert [one.id for one in state.sessions.of("m")] == [f"s{found[3]}"]


def test_threads_share_it_and_leave_nothing_open(store: str) -> None:
    database = Database.open(store)

    def work(number: int) -> None:
        with database.write() as txn:
            txn.execute("INSERT INTO marks VALUES (?, '')", (str(number),))

    counts = []
    for batch in range(8):
        threads = [threading.Thread(target=work, args=(batch * 20 + n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts.append(len(os.listdir("/proc/self/fd")))
    with database.read() as db:
        assert db.execute("SELECT count(*) FROM marks").fetchone()[0] == 160
    # SQLite keeps some descriptors of connections that were closed, and uses them again.
    assert max(counts[4:]) <= max(counts[:4]) + 8
    database.close()
    database.close()
    with pytest.raises(NotFound):
        work(1000)
