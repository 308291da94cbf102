"""Deleting a mount: all of it goes, nothing else does, killed at any step it can be gone on with."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from engine import Store, limits
from engine.errors import Busy, NotFound
from engine.home import OpenStore
from engine.index import Table
from engine.live import ROOT
from engine.live import rows as live_rows
from engine.maintain import unmake
from engine.progress import silent
from tests.engine.process import run
from tests.maintain.support import CTX, MortalOs, noise, put, restored, sound, three_points


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of two mounts, the one to be deleted with three points, links, attributes and a file without a name."""
    monkeypatch.setattr(limits, "GC_SWEEP_ROWS", 4)
    monkeypatch.setattr("engine.restore.tree._sync", lambda fd: None)
    home = tmp_path / "store"
    Store.init(str(home))
    with Store.open(str(home)) as store:
        store.create_mount("other")
        tree = store.open_live("other")
        put(tree, b"kept", noise(100_000, 7))
        tree.barrier()
        store.snapshot("other", "kept")
        tree.close()
        store.create_mount("m")
        three_points(store)
        tree = store.open_live("m")
        ino = put(tree, b"f", b"late")
        folder = tree.mkdir(ROOT, b"d", 0o755, CTX).ino
        tree.link(ino, folder, b"again")
        tree.setxattr(ino, b"user.x", b"1" * 3000, 0)
        gone = put(tree, b"gone", noise(5_000_000, 8))
        tree.barrier()
        tree.unlink(ROOT, b"gone")
        tree.forgotten(gone)
        tree.close()
    return home


def rows_of(store: Store, number: int) -> int:
    prefix = live_rows.meta_key(number)
    tables = [t for t in Table if t.name in (
        "INODES DIRENTS SPANS XATTRS ORPHANS CHANGED CHANGED_NAMES CHANGED_SPANS ROOTS LIVE_META PARENTS".split()
    )]  # fmt: skip
    with store._open.context.index.read() as txn:
        return sum(1 for table in tables for _ in txn.keys(table, prefix=prefix))


def test_nothing_of_it_is_left_and_its_name_is_free(made: Path) -> None:
    with Store.open(str(made)) as store:
        number = store.mount("m").id
        assert rows_of(store, number) > 10
        assert store.remove_mount("m") == 3
        assert rows_of(store, number) == 0
        assert [one.name for one in store.mounts()] == ["other"]
        assert [point.label for point in store.points()] == ["kept"]
        freed = store.collect().freed_bytes
        assert freed > 500_000
        sound(store)
        assert store.create_mount("m").id > number
        assert store.points("m") == []
        with pytest.raises(NotFound):
            store.remove_mount("nobody")


def test_refused_while_it_is_served_or_a_point_is_read(made: Path) -> None:
    with Store.open(str(made)) as store, Store.open(str(made)) as other:
        tree = other.open_live("m")
        with pytest.raises(Busy, match="nobody serving"):
            store.remove_mount("m")
        tree.close()
    with Store.open(str(made)) as store, Store.open(str(made)) as reader:
        last = store.point("m@latest").id
        reader.view(last)
        with pytest.raises(Busy, match="nobody reading"):
            store.remove_mount("m")
        assert store.mount("m").worker == 0
        sound(store)
    with Store.open(str(made)) as store:
        store.remove_mount("m")


def test_a_point_made_meanwhile_stays_the_mount(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(str(made)) as store:
        monkeypatch.setattr(unmake, "_points", lambda store, name, report: 0)
        with pytest.raises(Busy, match="just made"):
            store.remove_mount("m")
        assert len(store.points("m")) == 3


def test_killed_at_any_step(made: Path, tmp_path: Path) -> None:
    def work(home: Path, step: int) -> None:
        system = MortalOs(step)
        system.watch_transactions()
        unmake.remove_mount(OpenStore(str(home), system=system), "m", report=silent)

    seen = set()
    step = 0
    while True:
        home = tmp_path / f"killed-{step}"
        shutil.copytree(made, home)
        status = run(lambda home=home, step=step: work(home, step))  # type: ignore[misc]
        assert status in (0, -signal.SIGKILL)
        with Store.open(str(home)) as store:
            there = "m" in [one.name for one in store.mounts()]
            number = 2
            seen.add((there, rows_of(store, number) > 0))
            sound(store)
            assert [p.label for p in store.points("other")] == ["kept"]
            if there:
                store.remove_mount("m")
            store.collect()
            assert rows_of(store, number) == 0 and [m.name for m in store.mounts()] == ["other"]
            with store._open.context.index.read() as txn:
                assert not list(txn.keys(Table.META, prefix=b"dead_mount"))
            assert os.path.getsize(home / "format.json")
            assert restored(store, "other@latest", home / "out") == {"kept": noise(100_000, 7)}
        shutil.rmtree(home)
        if status == 0:
            break
        step += 3
    assert seen == {(True, True), (False, True), (False, False)}
