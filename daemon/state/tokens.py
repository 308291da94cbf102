"""Tokens: who may ask. A token is ``hf_ID_SECRET``; of the secret, 256 random bits, only a hash is kept."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import Callable
from typing import get_args

from daemon.contract import Role, TokenInfo
from daemon.state.database import Database
from engine.errors import HoldfastError, InvalidRequest, NotFound, PermissionDenied

_FORM = re.compile(r"hf_([0-9a-f]{12})_([0-9a-f]{64})")
_MINUTE = 60 * 10**9
_SECOND = 10**9
LIFETIME_MAX = 100 * 366 * 86400  # s
LABEL_MAX = 200
_NOBODY = bytes(32)  # compared with where there is no such token: both take the same time


class Tokens:
    """The table of tokens. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def create(
        self, role: Role, mounts: list[str], *, label: str = "", lifetime_s: float = 0
    ) -> tuple[TokenInfo, str]:
        """A new token and its text, which is told this once. ``lifetime_s``: 0 for ever. Raises InvalidRequest."""
        if role not in get_args(Role):
            raise InvalidRequest(f"role {role!r}", expected=" or ".join(get_args(Role)))
        if not 0 <= lifetime_s <= LIFETIME_MAX:
            raise InvalidRequest(
                f"lifetime {lifetime_s}", expected=f"0 for ever, to {LIFETIME_MAX} seconds"
            )
        if len(label) > LABEL_MAX or not label.isprintable():
            raise InvalidRequest(
                "label of a token", expected=f"at most {LABEL_MAX} printable characters"
            )
        now = self._clock()
        number, secret = secrets.token_hex(6), secrets.token_hex(32)
        expires = now + int(lifetime_s * _SECOND) if lifetime_s else 0
        with self._database.write() as txn:
            row = txn.execute(
                "INSERT INTO tokens (id, digest, role, mounts, label, created_ns, expires_ns)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING *",
                (number, _digest(secret), role, json.dumps(sorted(set(mounts))), label, now, expires),
            ).fetchone()  # fmt: skip
        return _info(row), f"hf_{number}_{secret}"

    def verify(self, text: str) -> TokenInfo:
        """The token that this text is. Raises PermissionDenied, and says no more than must be said."""
        form = _FORM.fullmatch(text)
        number, secret = (form[1], form[2]) if form else ("", "")
        with self._database.read() as db:
            row = db.execute("SELECT * FROM tokens WHERE id = ?", (number,)).fetchone()
        known = _NOBODY if row is None else bytes(row["digest"])
        same = hmac.compare_digest(known, _digest(secret))
        if row is None or not same:
            raise PermissionDenied("token", expected="one that is known", found="another")
        now = self._clock()
        if row["revoked_ns"]:
            raise PermissionDenied(f"token {number}", found="that it was revoked")
        if row["expires_ns"] and row["expires_ns"] <= now:
            raise PermissionDenied(f"token {number}", found="that it has expired")
        if abs(now - row["used_ns"]) >= _MINUTE:
            # Only told: whoever frees a full disk must be let in.
            with contextlib.suppress(HoldfastError), self._database.write() as txn:
                txn.execute("UPDATE tokens SET used_ns = ? WHERE id = ?", (now, number))
        return _info(row)

    def every(self) -> list[TokenInfo]:
        """All tokens, the oldest first, those that no longer work among them."""
        with self._database.read() as db:
            return [
                _info(row) for row in db.execute("SELECT * FROM tokens ORDER BY created_ns, id")
            ]

    def revoke(self, token_id: str) -> TokenInfo:
        """From now on it is refused; a second time changes nothing. Raises NotFound."""
        with self._database.write() as txn:
            row = txn.execute(
                "UPDATE tokens SET revoked_ns = iif(revoked_ns, revoked_ns, ?) WHERE id = ? RETURNING *",
                (self._clock(), token_id),
            ).fetchone()  # fmt: skip
        if row is None:
            raise NotFound(f"token {token_id!r}", expected="one that was made", found="none")
        return _info(row)


def _digest(secret: str) -> bytes:
    return hashlib.blake2b(secret.encode(), digest_size=32, person=b"holdfast-token").digest()


def _info(row: sqlite3.Row) -> TokenInfo:
    return TokenInfo(
        id=row["id"], role=row["role"], mounts=json.loads(row["mounts"]), label=row["label"],
        created_ns=row["created_ns"], expires_ns=row["expires_ns"], revoked_ns=row["revoked_ns"],
        used_ns=row["used_ns"],
    )  # fmt: skip
