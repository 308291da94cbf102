"""Who asks, and may they. Every decision is made from ``ROWS``: one row for each route; a test holds them together.

A caller is a token (``Authorization: Bearer``) or, at the unix socket, the user of the process at its other end:
root and the service's own user are administrators there, nobody else is anything.  A token may be for some mounts
only; what concerns others, or the store as a whole, is then not for it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from daemon.contract import Role, SessionInfo, TokenInfo
from daemon.http import Peer
from daemon.http.problem import Refused
from engine.errors import Busy, HoldfastError, PermissionDenied

log = logging.getLogger("holdfast.http")

_MINUTE = 60 * 10**9
_ADDRESSES = 4096  # whose failures are remembered; those of the least recent failure are forgotten

About = Literal["anyone", "mounts", "store"]
"""What a route concerns: nothing that is anybody's; mounts, checked or filtered one by one; the store as a whole."""


class Row(NamedTuple):
    """A route: who may, what it concerns, whether it is an act that the audit log keeps."""

    method: str
    path: str
    roles: frozenset[Role]
    about: About = "mounts"
    act: str = ""


_A: Role = "admin"
_O: Role = "operator"
_W: Role = "writer"
_R: Role = "restorer"
_V: Role = "auditor"

ALL = frozenset({_A, _O, _W, _R, _V})
NOBODY: frozenset[Role] = frozenset()  # needs no caller
_RUN = frozenset({_A, _O})
_ADMIN = frozenset({_A})
_WRITE = frozenset({_A, _O, _W})
_SEE = frozenset({_A, _O, _V})
_BROWSE = frozenset({_A, _O, _R, _V})
_CONTENT = frozenset({_A, _O, _R})

ROWS: tuple[Row, ...] = (
    Row("GET", "/v1/health", NOBODY, "anyone"),
    Row("GET", "/v1/openapi.json", ALL, "anyone"),
    Row("GET", "/v1/status", ALL, "anyone"),
    Row("GET", "/metrics", _SEE, "store"),
    Row("GET", "/v1/mounts", ALL),
    Row("POST", "/v1/mounts", _RUN, act="create mount"),
    Row("GET", "/v1/mounts/{name}", ALL),
    Row("DELETE", "/v1/mounts/{name}", _ADMIN, act="delete mount"),
    Row("POST", "/v1/mounts/{name}/start", _RUN, act="start mount"),
    Row("POST", "/v1/mounts/{name}/stop", _RUN, act="stop mount"),
    Row("POST", "/v1/mounts/{name}/snapshots", _RUN, act="take snapshot"),
    Row("GET", "/v1/mounts/{name}/sessions", _WRITE | {_V}),
    Row("POST", "/v1/mounts/{name}/sessions", _WRITE, act="begin session"),
    Row("GET", "/v1/sessions", _WRITE | {_V}),
    Row("GET", "/v1/sessions/{id}", _WRITE | {_V}),
    Row("POST", "/v1/sessions/{id}/renew", _WRITE, act="renew session"),
    Row("POST", "/v1/sessions/{id}/commit", _WRITE, act="commit session"),
    Row("POST", "/v1/sessions/{id}/abandon", _WRITE, act="abandon session"),
    Row("POST", "/v1/sessions/{id}/logs", _WRITE, act="attach log"),
    Row("GET", "/v1/attachments/{id}", _CONTENT | {_W}),
    Row("GET", "/v1/points", _BROWSE),
    Row("POST", "/v1/points/forecast", _SEE),
    Row("POST", "/v1/points/delete", _RUN, act="delete points"),
    Row("GET", "/v1/points/{ref}", _BROWSE),
    Row("POST", "/v1/points/{ref}/keep", _RUN, act="keep point"),
    Row("POST", "/v1/points/{ref}/lock", _RUN, act="lock point"),
    Row("GET", "/v1/points/{ref}/entries", _BROWSE),
    Row("GET", "/v1/points/{ref}/manifest", _BROWSE),
    Row("GET", "/v1/points/{ref}/databases", _BROWSE),
    Row("GET", "/v1/points/{ref}/databases/{name}/files", _BROWSE),
    Row("GET", "/v1/points/{ref}/file", _CONTENT),
    Row("GET", "/v1/points/{ref}/tar", _CONTENT),
    Row("GET", "/v1/diff", _BROWSE),
    Row("GET", "/v1/restores", _BROWSE),
    Row("POST", "/v1/restores", _CONTENT, act="restore"),
    Row("GET", "/v1/restores/{id}", _BROWSE),
    Row("DELETE", "/v1/restores/{id}", _CONTENT, act="delete restore"),
    Row("GET", "/v1/jobs", _BROWSE),
    Row("POST", "/v1/jobs", _RUN, "store", act="start job"),
    Row("GET", "/v1/jobs/{id}", _BROWSE),
    Row("GET", "/v1/jobs/{id}/events", _BROWSE),
    Row("DELETE", "/v1/jobs/{id}", _CONTENT, act="cancel job"),
    Row("GET", "/v1/locations", _SEE, "store"),
    Row("POST", "/v1/locations", _ADMIN, "store", act="add location"),
    Row("PATCH", "/v1/locations/{name}", _ADMIN, "store", act="change location"),
    Row("DELETE", "/v1/locations/{name}", _ADMIN, "store", act="remove location"),
    Row("GET", "/v1/locations/{name}/keys", _SEE, "store"),
    Row("POST", "/v1/locations/{name}/keys", _ADMIN, "store", act="change keys"),
    Row("POST", "/v1/locations/{name}/keys/rotate", _ADMIN, "store", act="rotate keys"),
    Row("GET", "/v1/uploads", _SEE),
    Row("POST", "/v1/uploads/retry", _RUN, "store", act="retry uploads"),
    Row("GET", "/v1/retention", _SEE),
    Row("POST", "/v1/mounts/{name}/retention/release", _ADMIN, act="release retention"),
    Row("GET", "/v1/drills", _BROWSE),
    Row("POST", "/v1/drills", _RUN, act="start drill"),
    Row("GET", "/v1/exports", _SEE),
    Row("POST", "/v1/exports", _RUN, act="export mount"),
    Row("DELETE", "/v1/exports", _RUN, act="end export"),
    Row("GET", "/v1/stats", _SEE),
    Row("GET", "/v1/history", _SEE, "store"),
    Row("GET", "/v1/incidents", _SEE, "store"),
    Row("DELETE", "/v1/incidents", _RUN, "store", act="reset incidents"),
    Row("GET", "/v1/config", _ADMIN | {_V}, "store"),
    Row("POST", "/v1/config/reload", _ADMIN, "store", act="reload configuration"),
    Row("GET", "/v1/tokens", _ADMIN | {_V}, "store"),
    Row("POST", "/v1/tokens", _ADMIN, "store", act="create token"),
    Row("DELETE", "/v1/tokens/{id}", _ADMIN, "store", act="revoke token"),
    Row("GET", "/v1/audit", _SEE, "store"),
)
"""Writers begin and end their own sessions and see them; no row that deletes has them."""

_BY_ROUTE = {(row.method, row.path): row for row in ROWS}


def row_of(method: str, path: str) -> Row:
    """The row of a route (``path`` with its braces). KeyError is a bug: a route without a row is never served."""
    return _BY_ROUTE[method, path]


@dataclass(frozen=True)
class Caller:
    """Who asks. ``id``: of the token, or ``uid:N``; ``mounts``: those it is for, empty for all."""

    id: str
    role: Role
    mounts: frozenset[str] = frozenset()
    origin: str = ""
    label: str = ""

    @property
    def who(self) -> str:
        """For the audit log."""
        return f"{self.id} ({self.label})" if self.label else self.id

    def sees(self, mount: str) -> bool:
        """Is it for this mount? For "", what belongs to no mount, only who is for all."""
        return not self.mounts or mount in self.mounts

    def need_mount(self, mount: str) -> None:
        """Refuse what concerns a mount it is not for; whether that exists is not told. Raises PermissionDenied."""
        if not self.sees(mount):
            raise PermissionDenied(
                f"mount {mount!r}", found=f"a token for {_listed(self.mounts)} only", do="use another token"
            )  # fmt: skip

    def owns(self, session: SessionInfo) -> bool:
        """May it see and end this session? A writer only those it began itself."""
        return self.sees(session.mount) and (self.role != "writer" or session.holder == self.id)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


class Tokens(Protocol):
    """What the gate needs of ``state.tokens``."""

    def verify(self, text: str) -> TokenInfo:
        """The token that this text is, compared in constant time. Raises PermissionDenied for an unknown, expired
        or revoked one."""


class AuditLog(Protocol):
    """What the gate needs of ``observe.Audit``."""

    def write(self, who: str, origin: str, act: str, about: str, result: str) -> object: ...


class Gate:
    """Decides who asks and what they may. Thread-safe; ``clock`` in ns."""

    def __init__(
        self, tokens: Tokens, audit: AuditLog, *, clock: Callable[[], int],
        failures_per_minute: int = 20, own_uid: int | None = None,
    ) -> None:  # fmt: skip
        self._tokens = tokens
        self._audit = audit
        self._clock = clock
        self._own_uid = os.geteuid() if own_uid is None else own_uid
        self.failures_per_minute = failures_per_minute  # may be set anew when the configuration is
        self._failures: OrderedDict[str, deque[int]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, authorization: str, peer: Peer) -> Caller:
        """Who asks: by the Authorization header if there is one, else by the unix socket's other end.

        Raises Refused: 401 for a token that is none, is expired or revoked, 403 for a user, 429 for too many such.
        """
        try:
            if not authorization:
                return self._by_user(peer)
            return self._by_token(authorization, peer)
        except Refused as error:
            raise self._counted(error, peer.origin) from None

    def _by_user(self, peer: Peer) -> Caller:
        if peer.uid < 0:
            raise _unknown("no token", "send 'Authorization: Bearer TOKEN'")
        if peer.uid not in (0, self._own_uid):
            raise Refused(403, PermissionDenied(
                f"user {peer.uid}", expected="root or the service's own user at this socket",
                do="send a token",
            ))  # fmt: skip
        return Caller(f"uid:{peer.uid}", "admin", origin=peer.origin)

    def _by_token(self, authorization: str, peer: Peer) -> Caller:
        scheme, _, presented = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise _unknown(
                "an Authorization header of another scheme", "send 'Authorization: Bearer TOKEN'"
            )
        try:
            known = self._tokens.verify(presented.strip())
        except PermissionDenied as error:
            raise _unknown(str(error), "ask an administrator for a token") from None
        return Caller(known.id, known.role, frozenset(known.mounts), peer.origin, known.label)

    def _counted(self, error: Refused, origin: str) -> Refused:
        """Note a failure. Above the limit the answer is 429, and nothing is logged any more.

        A token that is good passes all the same: a secret of 256 bits is not guessed, and one script with an
        expired token must not keep the other writers of its machine from their recovery points.
        """
        now = self._clock()
        with self._lock:
            times = self._failures.setdefault(
                origin, deque(maxlen=max(1, self.failures_per_minute))
            )
            self._failures.move_to_end(origin)
            while len(self._failures) > _ADDRESSES:
                self._failures.popitem(last=False)
            if times.maxlen != max(1, self.failures_per_minute):
                times = self._failures[origin] = deque(times, max(1, self.failures_per_minute))
            while times and not 0 <= now - times[0] < _MINUTE:
                times.popleft()
            if len(times) == times.maxlen:
                wait = max(1, -(-(times[0] + _MINUTE - now) // 10**9))
                return Refused(
                    429, Busy(f"failures to authenticate from {origin}", expected=f"at most {times.maxlen} a minute",
                              do=f"wait {wait} seconds"), {"Retry-After": str(wait)},
                )  # fmt: skip
            times.append(now)
        log.info("refused %s: %s", origin, error)
        return error

    def allow(self, row: Row, caller: Caller) -> None:
        """May this caller use this route at all? Mounts are for ``Caller.need_mount``. Raises PermissionDenied."""
        if caller.role not in row.roles:
            raise PermissionDenied(
                f"{row.method} {row.path}", expected=f"role {' or '.join(sorted(row.roles))}",
                found=f"role {caller.role}", do="use another token",
            )  # fmt: skip
        if row.about == "store" and caller.mounts:
            raise PermissionDenied(
                f"{row.method} {row.path}", expected="a token for all mounts",
                found=f"one for {_listed(caller.mounts)} only", do="use another token",
            )  # fmt: skip

    def record(self, row: Row, caller: Caller, about: str, error: BaseException | None) -> None:
        """Keep an act in the audit log, if the row says it is one. That it cannot be kept is logged, not raised:
        the act has happened, and an error would say that it had not."""
        if not row.act:
            return
        result = "ok"
        if error is not None:
            result = error.kind.slug if isinstance(error, HoldfastError) else "internal"
        try:
            self._audit.write(caller.who, caller.origin, row.act, about, result)
        except (HoldfastError, OSError) as failure:
            log.error(
                "the audit log could not be written: %s; lost: %s %s %s %s %s",
                failure, caller.who, caller.origin, row.act, about, result,
            )  # fmt: skip


def _unknown(found: str, do: str) -> Refused:
    return Refused(
        401, PermissionDenied("authentication", found=found, do=do),
        {"WWW-Authenticate": 'Bearer realm="holdfast"'},
    )  # fmt: skip
