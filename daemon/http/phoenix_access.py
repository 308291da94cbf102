"""Who may use the Phoenix-compatible API: addresses, no web pages, and tokens where they are wanted or sent."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from daemon.config import Config
from daemon.http import Peer
from daemon.http.gate import ALL, Caller, Gate, Row
from daemon.http.phoenix_rules import Call
from daemon.http.problem import Refused
from engine.errors import PermissionDenied

_MOUNT = "/druva-phoenix/v1/mounts/{name}"
_WRITE = ALL - {"restorer", "auditor"}

ROWS: dict[Call, Row] = {
    "status": Row("GET", _MOUNT + "/backup", ALL),
    "begin": Row("POST", _MOUNT + "/backup", _WRITE, act="begin session"),
    "log": Row("POST", _MOUNT + "/uploadlog", _WRITE, act="attach log"),
    "commit": Row("PUT", _MOUNT + "/backup", _WRITE, act="commit session"),
    "delete": Row(
        "DELETE", _MOUNT + "/restores/{id}", ALL - {"writer", "auditor"}, act="delete restore"
    ),
}
"""As the native API's rows of the same acts."""


@dataclass(frozen=True)
class Settings:
    """``allow``: networks that may ask; ``max_pending``: points that may wait for their copy, 0 for no limit;
    ``max_upload``: bytes of a log."""

    allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    token_required: bool = False
    max_pending: int = 5
    max_upload: int = 64 << 20


def settings_of(config: Config) -> Settings:
    """What the configuration says."""
    return Settings(
        tuple(str(one) for one in config.phoenix.allow), config.phoenix.token_required, config.phoenix.max_pending,
        config.api.max_upload,
    )  # fmt: skip


def within(address: str, networks: tuple[str, ...]) -> bool:
    """Is an address in one of the networks? What is no address is in none."""
    try:
        found = ipaddress.ip_address(address)
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped
        return any(found in ipaddress.ip_network(one, strict=False) for one in networks)
    except ValueError:
        return False


class Access:
    """Decides. ``gate``: knows tokens and keeps the audit log."""

    def __init__(self, settings: Callable[[], Settings], gate: Gate | None) -> None:
        self._settings, self._gate = settings, gate

    def reach(self, request: Request) -> str:
        """The client's address, if it may ask at all. Raises PermissionDenied."""
        address = request.client.host if request.client else ""
        if not within(address, self._settings().allow):
            raise PermissionDenied(
                "this client", expected="an address that the configuration allows", found=address or "none",
                do="add it to 'allow' of [phoenix]",
            )  # fmt: skip
        if "origin" in request.headers:
            raise PermissionDenied("this interface", expected="scripts", found="a web page")
        return address

    def admit(self, request: Request, address: str, call: Call, mount: str) -> Caller:
        """Who asks. Without a token, where none is required, anyone who can reach it. Raises PermissionDenied."""
        authorization = request.headers.get("authorization", "")
        required = self._settings().token_required
        if self._gate is None and required:
            raise Refused(401, PermissionDenied("authentication", found="no tokens here"))
        if self._gate is None or not (authorization or required):
            return Caller("phoenix", "operator", origin=address)
        caller = self._gate.admit(authorization, Peer(address))
        self._gate.allow(ROWS[call], caller)
        caller.need_mount(mount)
        return caller

    def record(self, call: Call, caller: Caller, mount: str, error: BaseException | None) -> None:
        """Keep an act in the audit log."""
        if self._gate is not None:
            self._gate.record(ROWS[call], caller, f"mount {mount}", error)
