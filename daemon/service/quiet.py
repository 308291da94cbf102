"""Hooks of mounts: run around begin, commit and restore; what they print is kept, what fails is told or noted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from daemon.contract import HookEvent
from daemon.service import hooks
from daemon.service.mounts import Mounts
from engine.errors import Busy, HoldfastError

log = logging.getLogger("holdfast.daemon")


@dataclass
class Quiesced:
    """A mount whose writers were quiesced. ``point``: what was made of it, "" while nothing was."""

    point: str = ""


class Quiet(Mounts):
    """Running hooks."""

    def run_hook(
        self, event: HookEvent, mount: str, *, session: str = "", point: str = ""
    ) -> hooks.Ran | None:
        """Run a mount's hook and keep what it printed; None when it has none."""
        hook = self.policy(mount).hooks.get(event)
        if hook is None:
            return None
        values = {
            "MOUNT": mount, "PATH": self.mount_path(mount), "SESSION": session, "POINT": point,
        }  # fmt: skip
        return hooks.run(event, hook, values)

    def before(self, event: HookEvent, mount: str, session: str = "") -> hooks.Ran | None:
        """Run a hook that can refuse. Raises Busy with its last line when it fails."""
        ran = self.run_hook(event, mount, session=session)
        if ran is not None and ran.why:
            self.keep_output(ran, session=session)
            raise Busy(
                f"mount {mount!r}", expected=f"its hook {event} to agree", found=ran.told,
                do="see what it wants, and try again",
            )  # fmt: skip
        return ran

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
    def quiesced(self, mount: str, session: str = "") -> Iterator[Quiesced]:
        """Between before_commit, which may refuse, and after_commit, which follows whatever became of the commit."""
        ran = self.before("before_commit", mount, session)
        quiet = Quiesced()
        try:
            yield quiet
        finally:
            after = self.after("after_commit", mount, session=session, point=quiet.point)
            for one in (ran, after):
                self.keep_output(one, session=session, point=quiet.point)

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
