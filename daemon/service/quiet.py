"""Hooks of mounts: run around begin, commit and restore; what they print is kept, what fails is told or noted."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from daemon.contract import HookEvent
from daemon.service import hooks
from daemon.service.mounts import Mounts
from engine.errors import Busy, HoldfastError, NotFound

log = logging.getLogger("holdfast.daemon")


What = Literal["begin", "commit"]
PAIRS: dict[What, tuple[HookEvent, HookEvent]] = {
    "begin": ("before_begin", "after_begin"),
    "commit": ("before_commit", "after_commit"),
}
_MARK = "hooks "  # of a mark, before what was done and the mount's name: its hooks are at work


@dataclass
class Between:
    """What is done between two hooks. ``done``: the session that was begun, or the point that was made; "" while
    there is none."""

    done: str = ""


@dataclass(frozen=True)
class _Left:
    """What a mark says of the hooks at work: enough to run the second after a crash. ``token``: in the environment of
    the first while it runs, "" when it has ended."""

    session: str
    point: str
    token: str


class Quiet(Mounts):
    """Running hooks."""

    def run_hook(
        self, event: HookEvent, mount: str, *, session: str = "", point: str = "", token: str = ""
    ) -> hooks.Ran | None:
        """Run a mount's hook; None when it has none."""
        hook = self.policy(mount).hooks.get(event)
        if hook is None:
            return None
        values = {
            "MOUNT": mount, "PATH": self.mount_path(mount), "SESSION": session, "POINT": point,
        }  # fmt: skip
        if token:
            values[hooks.TOKEN] = token
        return hooks.run(event, hook, values)

    def after(
        self, event: HookEvent, mount: str, *, session: str = "", point: str = ""
    ) -> hooks.Ran | None:
        """Run a hook that changes nothing any more: when it fails that is an incident."""
        ran = self.run_hook(event, mount, session=session, point=point)
        if ran is not None and ran.why:
            text = f"the hook {event} {ran.told}"
            log.warning("mount %s: %s", mount, text)
            self.store.incidents.note("hook_failed", f"mount {mount}", text)
        return ran

    @contextmanager
    def between(
        self, what: What, mount: str, session: str = "", point: str = ""
    ) -> Iterator[Between]:
        """Between the hook before, which may refuse (Busy), and the one after, which follows whatever became of it.

        With the mount's lock. A mark says that they are at work, so that after a crash the one after is run too.
        ``session``, ``point``: of the begin or the commit, as planned.
        """
        self.resume(mount)
        if not any(event in self.policy(mount).hooks for event in PAIRS[what]):
            yield Between()
            return
        left = _Left(session, point, secrets.token_hex(10))
        mark = _MARK + f"{what} {mount}"
        self.state.marks.put(mark, json.dumps(asdict(left)))
        found = Between()
        ran = None
        try:
            ran = self._first(what, mount, left)
            self.state.marks.put(mark, json.dumps({**asdict(left), "token": ""}))
            yield found
        except _Refused as refusal:
            self._forget(mark)
            raise refusal.error from None
        except BaseException:
            self._second(what, mount, session, found.done, ran)
            raise
        self._second(what, mount, session, found.done, ran)

    def _first(self, what: What, mount: str, left: _Left) -> hooks.Ran | None:
        """Raises _Refused when it fails, with its last line."""
        event = PAIRS[what][0]
        ran = self.run_hook(event, mount, session=left.session, token=left.token)
        if ran is not None and ran.why:
            if what == "commit":  # there is no session yet that is to begin
                self.keep_output(ran, session=left.session)
            raise _Refused(
                Busy(
                    f"mount {mount!r}", expected=f"its hook {event} to agree", found=ran.told,
                    do="see what it wants, and try again",
                )
            )  # fmt: skip
        return ran

    def _second(
        self, what: What, mount: str, session: str, done: str, first: hooks.Ran | None
    ) -> None:
        """What was quiesced goes on. Where nothing was begun it is told of no session, and only if something was
        quiesced for it."""
        point = done if what == "commit" else ""
        session = session if what == "commit" else done
        ran = None
        if session or what == "commit" or PAIRS[what][0] in self.policy(mount).hooks:
            ran = self.after(PAIRS[what][1], mount, session=session, point=point)
        self._forget(_MARK + f"{what} {mount}")
        for one in (first, ran):
            self.keep_output(one, session=session, point=point)

    def resume(self, mount: str) -> None:
        """With the mount's lock, so whoever had hooks at work has died: the one after is run, once."""
        for what in PAIRS:
            mark = _MARK + f"{what} {mount}"
            text = self.state.marks.get(mark)
            if not text:
                continue
            left = _Left(**json.loads(text))
            hooks.end_left(left.token)
            done = self._came_of(what, left)
            log.info("mount %s: hook %s is run after a crash", mount, PAIRS[what][1])
            self._second(what, mount, left.session, done, None)

    def forget_hooks(self, mount: str) -> None:
        """The mount is gone, and who was quiesced for it."""
        for what in PAIRS:
            self.state.marks.remove(_MARK + f"{what} {mount}")

    def hooked(self) -> set[str]:
        """Mounts whose hooks are at work, or were when their process died."""
        return {name.split(" ", 2)[2] for name in self.state.marks.names(_MARK)}

    def _came_of(self, what: What, left: _Left) -> str:
        try:
            if what == "commit":
                return self.store.point(left.point).id
            begun = self.state.sessions.get(left.session)
            return "" if begun.state == "abandoned" else begun.id
        except NotFound:
            return ""

    def _forget(self, mark: str) -> None:
        """Where that fails the hook is run once more, after the next crash or by the next request."""
        try:
            self.state.marks.remove(mark)
        except HoldfastError as error:
            log.warning("%s: %s", mark, error)

    def keep_output(self, ran: hooks.Ran | None, *, session: str = "", point: str = "") -> None:
        """Keep what a hook printed with a session and a point; where that fails, the point is there all the same."""
        if ran is None or not ran.output or not (session or point):
            return
        try:
            self.state.attachments.add(
                "hook", ran.event, session, [ran.output], most=hooks.OUTPUT_MAX, point=point
            )
        except HoldfastError as error:
            log.warning("output of hook %s is lost: %s", ran.event, error)


class _Refused(Exception):
    """A hook before refused: nothing was quiesced, or it has seen to that itself."""

    def __init__(self, error: Busy) -> None:
        self.error = error
