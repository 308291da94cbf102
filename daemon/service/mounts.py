"""Mounts: which there are, how they are served, making and deleting them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection

from daemon.contract import DrillInfo, ExportInfo, JobInfo, MountInfo, MountSpec
from daemon.service.collapse import MARK, Watch
from daemon.service.keyrings import Keyrings
from daemon.service.ports import Shown
from daemon.state.records import DELETED
from daemon.state.sessions import occupied
from engine.errors import Busy, HoldfastError, InvalidRequest, NotFound
from engine.registry import Mount

DRILLS = "drills of "  # of a mark, before a mount's name: its last drills
DRILLED_SINCE = (
    "drills since "  # of a mark, before a mount's name: since when it has a schedule of them
)


def stays_deleted(name: str) -> str:
    """What is told of a mount that a configuration names and that was deleted."""
    again = f"take it out of the file, or run 'holdfast create {name}'"
    return f"mounts.{name}: was deleted, and is not made again: {again}"


class Mounts(Keyrings):
    """The part of ``Backend`` about mounts."""

    def mounts(self) -> list[MountInfo]:
        """All mounts, by name."""
        counts = Counter(point.mount for point in self.store.points())
        pending = self.pending()
        return [
            self._mount_info(one, counts[one.name], pending.get(one.name, 0))
            for one in self.store.mounts()
        ]

    def mount(self, name: str) -> MountInfo:
        """One mount. Raises NotFound."""
        found = self.store.mount(name)
        return self._mount_info(found, len(self.store.points(name)), self.pending().get(name, 0))

    def _mount_info(self, mount: Mount, points: int, pending: int) -> MountInfo:
        state, path, pid = self.ports.workers.status(mount.name)
        wanted = self.state.wanted.get(mount.name)
        session = self.state.sessions.open_of(mount.name)
        good = next((one for one in reversed(self.drills_of(mount.name)) if not one.error), None)
        return MountInfo(
            name=mount.name, chunking=mount.chunking, quota=mount.quota, max_files=mount.files,
            points=points, state="deleting" if wanted.deleting else state, path=path, pid=pid,
            session=session.id if session else "",
            exports=[one.client for one in self.wanted_exports(mount.name)], pending=pending,
            frozen=self.watch_of(mount.name).frozen, recovery_s=good.restore_s + good.verify_s if good else 0.0,
            drilled_ns=good.ended_ns if good else 0,
        )  # fmt: skip

    def watch_of(self, mount: str) -> Watch:
        """What is known of a mount's points, as it was looked at last."""
        return Watch.from_json(self.state.marks.get(MARK + mount))

    def drills_of(self, mount: str) -> list[DrillInfo]:
        """Drills of a mount that have ended, the oldest first."""
        rows = json.loads(self.state.marks.get(DRILLS + mount) or "[]")
        return [DrillInfo(**row) for row in rows]

    def wanted_exports(self, mount: str) -> list[ExportInfo]:
        """Exports of a mount: those of the configuration, and those asked for, which come before them."""
        found = {
            one.client: ExportInfo(mount, one.client, one.read_only, one.squash)
            for one in self.policy(mount).exports
        }
        found |= {one.client: one for one in self.state.exports.of(mount)}
        return [found[client] for client in sorted(found)]

    def create_mount(self, spec: MountSpec) -> MountInfo:
        """A new, empty mount; what is not said is as the configuration says. Raises AlreadyExists, InvalidRequest."""
        policy = self.policy(spec.name)
        self._check_path(spec.path)
        if self.state.wanted.get(spec.name).deleting:
            raise self._being_deleted(spec.name)
        if spec.quota < 0 or spec.max_files < 0:
            raise InvalidRequest("quota", expected="0 for none, or more", found="less than 0")
        chunking = policy.chunking if spec.chunking == "auto" else spec.chunking
        self.store.create_mount(
            spec.name, spec.quota or policy.quota, chunking, spec.max_files or policy.max_files
        )
        if self.state.marks.get(DELETED + spec.name):
            self.state.marks.remove(DELETED + spec.name)
        if spec.path:
            self.state.wanted.place(spec.name, spec.path)
        return self.mount(spec.name)

    def _check_path(self, path: str) -> None:
        root = self._config().mount_root.rstrip("/")
        normal = os.path.normpath(path) if path else ""
        if path and (normal != path or not path.startswith(root + "/")):
            raise InvalidRequest(
                f"path {path!r}", expected=f"a directory below {root}", found="another",
                do="name other places in the configuration",
            )  # fmt: skip

    def mount_path(self, name: str) -> str:
        """Where a mount is mounted when it is served."""
        return self.state.wanted.get(name).path or self._config().mount_path(name)

    def start_mount(self, name: str) -> MountInfo:
        """Serve it, now and after a restart."""
        self.store.mount(name)
        if self.state.wanted.get(name).deleting:
            raise self._being_deleted(name)
        self.state.wanted.run(name, running=True)
        self.ports.workers.start(name)
        self.served(name)
        return self.mount(name)

    def stop_mount(self, name: str) -> MountInfo:
        """Serve it no longer, nor after a restart. An open session stays open. Raises Busy while files are in use."""
        self.store.mount(name)
        self.ports.workers.stop(name)  # first: one that is in use is served on, after a restart too
        self.state.wanted.run(name, running=False)
        return self.mount(name)

    def served(self, name: str) -> None:
        """A worker has begun to serve the mount: it must show what the last one did, and let in whom it may."""
        writable = None
        while writable != self.may_write(name):  # a session may have ended while it was told
            writable = self.may_write(name)
            self.ports.workers.fence(name, writable=writable)
        self._show_again(name)

    def may_write(self, name: str) -> bool:
        """Whether programs may change what is in the mount: where they may do so in sessions only, in one."""
        if self.policy(name).outside_sessions == "write":
            return True
        return self.state.sessions.open_of(name) is not None

    def _show_restores(self, name: str) -> None:
        show = self._to_show(name)
        if show or name in self._shown:
            self.ports.workers.show_restores(name, show)
            self._shown.add(name)

    def _show_again(self, name: str) -> None:
        """To a new worker. A location that does not answer hides what is read from there, and nothing else."""
        try:
            self._show_restores(name)
            self._hidden.discard(name)
        except HoldfastError as error:
            show = {job: what for job, what in self._to_show(name).items() if not what.location}
            self.ports.workers.show_restores(name, show)
            self._hidden.add(name)
            self.store.incidents.error(error, f"restores of mount {name}")

    def show_hidden(self) -> None:
        """Show again what could not be shown to a new worker because a location did not answer."""
        for name in list(self._hidden):
            self._show_again(name)

    def _to_show(self, name: str) -> dict[int, Shown]:
        return {
            one.job: Shown(one.point, one.path, one.paths, one.location)
            for one in self.state.jobs.restores(name)
            if not one.target and self._has_point(one.point)
        }

    def _has_point(self, point: str) -> bool:
        """Whoever asks the service deletes none that is shown; the index may have been made anew without it."""
        try:
            return bool(self.store.point(point))
        except NotFound:
            return False

    def delete_mount(self, name: str) -> JobInfo:
        """Delete a mount with its points and everything in it. Raises Held while a point of it is locked, Busy while a
        session is open, or a point is shown or read."""
        with self.locked(name):
            self.store.refuse_held(name)
            known = self.state.sessions.open_of(name)
            if known is not None:
                raise occupied(known)
            shown = self.state.jobs.restores(name)
            if any(not one.target for one in shown):
                raise Busy(f"mount {name!r}", expected="no restore shown in it", found=f"job {shown[0].job}",
                           do="delete its restores first")  # fmt: skip
            if self.state.wanted.get(name).deleting:
                raise self._being_deleted(name)
            self.state.wanted.delete(name)
        try:
            self.ports.workers.stop(name)
            job = self.state.jobs.create("delete-mount", {}, name)
            self.ports.jobs.start(job)
        except BaseException:
            self.state.wanted.delete(name, deleting=False)
            raise
        return self.state.jobs.get(job.id)

    def note_deleted(self, name: str) -> None:
        """The mount is gone: the file that names it does not bring it back."""
        if name in self._config().mounts:
            self.state.marks.put(DELETED + name, str(self.clock()))

    def deleted(self, named: Collection[str]) -> list[str]:
        """Those that a configuration names and that were deleted; the others that were are forgotten."""
        known = [one.removeprefix(DELETED) for one in self.state.marks.names(DELETED)]
        for name in known:
            if name not in named:
                self.state.marks.remove(DELETED + name)
        return [name for name in known if name in named]

    def _being_deleted(self, name: str) -> Busy:
        return Busy(f"mount {name!r}", expected="a mount that stays", found="one that is being deleted",
                    do="wait for its end, or choose another name")  # fmt: skip
