"""What the Phoenix-compatible API refuses, and what it says then: the numbers, and which of them comes first.

Two ranges of numbers, both beyond 2**32 (clients need 64-bit integers):

- **4295622659 … 4295622676** are the published interface's. Scripts know them; they are answered with HTTP status 200
  and only where that interface documents them. No other number of that range is ours to use.
- **4900000000 + the exit code of the error table's row** (engine/errors.py) is Holdfast's own, for all that the
  published interface has no number for: 4900000012 is "busy", 4900000016 "no room". Those have true HTTP statuses.

What is refused first is the order of ``PRECEDENCE``, whatever else is wrong as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from daemon.contract import ExportInfo, MountInfo
from engine.errors import HoldfastError

Call = Literal["status", "begin", "log", "commit", "delete"]
StoreState = Literal["active", "decommissioning", "decommissioned"]

OWN_CODES = 4_900_000_000


class Refusal(NamedTuple):
    """One of the published errors: number and message are fixed."""

    code: int
    message: str


NOT_BEGUN = Refusal(4295622659, "START_BACKUP cmd not received yet.")
NO_RESTORE = Refusal(4295622663, "Restore Path is missing on Export Service.")
MAX_PENDING = Refusal(4295622664, "Backup mount exceeded max pending snapshots.")
NO_MOUNT = Refusal(4295622665, "Backup mount does not exist on Export Service.")
DELETING = Refusal(4295622667, "Backup mount marked for delete on Export Service.")
INCONSISTENT = Refusal(4295622669, "Backup mount is inconsistent state on Export Service.")
NOT_EXPORTED = Refusal(4295622670, "Failed to export path to NFS.")
DECOMMISSIONING = Refusal(4295622675, "Store Decommission in progress.")
DECOMMISSIONED = Refusal(4295622676, "Store was decommissioned.")


@dataclass(frozen=True)
class Facts:
    """What a decision is made of. ``exports``: those that concern who asks; ``restore``: is there such a restore?"""

    mount: MountInfo | None
    store: StoreState = "active"
    exports: list[ExportInfo] = field(default_factory=list)
    limit: int = 0
    restore: bool = True

    @property
    def state(self) -> str:
        return "" if self.mount is None else self.mount.state

    @property
    def session(self) -> str:
        """Id of the session that is open or being committed; "" for none."""
        return "" if self.mount is None else self.mount.session

    @property
    def full(self) -> bool:
        """Are as many points waiting for their copy as may? A limit of 0 is none."""
        return self.mount is not None and 0 < self.limit <= self.mount.pending

    @property
    def unexported(self) -> bool:
        """Is the mount to be exported to who asks, and no such export works?"""
        return bool(self.exports) and all(e.state.startswith("failed") for e in self.exports)


class Rule(NamedTuple):
    """A refusal, the calls it is for, and when."""

    refusal: Refusal
    calls: frozenset[Call]
    when: Callable[[Facts], bool]


_ALL: frozenset[Call] = frozenset({"status", "begin", "log", "commit", "delete"})
_BEGIN: frozenset[Call] = frozenset({"begin"})

PRECEDENCE: tuple[Rule, ...] = (
    Rule(DECOMMISSIONING, _ALL, lambda f: f.store == "decommissioning"),
    Rule(DECOMMISSIONED, _ALL, lambda f: f.store == "decommissioned"),
    Rule(NO_MOUNT, _ALL, lambda f: f.mount is None),
    Rule(DELETING, _ALL, lambda f: f.state == "deleting"),
    Rule(INCONSISTENT, _ALL, lambda f: f.state == "failed"),
    Rule(NOT_EXPORTED, _BEGIN, lambda f: f.unexported),
    Rule(NOT_BEGUN, frozenset({"log", "commit"}), lambda f: not f.session),
    # Who has begun may go on: the limit was kept when the session was opened, and a script that crashed must be able
    # to come back. The data of a commit exists already, so that is never refused for the limit.
    Rule(MAX_PENDING, _BEGIN, lambda f: f.full and not f.session),
    Rule(NO_RESTORE, frozenset({"delete"}), lambda f: not f.restore),
)


def refusal(call: Call, facts: Facts) -> Refusal | None:
    """What a call is refused with, by precedence; None when it may be tried."""
    for rule in PRECEDENCE:
        if call in rule.calls and rule.when(facts):
            return rule.refusal
    return None


def own_code(error: HoldfastError) -> int:
    """The number of an error that only Holdfast has."""
    return OWN_CODES + error.kind.exit
