"""Sessions: write windows of mounts, from begin to commit or abandon. What a crash leaves: daemon/ARCHITECTURE.md."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import get_args

from daemon.contract import (
    MANIFEST_INLINE,
    Attachment,
    Committed,
    Durability,
    SessionInfo,
    SessionState,
)
from daemon.service.browse import Browse
from daemon.service.logs import Log, plain_name
from daemon.state import Plan
from daemon.state.sessions import occupied
from engine import PlannedPoint
from engine.errors import Busy, HoldfastError, InvalidRequest, NotFound
from engine.limits import LABEL_MAX

log = logging.getLogger("holdfast.daemon")

HOLDER_MAX = 200  # characters
LEASE_MAX = 366 * 86400.0  # s
_SECOND = 10**9


class Sessions(Browse):
    """The part of ``Backend`` about sessions."""

    def begin(
        self, mount: str, *, holder: str = "", label: str = "", lease_s: float = 0
    ) -> SessionInfo:
        """Begin a session. Raises NotFound, Busy while another is open or a hook refuses, InvalidRequest."""
        lease = self._lease(lease_s)
        _check_text("holder", holder, HOLDER_MAX)
        _check_text("label", label, LABEL_MAX)
        with self.locked(mount):
            self.store.mount(mount)
            self.refuse_deleting(mount)
            self._settle(mount)
            now = self.clock()
            session = SessionInfo(
                secrets.token_hex(10), mount, "open", now, now + lease, holder=holder, label=label
            )
            self._refuse_open(mount)
            with self.between("begin", mount, session.id) as begun:
                self.state.sessions.begin(session)
                try:
                    self.ports.workers.fence(mount, writable=True)
                except BaseException:
                    self.state.sessions.abandon(session.id)
                    raise
                begun.done = session.id
        return session

    def _refuse_open(self, mount: str) -> None:
        """Before any hook runs."""
        known = self.state.sessions.open_of(mount)
        if known is not None:
            raise occupied(known)

    def _lease(self, lease_s: float) -> int:
        if not 0 <= lease_s <= LEASE_MAX:
            raise InvalidRequest(
                f"lease {lease_s}", expected=f"0 for the usual, to {LEASE_MAX:.0f} seconds"
            )
        return int((lease_s or self._config().sessions.lease_s) * _SECOND)

    def session(self, session_id: str) -> SessionInfo:
        """One session. Raises NotFound."""
        return self.state.sessions.get(session_id)

    def sessions(self, mount: str = "", state: str = "") -> list[SessionInfo]:
        """Sessions, the newest first. Raises NotFound for a mount that does not exist."""
        if mount:
            self.store.mount(mount)
        if state and state not in get_args(SessionState):
            raise InvalidRequest(f"state {state!r}", expected=" or ".join(get_args(SessionState)))
        return self.state.sessions.of(mount, state)

    def renew(self, session_id: str, lease_s: float = 0) -> SessionInfo:
        """Let the lease begin anew. Raises NotFound, InvalidRequest for a session that has ended."""
        return self.state.sessions.renew(session_id, self.clock() + self._lease(lease_s))

    def attach_log(self, session_id: str, name: str, content: Iterable[bytes]) -> Attachment:
        """Keep a log with a session that is open. Raises NotFound, InvalidRequest when it has ended or over the
        limit."""
        session = self.state.sessions.get(session_id)
        if session.state not in ("open", "committing"):
            raise InvalidRequest(
                f"session {session_id}", expected="one that is open", found=f"it {session.state}"
            )
        reader = Log()
        return self.state.attachments.add(
            "log", plain_name(name), session_id, reader.through(content),
            most=self._config().api.max_upload, files=reader.files,
        )  # fmt: skip

    # --- ending ---------------------------------------------------------------------------------------------

    def commit(
        self, session_id: str, *, label: str = "", durability: Durability = "local"
    ) -> Committed:
        """Make the recovery point of a session. Asked again, it says the same.

        Raises NotFound, InvalidRequest when it was abandoned, Busy when a hook or the policy for open files refuses,
        and what a snapshot raises; the session is open then. Where its copies are waited for, see ``point_made``: the
        session is committed then, and whoever asks again waits again.
        """
        planned = self.store.plan_point()  # before any wait: its time is that of the request
        mount = self.state.sessions.get(session_id).mount
        self.check_durability(mount, durability)
        with self.locked(mount):
            self._settle(mount)
            session = self.state.sessions.get(session_id)
            if session.state == "abandoned":
                raise InvalidRequest(
                    f"session {session_id}", expected="one that is open", found="that it was abandoned",
                    do="begin another",
                )  # fmt: skip
            if session.state == "open":
                session = self._commit(session, label or session.label, planned)
        self.point_made(session.point, durability)
        return self._committed(session)

    def _commit(self, session: SessionInfo, label: str, planned: PlannedPoint) -> SessionInfo:
        quiet = self.between("commit", session.mount, session.id, planned.id)
        with quiet as quiesced, self._fenced(session.mount):
            with self.writing() as store, self.still(session.mount) as still:
                note = self.note_of(session.mount, planned, still, session.id)
                self.state.sessions.commit(session.id, Plan(planned, note))
                try:
                    store.snapshot(
                        session.mount, label, planned=planned, thaw=still.thaw,
                        lock_s=self.policy(session.mount).lock_for,
                    )  # fmt: skip
                except BaseException:
                    quiesced.done = self._ended(session.id).point
                    raise
            done = self.state.sessions.committed(session.id)
            quiesced.done = done.point
        return done

    def _ended(self, session_id: str) -> SessionInfo:
        """What became of a commit that did not come to its end: the point is there, or it is not."""
        plan = self.state.sessions.plan(session_id)
        try:
            self.store.point(plan.point.id)
        except NotFound:
            return self.state.sessions.reopen(session_id)
        return self.state.sessions.committed(session_id)

    @contextmanager
    def _fenced(self, mount: str) -> Iterator[None]:
        """Where programs may write in sessions only: from here on they may not, unless the session stays open."""
        if self.policy(mount).outside_sessions == "write":
            yield
            return
        self.ports.workers.fence(mount, writable=False)
        try:
            yield
        finally:
            writable = self.may_write(mount)
            try:
                self.ports.workers.fence(
                    mount, writable=writable
                )  # also if it was told otherwise meanwhile
            except HoldfastError as error:
                if writable:
                    raise
                log.warning("mount %s: its fence: %s", mount, error)  # the commit has been made

    def _committed(self, session: SessionInfo) -> Committed:
        detail = self.point(session.point)
        page = self.manifest(session.point, limit=MANIFEST_INLINE)
        return Committed(session, detail, page.items, bool(page.cursor))

    def abandon(self, session_id: str) -> SessionInfo:
        """End a session without a point; what was written stays in the mount. Asked again, it says the same.

        Raises NotFound, InvalidRequest when it was committed.
        """
        mount = self.state.sessions.get(session_id).mount
        with self.locked(mount):
            self._settle(mount)
            session = self.state.sessions.get(session_id)
            if session.state == "abandoned":
                return session
            session = self.state.sessions.abandon(session_id)
            if not self.may_write(mount):
                self.ports.workers.fence(mount, writable=False)
        return session

    # --- after a crash --------------------------------------------------------------------------------------

    def _settle(self, mount: str) -> None:
        """With the mount's lock, so whoever was committing has died: see what became of it, and have what its hook
        quiesced go on."""
        left = self.state.sessions.open_of(mount)
        if left is not None and left.state == "committing":
            found = self._ended(left.id)
            log.info("session %s of mount %s is %s after a crash", found.id, mount, found.state)
        self.resume(mount)

    def recover_sessions(self) -> None:
        """Put every session in order after a crash, and run the hooks that should have followed."""
        committing = {one.mount for one in self.state.sessions.of(state="committing")}
        for mount in sorted(committing | self.hooked()):
            try:
                with self.locked(mount, wait_s=0):
                    self._settle(mount)
            except Busy:
                log.info("mount %s: its session is somebody's who is at work on it", mount)

    def stale(self, now: int) -> list[SessionInfo]:
        """Sessions whose lease has ended by then; each is an incident, once for each end."""
        found = [
            one
            for state in ("open", "committing")
            for one in self.state.sessions.of(state=state)
            if one.expires_ns <= now
        ]
        for one in found:
            if self._told_stale.get(one.id) != one.expires_ns:
                self._told_stale[one.id] = one.expires_ns
                whose = f" of {one.holder}" if one.holder else ""
                self.store.incidents.note(
                    "session_stale", f"mount {one.mount}",
                    f"the lease of session {one.id}{whose} has ended and it is still open: renew, commit or abandon it",
                )  # fmt: skip
        self._told_stale = {one.id: one.expires_ns for one in found}
        return found


def _check_text(what: str, text: str, most: int) -> None:
    if len(text.encode("utf-8", "replace")) > most or not text.isprintable():
        raise InvalidRequest(what, expected=f"at most {most} bytes of printable characters")
