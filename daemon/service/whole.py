"""The store as a whole: exports, statistics, incidents, configuration, tokens, the audit log."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import asdict, replace
from typing import Any, get_args

import fsmount
from daemon.contract import AuditLine, ExportInfo, Role, TokenInfo
from daemon.service import returning
from daemon.service.core import bounded
from daemon.service.drills import Drills
from daemon.service.watching import CLOCK
from engine import Store
from engine.errors import Busy, InvalidRequest, NotFound
from engine.registry import valid_name

log = logging.getLogger("holdfast.daemon")

_SQUASH = ("root", "all", "none")


class Whole(Drills):
    """The rest of ``Backend``, and what a daemon does by itself."""

    # --- exports --------------------------------------------------------------------------------------------

    def exports(self, mount: str = "") -> list[ExportInfo]:
        """Exports of one mount or of all, with their state. Raises NotFound."""
        names = (
            [self.store.mount(mount).name] if mount else [one.name for one in self.store.mounts()]
        )
        return [
            replace(one, state=self.ports.exports.state(one.mount, one.client))
            for name in names
            for one in self.wanted_exports(name)
        ]

    def export(self, wanted: ExportInfo) -> ExportInfo:
        """Serve a mount over NFS, or otherwise than before. Where that fails nothing has changed."""
        self.store.mount(wanted.mount)
        self.refuse_deleting(wanted.mount)
        if wanted.squash not in _SQUASH:
            raise InvalidRequest(f"squash {wanted.squash!r}", expected=" or ".join(_SQUASH))
        wanted = replace(wanted, client=network(wanted.client), state="")
        before = [one for one in self.state.exports.of(wanted.mount) if one.client == wanted.client]
        self.state.exports.put(wanted)
        try:
            self.ports.exports.apply()
        except BaseException:
            self.state.exports.remove(wanted.mount, wanted.client)
            for one in before:
                self.state.exports.put(one)
            raise
        return replace(wanted, state=self.ports.exports.state(wanted.mount, wanted.client))

    def unexport(self, mount: str, client: str) -> None:
        """Serve a mount to these clients no longer. Raises NotFound; InvalidRequest for one of the configuration."""
        self.store.mount(mount)
        client = network(client)
        try:
            self.state.exports.remove(mount, client)
        except NotFound:
            if any(one.client == client for one in self.wanted_exports(mount)):
                raise InvalidRequest(
                    f"export of {mount!r} to {client}", expected="one that was asked for",
                    found="one of the configuration", do="change the file and reload it",
                ) from None  # fmt: skip
            raise
        self.ports.exports.apply()

    # --- the store ------------------------------------------------------------------------------------------

    def stats(self, mount: str = "") -> dict[str, int | float]:
        """Sizes and counts of the store or of one mount. Raises NotFound."""
        return self.store.stats(mount or None)

    def history(self, since_ns: int = 0, limit: int = 1000) -> list[dict[str, int | float]]:
        """The store's statistics over time, the oldest first."""
        return self.state.history.since(min(max(since_ns, 0), 2**63 - 1), bounded(limit))

    def note_history(self) -> None:
        """Keep the store's statistics as they are, with the bytes of each mount; once an hour is enough."""
        numbers = self.stats()
        for name in (one.name for one in self.store.mounts()):
            points = self.store.points(name)
            numbers[f"points of {name}"] = len(points)
            numbers[f"logical_bytes of {name}"] = sum(point.logical_bytes for point in points)
        self.state.history.add(self.clock(), numbers)

    def incidents(self) -> list[dict[str, Any]]:
        """What went wrong and wants attention, the last first; the index is not needed."""
        found, silent = fsmount.incidents(self.path)
        now = self.clock()
        told = [
            {"kind": "stalled", "thing": f"mount {name}", "text": "its worker does not answer", "count": 1,
             "first": now, "last": now}
            for name in silent
        ]  # fmt: skip
        return told + [asdict(one) for one in found]

    def reset_incidents(self) -> None:
        """Forget the incidents: they have been dealt with, and the clock is right."""
        Store.reset_incidents(self.path)
        self.state.marks.forget(CLOCK)

    def config(self) -> dict[str, Any]:
        """The configuration that holds; there is no secret in it."""
        return self._config().model_dump(mode="json")

    def reload_config(self) -> list[str]:
        """Read the configuration file again. Raises InvalidRequest, and then nothing has changed."""
        return self.ports.config.reload()

    # --- tokens ---------------------------------------------------------------------------------------------

    def tokens(self) -> list[TokenInfo]:
        """All tokens, without their secrets."""
        return self.state.tokens.every()

    def create_token(
        self, role: Role, mounts: list[str], *, label: str = "", lifetime_s: float = 0
    ) -> tuple[TokenInfo, str]:
        """A new token, and its text, which is told this once. Raises InvalidRequest."""
        if role not in get_args(Role):
            raise InvalidRequest(f"role {role!r}", expected=" or ".join(get_args(Role)))
        names = [valid_name(one) for one in mounts]
        return self.state.tokens.create(role, names, label=label, lifetime_s=lifetime_s)

    def revoke_token(self, token_id: str) -> TokenInfo:
        """From now on it is refused. Raises NotFound."""
        return self.state.tokens.revoke(token_id)

    def audit(self, *, after: int = 0, limit: int = 1000) -> list[AuditLine]:
        """Lines of the audit log with a number above ``after``."""
        return self.audit_log.lines(max(after, 0), bounded(limit))

    # --- what a daemon does by itself -----------------------------------------------------------------------

    def recover(self) -> None:
        """Put state in order after a crash; by who holds the store's daemon lock, before anything else is asked."""
        self.state.database.verify()
        self.state.keys.forget_running()
        self.state.attachments.sweep()
        self.recover_sessions()
        self.recover_jobs()

    def prune(self) -> dict[str, int]:
        """Forget what is old of ended sessions, jobs and keys; how many of each."""
        return self.state.pruning.prune({point.id for point in self.store.points()})

    def give_back(self) -> None:
        """Have come back what was kept with points of a store that was adopted; where it cannot be had, later."""
        try:
            found = returning.give_back(self.store, self.state)
        except Busy:
            return  # somebody else does it
        if found.points:
            log.info("what was kept with %d points is back from a storage location", found.points)
        if found.waiting:
            log.warning("what was kept with %d points is not back yet: %s", found.waiting, found.why)  # fmt: skip


def network(client: str) -> str:
    """A network as it is kept. Raises InvalidRequest."""
    try:
        return str(ipaddress.ip_network(client, strict=False))
    except ValueError:
        raise InvalidRequest(
            f"client {client[:60]!r}", expected="an address or a network, as 10.0.0.0/8", found="neither"
        ) from None  # fmt: skip
