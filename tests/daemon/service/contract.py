"""What every ``Backend`` does, wherever it is asked. A subclass gives the fixture ``rig``.

Its mounts are served by nobody: ``rig.fill`` writes into one as a worker would.
"""

from __future__ import annotations

import io
import os
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.contract import (
    Backend,
    DrillSpec,
    LocationSpec,
    MountSpec,
    PointQuery,
    RestoreSpec,
    RetentionInfo,
    SecretSpec,
)
from engine.errors import AlreadyExists, Busy, Held, InvalidRequest, NotFound, PermissionDenied
from engine.keys import Identity, Key
from tests.daemon.service.support import fill
from tests.locations.places import Place

FILES = {
    "a.txt": b"first",
    "d/e/f.bin": bytes(range(256)) * 9000,
    "d/empty": b"",
    "d/\udcff\udcfe name": b"bytes",
    "z": b"last" * 100,
}
BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "A b",
    "x" * 65,
    "x" * 10_000,
    "é",
    "\udcff",
    "a\0b",
    "-x",
    "a\n",
]
BAD_CURSORS = [
    "x",
    "AAAA",
    "\udcff",
    "é",
    "W10",
    "eA" * 5000,
    "WyJwb2ludHMiLCJ4IiwxLDJd",
    "bnVsbA",
    "WzFd",
]
BAD_PATHS = [
    "..",
    "../..",
    "d/..",
    "/../etc/passwd",
    "d/./..",
    "a.txt/x",
    "nowhere",
    "d\0",
    "x" * 5000,
    "d/e/F.bin",
]


@dataclass
class Rig:
    """A backend and the store behind it."""

    backend: Backend
    path: str

    def fill(self, mount: str, files: dict[str, bytes]) -> None:
        fill(self.path, mount, files)


class BackendContract:
    """The suite."""

    @pytest.fixture
    def backend(self, rig: Rig) -> Backend:
        return rig.backend

    @pytest.fixture
    def mount(self, rig: Rig) -> str:
        rig.backend.create_mount(MountSpec("m"))
        return "m"

    @pytest.fixture
    def point(self, rig: Rig, mount: str) -> str:
        rig.fill(mount, FILES)
        return rig.backend.snapshot(mount, label="full").point.id

    # --- mounts -------------------------------------------------------------------------------------------

    def test_mounts(self, backend: Backend) -> None:
        assert backend.mounts() == []
        made = backend.create_mount(MountSpec("b", quota=1 << 30, max_files=100, chunking="fixed"))
        assert (made.name, made.quota, made.max_files, made.chunking) == (
            "b",
            1 << 30,
            100,
            "fixed",
        )
        assert (made.state, made.points, made.session) == ("stopped", 0, "")
        backend.create_mount(MountSpec("a"))
        assert [one.name for one in backend.mounts()] == ["a", "b"]
        assert backend.mount("b") == made
        with pytest.raises(AlreadyExists):
            backend.create_mount(MountSpec("b"))
        for name in ("B", "c"):
            with pytest.raises(NotFound):
                backend.mount(name)

    def test_names_of_mounts(self, backend: Backend) -> None:
        for name in BAD_NAMES:
            for ask in (
                backend.mount,
                backend.start_mount,
                backend.stop_mount,
                backend.begin,
                backend.snapshot,
            ):
                with pytest.raises((InvalidRequest, NotFound)):
                    ask(name)
            with pytest.raises(InvalidRequest):
                backend.create_mount(MountSpec(name))
        assert backend.mounts() == []

    def test_what_a_mount_cannot_be(self, backend: Backend) -> None:
        for spec in (
            MountSpec("m", quota=-1),
            MountSpec("m", chunking="magic"),
            MountSpec("m", path="/etc"),
        ):
            with pytest.raises(InvalidRequest):
                backend.create_mount(spec)
        for path in ("/mnt/holdfast/../../etc", "mnt", "/mnt/holdfast"):
            with pytest.raises(InvalidRequest):
                backend.create_mount(MountSpec("m", path=path))

    def test_a_mount_is_deleted_with_all_that_is_in_it(
        self, backend: Backend, mount: str, point: str
    ) -> None:
        session = backend.begin(mount)
        with pytest.raises(Busy, match=session.id):
            backend.delete_mount(mount)
        backend.abandon(session.id)
        job = backend.job(backend.delete_mount(mount).id)
        assert (job.kind, job.mount, job.state) == ("delete-mount", mount, "done")
        with pytest.raises(NotFound):
            backend.mount(mount)
        with pytest.raises(NotFound):
            backend.point(point)
        assert backend.create_mount(MountSpec(mount)).points == 0

    # --- sessions -----------------------------------------------------------------------------------------

    def test_a_session_from_begin_to_commit(self, rig: Rig, mount: str) -> None:
        backend = rig.backend
        session = backend.begin(mount, holder="nightly", label="full")
        assert (session.state, session.holder, session.stale, session.point) == (
            "open",
            "nightly",
            False,
            "",
        )
        assert backend.mount(mount).session == session.id
        assert backend.session(session.id) == session == backend.sessions(mount)[0]
        rig.fill(mount, FILES)
        log = backend.attach_log(
            session.id, "/tmp/../x/rman.log", [b"piece han", b"dle=/b/a.txt\n"]
        )
        assert (log.name, log.size, log.session) == ("rman.log", 22, session.id)
        done = backend.commit(session.id)
        assert done.session.state == "committed" and done.session.point == done.detail.point.id
        assert done.detail.point.label == "full" and done.detail.session == session.id
        assert (done.detail.consistency, done.detail.open_files) == ("consistent", [])
        assert [one.path for one in done.manifest] == [
            "a.txt",
            "d/e/f.bin",
            "d/empty",
            "d/\udcff\udcfe name",
            "z",
        ]
        assert sum(one.size for one in done.manifest) == done.detail.point.logical_bytes
        assert not done.more
        [kept] = done.detail.attachments
        told, content = backend.attachment(kept.id)
        assert (told.point, b"".join(content)) == (done.session.point, b"piece handle=/b/a.txt\n")
        assert backend.commit(session.id) == done
        assert backend.points(PointQuery()).items == [done.detail.point]
        assert backend.mount(mount).session == ""

    def test_one_session_of_a_mount_at_a_time(self, backend: Backend, mount: str) -> None:
        backend.create_mount(MountSpec("other"))
        first = backend.begin(mount)
        backend.begin("other")
        with pytest.raises(Busy, match=first.id):
            backend.begin(mount)
        backend.abandon(first.id)
        second = backend.begin(mount)
        assert [one.id for one in backend.sessions(mount, "open")] == [second.id]
        assert len(backend.sessions()) == 3

    def test_an_abandoned_session_makes_no_point(self, backend: Backend, mount: str) -> None:
        session = backend.begin(mount)
        gone = backend.abandon(session.id)
        assert gone.state == "abandoned" and backend.abandon(session.id) == gone
        with pytest.raises(InvalidRequest, match="abandoned"):
            backend.commit(session.id)
        with pytest.raises(InvalidRequest):
            backend.renew(session.id)
        with pytest.raises(InvalidRequest):
            backend.attach_log(session.id, "log", [b"x"])
        assert backend.points(PointQuery()).items == []

    def test_a_committed_session_stays_so(self, backend: Backend, mount: str) -> None:
        session = backend.begin(mount)
        backend.commit(session.id)
        for ask in (backend.abandon, backend.renew):
            with pytest.raises(InvalidRequest, match="committed"):
                ask(session.id)
        assert backend.session(session.id).state == "committed"

    def test_leases(self, backend: Backend, mount: str) -> None:
        session = backend.begin(mount, lease_s=0.001)
        while not backend.session(session.id).stale:
            pass
        longer = backend.renew(session.id, 3600)
        assert not longer.stale and longer.expires_ns > session.expires_ns
        for lease in (-1, 1e12):
            with pytest.raises(InvalidRequest):
                backend.renew(session.id, lease)
        assert backend.commit(session.id).session.state == "committed"

    def test_sessions_that_are_none(self, backend: Backend, mount: str) -> None:
        for name in ("", "x", "../x", "a" * 20, "\udcff", "é", "0" * 10_000, "a\0"):
            for ask in (backend.session, backend.commit, backend.abandon, backend.renew):
                with pytest.raises((NotFound, InvalidRequest)):
                    ask(name)
        with pytest.raises(InvalidRequest):
            backend.sessions(state="gone")
        with pytest.raises(NotFound):
            backend.sessions("nobody")
        for holder in ("x" * 1000, "a\nb", "\udcff"):
            with pytest.raises(InvalidRequest):
                backend.begin(mount, holder=holder)

    # --- recovery points ------------------------------------------------------------------------------------

    def test_points_are_listed_filtered_and_paged(self, rig: Rig, mount: str) -> None:
        backend = rig.backend
        made = [backend.snapshot(mount, label=f"n{n % 2}").point for n in range(5)]
        assert backend.points(PointQuery(mount=mount)).items == made
        assert backend.points(PointQuery(label="n1")).items == made[1::2]
        assert backend.points(PointQuery(since_ns=made[3].time_ns)).items == made[3:]
        assert backend.points(PointQuery(until_ns=made[1].time_ns)).items == made[:2]
        found, cursor = [], ""
        while True:
            page = backend.points(PointQuery(limit=2, cursor=cursor))
            found += page.items
            cursor = page.cursor
            if not cursor:
                break
        assert found == made
        assert backend.point(f"{mount}@latest").point == backend.point(made[4].id).point == made[4]
        with pytest.raises(NotFound):
            backend.points(PointQuery(mount="nobody"))
        for limit in (0, -1, 10**9):
            with pytest.raises(InvalidRequest):
                backend.points(PointQuery(limit=limit))

    def test_points_are_deleted_all_or_none(self, backend: Backend, mount: str) -> None:
        first, second = (backend.snapshot(mount).point.id for _ in range(2))
        assert backend.forecast([first])["points"] == 1
        with pytest.raises(NotFound):
            backend.remove_points([first, "0" * 26])
        assert [one.id for one in backend.remove_points([first])] == [first]
        assert [one.id for one in backend.points(PointQuery()).items] == [second]
        for ask in (backend.remove_points, backend.forecast):
            with pytest.raises(InvalidRequest):
                ask([])

    def test_a_point_is_kept_until_it_is_not(self, backend: Backend, mount: str) -> None:
        point = backend.snapshot(mount).point.id
        assert not backend.point(point).kept
        assert backend.keep(f"{mount}@latest").kept and backend.point(point).kept
        assert backend.keep(point, kept=True).point.id == point
        assert not backend.keep(point, kept=False).kept and not backend.point(point).kept
        backend.keep(point)
        assert [one.id for one in backend.remove_points([point])] == [point]
        with pytest.raises(NotFound):
            backend.keep(point)

    def test_nobody_deletes_a_locked_point(self, backend: Backend, mount: str) -> None:
        point, other = (backend.snapshot(mount).point.id for _ in range(2))
        assert backend.point(point).point.locked_ns == 0
        end = backend.lock(f"{mount}@latest", for_s=3600).point.locked_ns
        assert 0 < end - time.time_ns() <= 3600 * 10**9
        later = end + 10**9
        assert backend.lock(other, until_ns=later).point.locked_ns == later
        assert [one.locked_ns for one in backend.points(PointQuery()).items] == [0, later]
        for refused in (
            lambda: backend.remove_points([point, other]),
            lambda: backend.lock(other, until_ns=end),
            lambda: backend.delete_mount(mount),
        ):
            with pytest.raises(Held):
                refused()
        for wrong in ({}, {"until_ns": 1}, {"until_ns": later, "for_s": 1.0}):
            with pytest.raises(InvalidRequest):
                backend.lock(other, **wrong)  # type: ignore[arg-type]
        with pytest.raises(NotFound):
            backend.lock("0" * 26, for_s=1)
        assert [one.id for one in backend.remove_points([point])] == [point]
        assert [one.id for one in backend.points(PointQuery()).items] == [other]

    def test_the_databases_of_a_point(self, rig: Rig, mount: str) -> None:
        backend = rig.backend
        names = [f"x/ORCL_{n}" for n in range(3)] + ["x/\udcff"]
        rig.fill(mount, dict.fromkeys(names, b"piece"))
        session = backend.begin(mount).id
        lines = [b"piece handle=/y/" + os.fsencode(name) + b" tag=T\n" for name in names]
        log = b"connected to target database: ORCL (DBID=1)\n" + b"".join(lines)
        backend.attach_log(session, "rman.log", [log])
        point = backend.commit(session).session.point
        assert backend.databases(point) == {"ORCL": 4}
        assert backend.files_of(f"{mount}@latest", "ORCL") == names
        for name in ("orcl", "../x", "a/b", "é"):
            with pytest.raises(NotFound):
                backend.files_of(point, name)
        assert backend.databases(backend.snapshot(mount).point.id) == {}
        with pytest.raises(NotFound):
            backend.databases("0" * 26)

    def test_browsing(self, backend: Backend, point: str) -> None:
        names = [(one.name, one.type) for one in backend.entries(point).items]
        assert names == [("a.txt", "file"), ("d", "directory"), ("z", "file")]
        first = backend.entries(point, "d", limit=2)
        rest = backend.entries(point, "d", limit=2, cursor=first.cursor)
        assert [one.name for one in first.items + rest.items] == ["e", "empty", "\udcff\udcfe name"]
        assert first.cursor and not rest.cursor
        for path, content in FILES.items():
            info, pieces = backend.file(point, path)
            assert (info.size, b"".join(pieces)) == (len(content), content)
        whole = FILES["d/e/f.bin"]
        for offset, length in (
            (0, 0),
            (5, 100),
            (1 << 20, -1),
            (len(whole), -1),
            (len(whole) - 1, 50),
        ):
            _, pieces = backend.file(point, "d/e/f.bin", offset=offset, length=length)
            assert b"".join(pieces) == (
                whole[offset:] if length < 0 else whole[offset : offset + length]
            )
        for offset, length in ((-1, 1), (len(whole) + 1, 1), (0, -2)):
            with pytest.raises(InvalidRequest):
                backend.file(point, "d/e/f.bin", offset=offset, length=length)

    def test_paths_lead_nowhere_else(self, backend: Backend, point: str) -> None:
        for path in BAD_PATHS:
            for ask in (backend.entries, backend.file, backend.tar):
                with pytest.raises((NotFound, InvalidRequest)):
                    ask(point, path)
            with pytest.raises((NotFound, InvalidRequest)):
                backend.restore(RestoreSpec(point, path))

    def test_a_manifest_is_the_same_whole_and_in_pages(self, backend: Backend, point: str) -> None:
        whole = backend.manifest(point).items
        assert {one.path: one.size for one in whole} == {
            path: len(data) for path, data in FILES.items()
        }
        assert all(len(one.root) == 64 for one in whole) and len({one.root for one in whole}) == 5
        for limit in (1, 2, 3):
            found, cursor = [], ""
            while True:
                page = backend.manifest(point, limit=limit, cursor=cursor)
                found += page.items
                cursor = page.cursor
                if not cursor:
                    break
            assert found == whole

    def test_a_tar_has_it_all(self, backend: Backend, point: str) -> None:
        with tarfile.open(fileobj=io.BytesIO(b"".join(backend.tar(point)))) as tar:
            content = {one.name: tar.extractfile(one).read() for one in tar if one.isreg()}  # type: ignore[union-attr]
        assert content == FILES
        with tarfile.open(fileobj=io.BytesIO(b"".join(backend.tar(point, "d/e")))) as tar:
            assert tar.getnames() == ["e", "e/f.bin"]

    def test_differences(self, rig: Rig, mount: str, point: str) -> None:
        rig.fill(mount, {"a.txt": b"second", "new": b"x"})
        later = rig.backend.snapshot(mount).point.id
        found = [(one.kind, one.path) for one in rig.backend.diff(point, later).items]
        assert found == [("changed", "a.txt"), ("added", "new")]
        first = rig.backend.diff(point, later, limit=1)
        rest = rig.backend.diff(point, later, limit=1, cursor=first.cursor)
        assert [(one.kind, one.path) for one in first.items + rest.items] == found
        assert rig.backend.diff(later, later).items == [] and not rest.cursor

    def test_cursors_that_are_none(self, backend: Backend, point: str) -> None:
        asks = [
            lambda cursor: backend.points(PointQuery(cursor=cursor)),
            lambda cursor: backend.entries(point, "d", cursor=cursor),
            lambda cursor: backend.manifest(point, cursor=cursor),
            lambda cursor: backend.diff(point, point, cursor=cursor),
            lambda cursor: backend.jobs(cursor=cursor),
        ]
        for cursor in BAD_CURSORS:
            for ask in asks:
                with pytest.raises(InvalidRequest, match="cursor"):
                    ask(cursor)

    def test_points_that_are_none(self, backend: Backend, mount: str) -> None:
        for reference in (
            "",
            "x",
            "m@latest",
            "nobody@latest",
            "0" * 26,
            "../x",
            "\udcff",
            "é" * 30,
            "a\0",
        ):
            for ask in (backend.point, backend.entries, backend.manifest, backend.tar):
                with pytest.raises((NotFound, InvalidRequest)):
                    ask(reference)
        with pytest.raises(NotFound):
            backend.attachment(1)

    # --- the rest -------------------------------------------------------------------------------------------

    def test_jobs(self, backend: Backend, point: str) -> None:
        made = [backend.start_job("collect", {}).id for _ in range(3)]
        assert backend.job(made[0]).state == "done" and len(set(made)) == 3
        page = backend.jobs(kind="collect", limit=2)
        rest = backend.jobs(kind="collect", limit=2, cursor=page.cursor)
        assert [one.id for one in page.items + rest.items] == made[::-1]
        assert backend.jobs(state="failed").items == []
        assert backend.cancel_job(made[0]).state == "done"
        for kind, options in (("restore", {}), ("nonsense", {}), ("check", {"read_data": 1}), ("scrub", {"x": 1}),
                              ("scrub", {"rate": -1}), ("collect", {"budget_s": "1"})):  # fmt: skip
            with pytest.raises(InvalidRequest):
                backend.start_job(kind, options)  # type: ignore[arg-type]
        for number in (0, -1, 99, 2**80):
            with pytest.raises(NotFound):
                backend.job(number)

    def test_restores_into_the_mount(self, backend: Backend, mount: str, point: str) -> None:
        job = backend.restore(RestoreSpec(point, "d"))
        assert job.state == "done" and job.result["path"].endswith(f"/restores/{job.id}")
        with pytest.raises(Busy, match="restore"):
            backend.remove_points([point])
        with pytest.raises(NotFound):
            backend.delete_restore(mount, job.id + 1)
        backend.delete_restore(mount, job.id)
        with pytest.raises(NotFound):
            backend.delete_restore(mount, job.id)
        backend.remove_points([point])
        with pytest.raises(NotFound):
            backend.restore(RestoreSpec(point))

    def test_a_wish_with_a_name_is_granted_once(
        self, backend: Backend, mount: str, point: str
    ) -> None:
        made = backend.snapshot(mount, label="x", once="one").point
        assert backend.snapshot(mount, label="x", once="one").point == made
        assert backend.snapshot(mount, label="x", once="two").point != made
        job = backend.restore(RestoreSpec(point, "d"), once="three")
        assert backend.restore(RestoreSpec(point, "d"), once="three").id == job.id
        assert backend.restore(RestoreSpec(point, "d")).id != job.id
        with pytest.raises(InvalidRequest):
            backend.snapshot(mount, label="y", once="one")

    def test_parts_of_a_point_are_restored(self, backend: Backend, mount: str, point: str) -> None:
        job = backend.restore(RestoreSpec(point, paths=["d/e/f.bin", "/d/"]))
        assert job.state == "done" and job.options["paths"] == ["d/e/f.bin", "d"]
        for spec in (
            RestoreSpec(point, "d", paths=["d"]), RestoreSpec(point, paths=["none"]), RestoreSpec(point, database="x"),
            RestoreSpec(point, location="none"),
        ):  # fmt: skip
            with pytest.raises((InvalidRequest, NotFound)):
                backend.restore(spec)

    def test_drills(self, backend: Backend, mount: str, point: str) -> None:
        job = backend.drill(DrillSpec(mount))
        assert (job.kind, job.state, job.mount) == ("drill", "done", mount)
        (found,) = backend.drills(mount)
        assert (found.job, found.point, found.source, found.error) == (job.id, point, "local", "")
        assert found.files == 7 and not found.hook and backend.drills() == [found]
        assert backend.mount(mount).drilled_ns == found.ended_ns > 0
        with pytest.raises(NotFound):
            backend.drills("nobody")
        for spec in (DrillSpec("nobody"), DrillSpec(point="nope"), DrillSpec(mount, source="nas"),
                     DrillSpec(mount, into="nowhere"), DrillSpec("../x")):  # fmt: skip
            with pytest.raises((NotFound, InvalidRequest)):
                backend.drill(spec)

    def test_retention(self, rig: Rig, mount: str) -> None:
        backend = rig.backend
        (found,) = backend.retention()
        assert found == RetentionInfo(mount, 0, 0.0) and backend.mount(mount).frozen == ""
        assert backend.release_retention(mount) == found
        with pytest.raises(NotFound):
            backend.release_retention("nobody")

    def test_tokens(self, backend: Backend) -> None:
        made, text = backend.create_token("writer", ["m"], label="rman", lifetime_s=60)
        assert text.startswith(f"hf_{made.id}_") and made.expires_ns == made.created_ns + 60 * 10**9
        assert backend.tokens() == [made] and made.mounts == ["m"]
        assert backend.revoke_token(made.id).revoked_ns > 0
        for role, mounts in (("root", []), ("writer", ["../x"])):
            with pytest.raises((InvalidRequest, PermissionDenied)):
                backend.create_token(role, mounts)  # type: ignore[arg-type]
        with pytest.raises(NotFound):
            backend.revoke_token("0" * 12)

    def test_keys_of_a_location(self, backend: Backend, place: Place, tmp_path: Path) -> None:
        safe, paper = Identity.new(), Key.new()
        keys, source = [safe.recipient.printed()], place.source(tmp_path)
        backend.add_location(LocationSpec("far", place.url, keys=keys, credentials=source))
        first = backend.keys("far")
        assert [(one.kind, one.own) for one in first.slots] == [("recipient", False), ("key", True)]
        assert (first.location, first.ring, first.epochs, first.left) == ("far", 1, [1], "")
        added = backend.change_keys("far", add=[SecretSpec(key=paper.printed())])
        assert (added.ring, len(added.slots), added.fingerprint) == (2, 3, first.fingerprint)
        by_paper, by_safe = SecretSpec(key=paper.printed()), SecretSpec(key=safe.printed())
        recipient = SecretSpec(key=safe.recipient.printed())
        own, safes, papers = (
            next(one.id for one in added.slots if (one.kind, one.own) == wanted)
            for wanted in (("key", True), ("recipient", False), ("key", False))
        )
        less = backend.change_keys("far", remove=[safes], opened_with=by_paper)
        assert [one.id for one in less.slots] == [own, papers]
        for remove, add, opened_with in (
            ([own], [], None), ([papers], [], None), (["x"], [], None), ([], [], None), ([], [SecretSpec()], None),
            ([], [SecretSpec("words", recipient.key)], None), ([], [recipient], recipient),
            ([], [SecretSpec(key=paper.printed()[:-1])], None),
        ):  # fmt: skip
            with pytest.raises(InvalidRequest):
                backend.change_keys("far", add=add, remove=remove, opened_with=opened_with)
        with pytest.raises(PermissionDenied, match="opens none"):
            backend.rotate_keys("far", opened_with=by_safe)
        assert backend.keys("far") == less
        assert backend.rotate_keys("far").epochs == [1, 2]
        new = backend.rotate_keys("far", master_for=[recipient], opened_with=by_paper)
        assert [one.kind for one in new.slots] == ["recipient", "key"] and new.epochs == [1, 2, 3]
        own = next(one.id for one in new.slots if one.own)
        assert not any(
            one.own for one in backend.change_keys("far", remove=[own], force=True).slots
        )
        with pytest.raises(PermissionDenied):
            backend.keys("far")
        again = backend.change_keys("far", machine=True, opened_with=by_safe)
        assert [one.own for one in again.slots] == [False, True] and backend.keys("far") == again
        for ask in (backend.keys, backend.change_keys, backend.rotate_keys):
            with pytest.raises(NotFound, match="locations: far"):
                ask("near")
        backend.remove_location("far")

    def test_the_store(self, backend: Backend, mount: str, point: str) -> None:
        assert backend.stats()["points"] == backend.stats(mount)["points"] == 1
        assert backend.history() == [] and backend.incidents() == []
        backend.reset_incidents()
        assert backend.config()["store"] and backend.audit(after=1000) == []
