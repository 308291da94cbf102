"""Jobs and restores: starting them, what becomes of them, what they leave."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import replace
from typing import Any, get_args

from daemon.contract import JobInfo, JobKind, JobState, Page, RestoreSpec
from daemon.service import cursors, restoring
from daemon.service.collapse import MARK
from daemon.service.copies import ADOPTED, SETTINGS
from daemon.service.core import bounded
from daemon.service.mounts import DRILLED_SINCE, DRILLS
from daemon.service.sessions import Sessions
from daemon.service.walking import found
from daemon.state.jobs import ENDS, Restored
from engine.errors import TABLE, Busy, HoldfastError, InvalidRequest, NotFound, from_os

_NUMBER = (int, float)
_EXPECTED: dict[type, str] = {bool: "true or false", str: "text"}
OPTIONS: dict[str, dict[str, tuple[type, ...]]] = {
    "collect": {"dry_run": (bool,), "budget_s": _NUMBER},
    "scrub": {"rate": (int,), "budget_s": _NUMBER, "every_s": _NUMBER},
    "check": {"read_data": (bool,)},
    "upload": {"location": (str,)},
}
"""Kinds of jobs that ``start_job`` starts, and what each may be told."""

PLACE_MOUNT = "mount"
RESUMED_MAX = 5  # times a restore that was cut off goes on
SHOWN = "restores"  # the directory of a mount under which restores are shown


class Jobs(Sessions):
    """The part of ``Backend`` about jobs and restores."""

    def start_job(self, kind: JobKind, options: dict[str, Any]) -> JobInfo:
        """Start a collection, a scrub, a check or an upload. Raises InvalidRequest; NotFound for no location."""
        if kind not in OPTIONS:
            raise InvalidRequest(
                f"job {kind!r}", expected=" or ".join(OPTIONS), found="another kind"
            )
        for name, value in options.items():
            types = OPTIONS[kind].get(name)
            if types is None:
                raise InvalidRequest(
                    f"option {name!r} of {kind}", expected=" or ".join(OPTIONS[kind])
                )
            sound = type(value) in types and (type(value) in (bool, str) or 0 < value < 2**53)
            if not sound and value is not None:
                what = _EXPECTED.get(types[0], "a number over 0")
                raise InvalidRequest(
                    f"option {name} of {kind}", expected=what, found=repr(value)[:50]
                )
        if kind == "upload":
            self._prepare_upload(str(options.get("location", "")))
        return self._start(
            kind, {name: value for name, value in options.items() if value is not None}
        )

    def _prepare_upload(self, location: str) -> None:
        """What the configuration says of the mounts is sent along with their points."""
        self.location(location)
        for name in self._config().mounts:
            self.keep_settings(name)
            if self.state.marks.get(ADOPTED + name):
                self.state.marks.remove(ADOPTED + name)

    def keep_settings(self, name: str) -> None:
        """Write down what the configuration says of a mount, for jobs, which have none."""
        text = self.policy(name).model_dump_json(exclude_defaults=True)
        if self.state.marks.get(SETTINGS + name) != text:
            self.state.marks.put(SETTINGS + name, text)

    def _start(
        self, kind: JobKind, options: dict[str, Any], mount: str = "", once: str = ""
    ) -> JobInfo:
        job = self.state.jobs.create(kind, options, mount, once=once)
        try:
            self.ports.jobs.start(job)
        except HoldfastError as error:
            self.job_ended(job.id, "failed", error=told(error))
            raise
        return self.state.jobs.get(job.id)

    def jobs(
        self, *, kind: str = "", state: str = "", cursor: str = "", limit: int = 100
    ) -> Page[JobInfo]:
        """Jobs, the newest first."""
        for what, value, allowed in (("kind", kind, JobKind), ("state", state, JobState)):
            if value and value not in get_args(allowed):
                raise InvalidRequest(f"{what} {value!r}", expected=" or ".join(get_args(allowed)))
        before = cursors.decode("jobs", cursor, int)
        page = self.state.jobs.page(
            kind=kind, state=state, before=before[0] if before else 0, limit=bounded(limit) + 1
        )
        if len(page) <= limit:
            return Page(page)
        return Page(page[:limit], cursors.encode("jobs", page[limit - 1].id))

    def job(self, job_id: int) -> JobInfo:
        """One job. Raises NotFound."""
        return self.state.jobs.get(job_id)

    def cancel_job(self, job_id: int) -> JobInfo:
        """Have a job end soon; one that has ended stays as it is. Raises NotFound."""
        job = self.state.jobs.get(job_id)
        if job.kind == "delete-mount" and job.state == "running":
            raise Busy(f"job {job_id}", expected="a job that can be cancelled", found="a deletion that has begun",
                       do="let it end")  # fmt: skip
        if job.state not in ENDS:
            self.ports.jobs.cancel(job_id)
        return self.state.jobs.get(job_id)

    # --- what runs jobs tells ---------------------------------------------------------------------------------

    def job_started(self, job_id: int) -> JobInfo:
        """A job runs from now on."""
        return self.state.jobs.started(job_id)

    def job_progress(self, job_id: int, progress: dict[str, Any]) -> None:
        """How far it is."""
        self.state.jobs.progress(job_id, progress)

    def job_again(self, job_id: int, *, counted: bool) -> JobInfo:
        """A job that was cut off is queued again, to go on where it was. ``counted``: nobody wanted that."""
        return self.state.jobs.again(job_id, counted=counted)

    def job_ended(
        self, job_id: int, state: JobState, *, result: dict[str, Any] | None = None,
        error: dict[str, str] | None = None,
    ) -> JobInfo:  # fmt: skip
        """A job has ended: its row, and what follows from it."""
        job = self.state.jobs.get(job_id)
        if job.kind == "delete-mount":
            if state == "done":
                self._mount_gone(job.mount)
            else:
                self.state.wanted.delete(job.mount, deleting=self._half_gone(job.mount))
        filled = job.kind == "restore" and state == "done" and bool(job.options["target"])
        there = _what_is_there(job) if filled else None  # of one that is shown it is known already
        ended = self.state.jobs.ended(job_id, state, result=result, error=error, restored=there)
        if (
            state == "failed"
            and job.kind != "drill"
            and not (job.kind == "upload" and _passes(error or {}))
        ):
            text = (error or {}).get("message", "")
            thing = f"{job.kind} {job.mount}".strip()
            self.store.incidents.note("job_failed", thing, f"job {job.id}: {text}")
        if job.kind == "restore" and state == "done":
            ran = self.after("after_restore", job.mount, point=job.options["point"])
            self.keep_output(ran, point=job.options["point"])
        return ended

    def _mount_gone(self, mount: str) -> None:
        for one in self.state.jobs.restores(mount):
            self.state.jobs.unrestored(one.job)
        self.note_deleted(mount)
        self.state.wanted.forget(mount)
        for mark in (MARK, DRILLS, DRILLED_SINCE):
            self.state.marks.remove(mark + mount)
        self.forget_hooks(mount)
        self._shown.discard(mount)

    def _half_gone(self, mount: str) -> bool:
        """Whether a deletion that failed has gone so far that the mount must not be used again."""
        try:
            self.store.mount(mount)
        except NotFound:
            return True
        return False

    def recover_jobs(self) -> None:
        """After a crash nothing runs: what was queued, deletions, and restores into targets are started again; the
        others have failed."""
        there = {one.job for one in self.state.jobs.restores()}
        for job in self.state.jobs.unended():
            if job.id in there:  # shown in its mount, and only its end was not written down
                self.job_ended(job.id, "done", result={"path": self._shown_at(job)})
                continue
            if job.state == "queued" and job.options.get("place") != PLACE_MOUNT:
                self.ports.jobs.start(job)
                continue
            if may_go_on(job):
                self.ports.jobs.start(self.state.jobs.again(job.id, counted=True))
                continue
            cut_off = HoldfastError(f"job {job.id}", expected="its end", found="the daemon's")
            if job.kind == "delete-mount":  # whatever is left of the mount goes with the next one
                self.state.jobs.ended(job.id, "failed", error=told(cut_off))
            else:
                self.job_ended(job.id, "failed", error=told(cut_off))
        waiting = {job.mount for job in self.state.jobs.unended() if job.kind == "delete-mount"}
        for mount in self.state.wanted.deleting() - waiting:
            self._start("delete-mount", {}, mount)

    # --- restores -------------------------------------------------------------------------------------------

    def restore(self, spec: RestoreSpec, *, once: str = "") -> JobInfo:
        """Show a point, or a part of it, in its mount, or fill a directory below a configured target with it."""
        restoring.check(spec)
        point = self.store.point(spec.point)
        target = ""
        if spec.place != PLACE_MOUNT:
            target = self._config().restore_targets.get(spec.place, "")
            if not target:
                known = ", ".join(sorted(self._config().restore_targets)) or "none"
                raise InvalidRequest(
                    f"place {spec.place!r}", expected=f"'{PLACE_MOUNT}' or a target of the configuration ({known})",
                    do="name the target in the configuration",
                )  # fmt: skip
        view = restoring.view_of(self.store, point.id, spec.location)
        entry = found(view, spec.path)
        options = restoring.options_of(spec, point.id, target)
        before = self._asked_before(once, options)
        if before is not None:
            return before
        paths = restoring.paths_of(view, self.state, options)
        if spec.place != PLACE_MOUNT:
            return self._start("restore", options, point.mount, once)
        if not stat.S_ISDIR(entry.mode):
            raise InvalidRequest(
                f"path {spec.path!r}", expected="a directory, to be shown", found="another thing",
                do="show the directory it is in, or restore it to a target",
            )  # fmt: skip
        if sum(map(len, paths)) > restoring.SHOWN_MAX:
            raise InvalidRequest(
                "paths to be shown", expected=f"at most {restoring.SHOWN_MAX} bytes", found="more",
                do="show the directories they are in, or restore them to a target",
            )  # fmt: skip
        return self._shown_restore(point.mount, options, paths, once)

    def _asked_before(self, once: str, options: dict[str, Any]) -> JobInfo | None:
        """The restore that was begun for this wish; one that came to nothing is begun anew."""
        known = self.state.once.get(once, ["restore", options]) if once else None
        try:
            found = self.state.jobs.get(known["job"]) if known is not None else None
        except NotFound:  # so many came since that its row was forgotten
            return None
        return None if found is None or found.state in ("failed", "cancelled") else found

    def _shown_restore(
        self, mount: str, options: dict[str, Any], paths: list[str], once: str
    ) -> JobInfo:
        """Nothing is copied: it is done when it was asked for."""
        job = self.state.jobs.create("restore", options, mount, once=once)
        try:
            self.state.jobs.restored(replace(_what_is_there(job), paths=tuple(paths)))
            self._show_restores(mount)
        except HoldfastError as error:
            self.state.jobs.unrestored(job.id)
            self.job_ended(job.id, "failed", error=told(error))
            raise
        return self.job_ended(job.id, "done", result={"path": self._shown_at(job)})

    def _shown_at(self, job: JobInfo) -> str:
        return os.path.join(self.mount_path(job.mount), SHOWN, str(job.id))

    def delete_restore(self, mount: str, job_id: int) -> None:
        """Take away what a restore has left. Raises NotFound, Busy while it runs or is in use."""
        self.store.mount(mount)
        there = next((one for one in self.state.jobs.restores(mount) if one.job == job_id), None)
        if there is None:
            known = self.state.jobs.get(job_id) if job_id > 0 else None
            if (
                known
                and known.kind == "restore"
                and known.mount == mount
                and known.state not in ENDS
            ):
                raise Busy(f"restore {job_id}", expected="its end", found=f"it is {known.state}",
                           do="wait, or cancel it")  # fmt: skip
            if known and _left_something(known, mount):
                _remove_tree(os.path.join(known.options["target"], str(job_id)))
                return
            raise NotFound(
                f"restore {job_id} of mount {mount!r}", expected="one that is there", found="none"
            )
        if there.target:
            _remove_tree(os.path.join(there.target, str(there.job)))
        self.state.jobs.unrestored(job_id)
        if not there.target:
            self._show_restores(mount)


def may_go_on(job: JobInfo) -> bool:
    """Whether a job that was cut off goes on where it was: what a restore has written is verified, not written again.
    One that is cut off again and again may be why."""
    return (
        job.kind == "restore" and bool(job.options.get("target"))
        and int(job.options.get("resumed", 0)) < RESUMED_MAX
    )  # fmt: skip


def _passes(error: dict[str, str]) -> bool:
    """Whether what failed is tried again by itself: a server that does not answer, a daemon that stops."""
    return any(one.kind.slug == error.get("kind") and one.kind.retryable for one in TABLE)


def _what_is_there(job: JobInfo) -> Restored:
    """What a restore leaves when it is done."""
    options = job.options
    return Restored(
        job.id, job.mount, options["point"], options["path"], options["target"],
        location=str(options.get("from", "")),
    )  # fmt: skip


def _left_something(job: JobInfo, mount: str) -> bool:
    """Whether a restore into a target that came to nothing left a directory."""
    return (
        job.kind == "restore" and job.mount == mount and job.state in ("failed", "cancelled")
        and bool(job.options.get("target"))
        and os.path.lexists(os.path.join(job.options["target"], str(job.id)))
    )  # fmt: skip


def _remove_tree(path: str) -> None:
    try:
        shutil.rmtree(path)  # by descriptors: no link in it leads out
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_os(error, f"restore at {path}") from None


def told(error: HoldfastError) -> dict[str, str]:
    """An error as a job's row has it."""
    return {"kind": error.kind.slug, "message": str(error)}
