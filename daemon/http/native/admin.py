"""The daemon and the store as a whole: health, status, numbers, exports, configuration, tokens, audit log."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import Field
from starlette.responses import Response

from daemon.contract import AuditLine, ExportInfo, Page, Role, TokenInfo
from daemon.http.native.base import Ask, Body, Cursor, Limit, Text, Time, paged, route
from daemon.http.native.mounts import LONG, Label
from daemon.observe.metrics import CONTENT_TYPE
from daemon.service import cursors
from engine.errors import InvalidRequest


@dataclass(frozen=True)
class Health:
    """That somebody is there; no more, as anyone may ask."""

    status: Literal["ok"]


@dataclass(frozen=True)
class Status:
    """What answers, and as whom it knows the caller. ``mounts``: those the caller is for, empty for all."""

    version: str
    who: str
    role: Role
    mounts: list[str]
    serving: int


@dataclass(frozen=True)
class Reloaded:
    """What of the configuration changed."""

    changed: list[str]


@dataclass(frozen=True)
class NewSecret:
    """A token, and its text, which is told this once."""

    token: TokenInfo
    secret: str


class NewExport(Body):
    """Who may mount a mount over NFS."""

    mount: Annotated[str, Field(max_length=64 << 10)]
    client: Annotated[str, Field(max_length=100, examples=["192.0.2.0/24"])]
    read_only: bool = False
    squash: Literal["root", "all", "none"] = "root"


class NewToken(Body):
    """A token to be made. ``mounts``: those it is for, empty for all; ``lifetime_s``: 0 for ever."""

    role: Role
    mounts: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=1000)] = []  # noqa: RUF012
    label: Label = ""
    lifetime_s: Annotated[float, Field(ge=0, le=2**40)] = 0


@route("GET", "/v1/health", Health)
def get_health(ask: Ask) -> Health:
    """Is somebody there? The one question that needs no token."""
    return Health("ok")


@route("GET", "/v1/openapi.json", dict[str, Any])
def get_openapi(ask: Ask) -> dict[str, Any]:
    """This description."""
    return ask.shared.openapi()


@route("GET", "/v1/status", Status)
def get_status(ask: Ask) -> Status:
    """What answers, and how it knows the caller."""
    mounts = [one for one in ask.backend.mounts() if ask.caller.sees(one.name)]
    serving = sum(one.state == "serving" for one in mounts)
    return Status(
        ask.shared.version, ask.caller.who, ask.caller.role, sorted(ask.caller.mounts), serving
    )


@route("GET", "/metrics", media="text/plain")
def get_metrics(ask: Ask) -> Response:
    """Numbers for Prometheus."""
    return Response(ask.shared.metrics.text(), media_type=CONTENT_TYPE)


@route("GET", "/v1/exports", Page[ExportInfo])
def list_exports(
    ask: Ask, mount: Text = "", cursor: Cursor = "", limit: Limit = 100
) -> Page[ExportInfo]:
    """Who may mount what over NFS."""
    if mount:
        ask.mount(mount)
    found = [one for one in ask.backend.exports(mount) if ask.caller.sees(one.mount)]
    return paged("exports", found, lambda one: (one.mount, one.client), cursor, limit)


@route("POST", "/v1/exports", ExportInfo, status=201, patience=LONG)
def export_mount(ask: Ask, new: NewExport) -> ExportInfo:
    """Let clients mount a mount over NFS."""
    ask.mount(new.mount)
    client = _network(new.client)
    ask.about = f"mount {new.mount} to {client}"
    return ask.backend.export(ExportInfo(new.mount, client, new.read_only, new.squash))


@route("DELETE", "/v1/exports", status=204, patience=LONG)
def end_export(ask: Ask, mount: Text, client: Text) -> Response:
    """Let clients mount it no longer."""
    ask.mount(mount)
    ask.about = f"mount {mount} to {_network(client)}"
    ask.backend.unexport(mount, _network(client))
    return Response(status_code=204)


def _network(client: str) -> str:
    """A network as it is always written. Raises InvalidRequest."""
    try:
        return str(ipaddress.ip_network(client, strict=False))
    except ValueError:
        raise InvalidRequest(
            f"client {client!r}", expected="an address or a network, like 192.0.2.0/24"
        ) from None


@route("GET", "/v1/stats", dict[str, float], patience=LONG)
def get_stats(ask: Ask, mount: Text = "") -> dict[str, int | float]:
    """Sizes and counts of the store, or of one mount; a token for some mounts has to name one."""
    ask.mount(mount)
    return ask.backend.stats(mount)


@route("GET", "/v1/history", Page[dict[str, float]])
def get_history(ask: Ask, since_ns: Time = 0, cursor: Cursor = "", limit: Limit = 1000) -> Any:
    """Sizes and counts as they were, the oldest first."""
    begun = cursors.decode("history", cursor, int)
    found = ask.backend.history(begun[0] if begun else since_ns, limit)
    more = cursors.encode("history", int(found[-1]["time_ns"]) + 1) if len(found) == limit else ""
    return Page(found, more)


@route("GET", "/v1/incidents", Page[dict[str, Any]])
def list_incidents(ask: Ask, cursor: Cursor = "", limit: Limit = 1000) -> Any:
    """What wants attention."""
    begun = cursors.decode("incidents", cursor, int)
    place = max(0, begun[0]) if begun else 0
    found = ask.backend.incidents()
    more = cursors.encode("incidents", place + limit) if len(found) > place + limit else ""
    return Page(found[place : place + limit], more)


@route("DELETE", "/v1/incidents", status=204)
def reset_incidents(ask: Ask) -> Response:
    """Forget the incidents."""
    ask.backend.reset_incidents()
    return Response(status_code=204)


@route("GET", "/v1/config", dict[str, Any])
def get_config(ask: Ask) -> dict[str, Any]:
    """The configuration, with its defaults."""
    return ask.backend.config()


@route("POST", "/v1/config/reload", Reloaded, patience=LONG)
def reload_config(ask: Ask) -> Reloaded:
    """Read the configuration again."""
    return Reloaded(ask.backend.reload_config())


@route("GET", "/v1/tokens", Page[TokenInfo])
def list_tokens(ask: Ask, cursor: Cursor = "", limit: Limit = 100) -> Page[TokenInfo]:
    """Tokens, without their secrets."""
    return paged(
        "tokens", ask.backend.tokens(), lambda one: (one.created_ns, one.id), cursor, limit
    )


@route("POST", "/v1/tokens", NewSecret, status=201, keyed=False)
def create_token(ask: Ask, new: NewToken) -> NewSecret:
    """Make a token. Its secret is in this answer and nowhere else, so the answer is not kept for a second request."""
    ask.about = f"{new.role} for {', '.join(sorted(new.mounts)) or 'all mounts'}"
    token, secret = ask.backend.create_token(
        new.role, new.mounts, label=new.label, lifetime_s=new.lifetime_s
    )
    ask.about = f"token {token.id}, {ask.about}"
    return NewSecret(token, secret)


@route("DELETE", "/v1/tokens/{id}", TokenInfo)
def revoke_token(ask: Ask, id: Annotated[str, Path(max_length=200)]) -> TokenInfo:
    """Refuse a token from now on."""
    ask.about = f"token {id}"
    return ask.backend.revoke_token(id)


@route("GET", "/v1/audit", Page[AuditLine])
def list_audit(
    ask: Ask, after: Time = 0, cursor: Cursor = "", limit: Limit = 1000
) -> Page[AuditLine]:
    """Who did what, the oldest first."""
    begun = cursors.decode("audit", cursor, int)
    found = ask.backend.audit(after=begun[0] if begun else after, limit=limit)
    return Page(found, cursors.encode("audit", found[-1].number) if len(found) == limit else "")
