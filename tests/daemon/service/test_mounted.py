"""Sessions of mounts that a real worker serves: what was written is in the point, open files are named, fences hold."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.contract import LocationSpec, MountSpec, PointQuery, RestoreSpec
from daemon.service import Service, alone, restoring
from daemon.supervise.mounts import Mounts
from daemon.supervise.settings import Settings
from engine.errors import Busy, InvalidRequest, NotFound
from engine.index import Table
from engine.index.rows import KIND_DATA
from engine.keys import Identity
from tests.daemon.service.support import fill, new_store, served, settings
from tests.locations.places import Place
from tests.restore.support import damage

pytestmark = pytest.mark.needs_fuse


@contextmanager
def mounted(tmp_path: Path, **table: Any) -> Iterator[tuple[Service, Path]]:
    path = str(tmp_path / "store")
    (tmp_path / "mnt").mkdir()
    new_store(path)
    config = settings(path, {"m": table}, mount_root=str(tmp_path / "mnt"))
    where = tmp_path / "mnt" / "m"
    where.mkdir()
    with served(path, config) as service:
        service.create_mount(MountSpec("m"))
        service.start_mount("m")
        try:
            yield service, where
        finally:
            service.stop_mount("m")


def test_what_was_written_is_in_the_point_and_what_is_open_is_named(tmp_path: Path) -> None:
    with mounted(tmp_path) as (service, where):
        assert service.mount("m").state == "serving" and service.mount("m").path == str(where)
        session = service.begin("m")
        (where / "d").mkdir()
        (where / "d" / "closed").write_bytes(b"x" * 100_000)
        with (where / "d" / "open").open("wb") as file:
            file.write(b"not synced")
            file.flush()
            done = service.commit(session.id)
            assert done.detail.consistency == "crash-consistent"
            assert done.detail.open_files == ["d/open"]
            file.write(b" and more")
        _, content = service.file(done.session.point, "d/open")
        assert b"".join(content) == b"not synced"
        again = service.commit(service.begin("m").id)
        assert (again.detail.consistency, again.detail.open_files) == ("consistent", [])
        assert {one.path: one.size for one in again.manifest}["d/open"] == 19


def test_open_files_are_refused_where_the_policy_says_so(tmp_path: Path) -> None:
    with mounted(tmp_path, open_files="refuse") as (service, where):
        session = service.begin("m")
        with (where / "f").open("wb") as file:
            file.write(b"half")
            file.flush()
            with pytest.raises(Busy, match="found f"):
                service.commit(session.id)
            with pytest.raises(Busy, match="found f"):
                service.snapshot("m")
            assert service.session(session.id).state == "open"
            file.write(b" whole")
        done = service.commit(session.id)
        assert done.detail.consistency == "consistent"
        assert service.points(PointQuery()).items == [done.detail.point]


def test_programs_write_in_sessions_only_where_the_policy_says_so(tmp_path: Path) -> None:
    with mounted(tmp_path, outside_sessions="read-only", open_files="refuse") as (service, where):

        def refused() -> bool:
            try:
                (where / "f").write_bytes(b"x")
            except OSError as error:
                return error.errno == errno.EROFS
            return False

        assert refused()
        session = service.begin("m")
        assert not refused()
        with (where / "f").open("r+b"), pytest.raises(Busy):
            service.commit(session.id)
        assert not refused()
        service.commit(session.id)
        assert refused()
        service.abandon(service.begin("m").id)
        assert refused()
        service.stop_mount("m")
        session = service.begin("m")
        service.start_mount("m")
        assert not refused()
        service.commit(session.id)


class Silent(alone.Workers):
    """Tells a worker nothing of the fence."""

    def fence(self, name: str, *, writable: bool) -> None:
        pass


def test_a_worker_starts_with_the_fence_that_the_state_says(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    new_store(path)
    config = settings(
        path, {"m": {"outside_sessions": "read-only"}}, mount_root=str(tmp_path / "mnt")
    )
    file = tmp_path / "mnt" / "m" / "f"
    file.parent.mkdir(parents=True)
    workers = Silent(path, lambda: config, {})
    with served(path, config, workers=workers) as service:
        service.create_mount(MountSpec("m"))
        mounts = Mounts(Settings("", config))
        mounts.open(service, None, None)  # type: ignore[arg-type]
        try:
            service.start_mount("m")
            assert mounts.spot("m").options.fenced
            with pytest.raises(OSError, match="Read-only"):
                file.write_bytes(b"x")
            service.stop_mount("m")
            session = service.begin("m")
            service.start_mount("m")
            assert not mounts.spot("m").options.fenced
            file.write_bytes(b"x")
        finally:
            service.stop_mount("m")
        service.abandon(session.id)
        assert mounts.spot("m").options.fenced


def test_a_restore_is_shown_in_the_mount_and_again_after_a_restart(tmp_path: Path) -> None:
    with mounted(tmp_path) as (service, where):
        (where / "d").mkdir()
        (where / "d" / "f").write_bytes(b"old")
        point = service.snapshot("m").point
        (where / "d" / "f").write_bytes(b"new")
        job = service.restore(RestoreSpec(point.id, "d"))
        shown = where / "restores" / str(job.id)
        assert job.result["path"] == str(shown)
        assert (shown / "f").read_bytes() == b"old"
        service.stop_mount("m")
        service.start_mount("m")
        assert (shown / "f").read_bytes() == b"old"
        service.delete_restore("m", job.id)
        assert not os.path.exists(shown) and (where / "d" / "f").read_bytes() == b"new"


RMAN = b"connected to target database: ORCL (DBID=1)\npiece handle=/b/db/one.bkp tag=T\n"


def names(top: Path) -> list[str]:
    return sorted(str(one.relative_to(top)) for one in top.rglob("*"))


def test_parts_of_a_point_are_shown_here_and_from_a_location(place: Place, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    with mounted(tmp_path) as (service, where):
        (where / "db" / "deep").mkdir(parents=True)
        for name in ("db/one.bkp", "db/two.bkp", "db/deep/three", "other"):
            (where / name).write_bytes(content + name.encode())
        session = service.begin("m")
        service.attach_log(session.id, "rman.log", [RMAN])
        point = service.commit(session.id).session.point
        with pytest.raises(InvalidRequest, match="a mount of Holdfast"):
            service.add_location(LocationSpec("own", f"file://{where}/db", sealed=False))
        spec = LocationSpec("far", place.url, keys=[Identity.new().recipient.printed()])
        service.add_location(spec)
        with pytest.raises(NotFound, match="copy of point"):
            service.restore(RestoreSpec(point, location="far"))
        assert service.start_job("upload", {"location": "far"}).state == "done"
        shown = where / "restores"
        paths = ["db/deep", "db/two.bkp", "db/deep/three"]
        some = service.restore(RestoreSpec(point, paths=paths))
        assert names(shown / str(some.id)) == ["db", "db/deep", "db/deep/three", "db/two.bkp"]
        assert not (shown / str(some.id) / "other").exists()
        base = service.restore(RestoreSpec(point, database="ORCL"))
        assert names(shown / str(base.id)) == ["db", "db/one.bkp"]
        for job in (some, base):
            service.delete_restore("m", job.id)
        spoil(service)
        near = service.restore(RestoreSpec(point, database="ORCL"))
        far = service.restore(RestoreSpec(point, location="far", database="ORCL"))
        assert far.options["from"] == "far" and far.options["database"] == "ORCL"
        with pytest.raises(OSError):
            (shown / str(near.id) / "db" / "one.bkp").read_bytes()
        file = shown / str(far.id) / "db" / "one.bkp"
        assert file.read_bytes() == content + b"db/one.bkp"
        with pytest.raises(Busy, match="restore that is read from there"):
            service.remove_location("far")
        service.stop_mount("m")
        place.gone()
        service.start_mount("m")
        assert os.listdir(shown) == [str(near.id)]
        place.back()
        service.show_hidden()
        assert file.read_bytes() == content + b"db/one.bkp"
        service.delete_restore("m", far.id)
        assert names(shown) == [str(near.id), f"{near.id}/db", f"{near.id}/db/one.bkp"]


def spoil(service: Service) -> None:
    """Damage every chunk of content that is here."""
    with service.store._open.context.index.read() as txn:
        found = [bytes(cid) for cid in txn.keys(Table.CHUNKS)]
    for cid in found:
        row = service.store._open.reader.row(cid)
        if row is not None and row.kind == KIND_DATA:
            damage(service.store, cid)


@pytest.mark.parametrize(
    "wish",
    [
        {"path": "db", "paths": ["x"]}, {"paths": ["/"]}, {"database": "ORCL", "path": "x"}, {"database": "none"},
        {"paths": ["db/none"]}, {"location": "none"}, {"paths": ["db/x"] * 2},
    ],
)  # fmt: skip
def test_wishes_that_cannot_be(
    tmp_path: Path, wish: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "SHOWN_MAX", 7)
    path = str(tmp_path / "store")
    new_store(path)
    with served(path, settings(path, {"m": {}})) as service:
        service.create_mount(MountSpec("m"))
        fill(path, "m", {"db/x": b"x"})
        point = service.snapshot("m").point.id
        with pytest.raises((InvalidRequest, NotFound)):
            service.restore(RestoreSpec(point, **wish))
        assert service.jobs().items == []
