"""The directory of a store: made, opened, refused; who may have it open at once; what a failed opening leaves."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from engine import home as homes
from engine.errors import (
    AlreadyExists,
    Busy,
    Corrupt,
    FormatTooNew,
    HoldfastError,
    LocationUnavailable,
    NotFound,
    PermissionDenied,
    ReadOnly,
    StoreFull,
)
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import U64, worker_row
from engine.seam import REAL, Os

FOLDERS = {"segments", "packs", "workers", "run", "quarantine", "index"}


class Refusing(Os):
    """Answers one kind of call on paths that end in ``what`` with an error."""

    def __init__(self, call: str, what: str, number: int) -> None:
        self._call = call
        self._what = what
        self._number = number

    def _maybe(self, call: str, path: str) -> None:
        if call == self._call and path.endswith(self._what):
            raise OSError(self._number, os.strerror(self._number))

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        self._maybe("open", path)
        return super().open(path, flags, mode)

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        self._maybe("mkdir", path)
        super().mkdir(path, mode)

    def rename(self, old: str, new: str) -> None:
        self._maybe("rename", new)
        super().rename(old, new)

    def fsync_dir(self, path: str) -> None:
        self._maybe("fsync_dir", path)
        super().fsync_dir(path)


def free(path: Path) -> bool:
    """Whether nobody has the store open."""
    try:
        with homes.locked(str(path), REAL):
            return True
    except Busy:
        return False


# --- making one ---------------------------------------------------------------------------------------------


def test_a_new_store_is_private_and_has_its_folders(home: Path) -> None:
    assert {p.name for p in home.iterdir()} == FOLDERS | {"format.json"}
    for path in (home, *home.iterdir(), home / "index" / "data.mdb"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    identity = json.loads((home / "format.json").read_text())
    assert identity.keys() == {"format", "store_id", "id_key"}
    assert (len(identity["store_id"]), len(identity["id_key"])) == (32, 64)


def test_no_two_stores_are_of_one_identity(home: Path, tmp_path: Path) -> None:
    homes.init(str(tmp_path / "other"))
    one, other = (json.loads((p / "format.json").read_text()) for p in (home, tmp_path / "other"))
    assert one["store_id"] != other["store_id"]
    assert one["id_key"] != other["id_key"]


def test_a_store_is_made_once(home: Path) -> None:
    before = (home / "format.json").read_bytes()
    with pytest.raises(AlreadyExists, match="found a store"):
        homes.init(str(home))
    assert (home / "format.json").read_bytes() == before


def test_the_directory_above_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        homes.init(str(tmp_path / "none" / "store"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("system", "error"),
    [
        (Refusing("mkdir", "/store", errno.EACCES), PermissionDenied),
        (Refusing("mkdir", "/packs", errno.ENOSPC), StoreFull),
        (Refusing("fsync_dir", "/index", errno.EIO), LocationUnavailable),
        (Refusing("open", "", errno.EROFS), ReadOnly),
        (Refusing("rename", "/format.json", errno.EDQUOT), StoreFull),
    ],
)
def test_a_store_whose_making_failed_is_none_and_can_be_begun_again(
    tmp_path: Path, system: Os, error: type[HoldfastError]
) -> None:
    path = tmp_path / "store"
    with pytest.raises(error, match="store"):
        homes.init(str(path), system=system)
    with pytest.raises(NotFound, match="holdfast init"):
        OpenStore(str(path))
    for left in path.glob("format.json.tmp-*"):
        left.unlink()
    homes.init(str(path))
    with OpenStore(str(path)) as store:
        assert len(store.context.key) == 32


def test_a_making_that_failed_last_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    with pytest.raises(StoreFull):
        homes.init(path, system=Refusing("rename", "/format.json", errno.ENOSPC))
    homes.init(path)


# --- opening ------------------------------------------------------------------------------------------------


def test_a_store_is_what_its_identity_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = json.loads((home / "format.json").read_text())
    monkeypatch.chdir(home.parent)
    with OpenStore("store") as store:
        assert store.path == str(home)
        assert store.context.store_id.hex() == identity["store_id"]
        assert store.context.key.hex() == identity["id_key"]


@pytest.mark.parametrize("change", [{"format": 3}, {"format": 10**30}])
def test_a_newer_format_is_said(home: Path, change: dict[str, object]) -> None:
    identity = json.loads((home / "format.json").read_text())
    (home / "format.json").write_text(json.dumps({**identity, **change}))
    with pytest.raises(FormatTooNew, match="newer Holdfast"):
        OpenStore(str(home))
    with pytest.raises(FormatTooNew), homes.locked(str(home), REAL):
        pass
    assert not (home / "lock").exists()


def test_what_a_newer_store_adds_to_its_identity_is_passed_over(home: Path) -> None:
    identity = json.loads((home / "format.json").read_text())
    (home / "format.json").write_text(json.dumps({**identity, "more": 1}))
    with OpenStore(str(home)) as store:
        assert store.context.store_id.hex() == identity["store_id"]


@pytest.mark.parametrize(
    ("name", "value"), [("store_id", "00" * 15), ("id_key", "00" * 33), ("id_key", None)]
)
def test_an_identity_of_another_length_is_corrupt(home: Path, name: str, value: object) -> None:
    identity = json.loads((home / "format.json").read_text())
    (home / "format.json").write_text(json.dumps({**identity, name: value}))
    with pytest.raises(Corrupt, match=r"format\.json"):
        OpenStore(str(home))


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.EACCES, PermissionDenied), (errno.EIO, LocationUnavailable), (errno.EROFS, ReadOnly)],
)
@pytest.mark.parametrize("file", ["format.json", "lock"])
def test_a_disk_that_refuses(
    home: Path, file: str, number: int, error: type[HoldfastError]
) -> None:
    with pytest.raises(error, match=file):
        OpenStore(str(home), system=Refusing("open", file, number))
    assert free(home)


def test_a_disk_that_refuses_a_repair(home: Path) -> None:
    with pytest.raises(ReadOnly), homes.locked(str(home), Refusing("open", "lock", errno.EROFS)):
        pass


# --- who may have it open -----------------------------------------------------------------------------------


def test_many_may_have_a_store_open(home: Path) -> None:
    with OpenStore(str(home)) as one, OpenStore(str(home)) as other:
        assert one.context.index is other.context.index
        assert one.session.worker.id != other.session.worker.id
        assert not free(home)
    assert free(home)


def test_whoever_wants_it_alone_waits_for_all_others(home: Path) -> None:
    with OpenStore(str(home)):
        with pytest.raises(Busy, match="processes that have it open"):
            OpenStore(str(home), exclusive=True)
        with pytest.raises(Busy, match="unmount"), homes.locked(str(home), REAL):
            pass
    with OpenStore(str(home), exclusive=True), pytest.raises(Busy, match="a repair at work"):
        OpenStore(str(home))
    assert free(home)


def test_while_a_repair_works_nobody_opens_it(home: Path) -> None:
    with homes.locked(str(home), REAL) as (store_id, key, _):
        identity = json.loads((home / "format.json").read_text())
        assert (store_id.hex(), key.hex()) == (identity["store_id"], identity["id_key"])
        for exclusive in (False, True):
            with pytest.raises(Busy):
                OpenStore(str(home), exclusive=exclusive)
    with OpenStore(str(home)):
        assert not free(home)


def test_an_opening_that_failed_holds_nothing(home: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    os.truncate(home / "index" / "data.mdb", 100)
    with pytest.raises(Corrupt, match="rebuild-index"):
        OpenStore(str(home))
    assert free(home)
    with homes.locked(str(home), REAL), pytest.raises(Busy):
        OpenStore(str(home))
    assert len(os.listdir("/proc/self/fd")) == before


# --- sessions -----------------------------------------------------------------------------------------------


def workers(store: OpenStore) -> set[int]:
    with store.context.index.read() as txn:
        rows = {U64.unpack(key)[0]: worker_row(raw) for key, raw in txn.scan(Table.WORKERS)}
    assert all(row.pid == os.getpid() for row in rows.values())
    return set(rows)


def test_a_session_is_begun_by_its_first_use_and_leaves_nothing(home: Path) -> None:
    with OpenStore(str(home)) as store:
        assert workers(store) == set()
        assert store.session is store.session
        assert store.reading is store.session.worker
        assert workers(store) == {store.session.worker.id}
        assert len(os.listdir(home / "workers")) == 1
    assert os.listdir(home / "workers") == []
    assert os.listdir(home / "segments") == []
    with OpenStore(str(home)) as store:
        assert workers(store) == set()


def test_who_only_reads_is_no_writer(home: Path) -> None:
    with OpenStore(str(home)) as store:
        reading = store.reading
        assert store.reading is reading
        assert workers(store) == {reading.id}
        assert store.session.worker is not reading
        assert workers(store) == {reading.id, store.session.worker.id}
    assert os.listdir(home / "workers") == []
