"""Sessions, and the logs sent with them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import Field

from daemon.contract import Attachment, Committed, Durability, Page, SessionInfo
from daemon.http import wire
from daemon.http.native.base import (
    Ask,
    Asked,
    Body,
    Cursor,
    Limit,
    MountName,
    Number,
    Stream,
    Text,
    paged,
    route,
)
from daemon.http.native.mounts import LONG, Label
from daemon.http.native.names import disposition
from engine.errors import NotFound

Lease = Annotated[
    float, Field(ge=0, le=2**31, description="Seconds until the session is stale; 0 as configured.")
]
SessionId = Annotated[str, Path(max_length=200, description="The id of a session.")]


class NewSession(Body):
    """A session to begin. ``holder``: who, in their own words; a writer's is always its token."""

    holder: Label = ""
    label: Label = ""
    lease_s: Lease = 0


class NewLease(Body):
    """How long from now on."""

    lease_s: Lease = 0


class Commit(Body):
    """How the recovery point is labelled; "" as the session is. ``durability`` remote: answer when its copies are
    verified."""

    label: Label = ""
    durability: Durability = "local"


def _page(ask: Asked, found: list[SessionInfo], cursor: str, limit: int) -> Page[SessionInfo]:
    mine = [one for one in found if ask.caller.owns(one)]
    return paged("sessions", mine, lambda one: (-one.begun_ns, one.id), cursor, limit)


def _owned(ask: Asked, session_id: str) -> SessionInfo:
    """A session this caller may see; others are not there. Raises NotFound."""
    ask.about = f"session {session_id}"
    found = ask.backend.session(session_id)
    if not ask.caller.owns(found):
        raise NotFound(f"session {session_id}", found="none of this caller's")
    ask.about = f"session {found.id} of mount {found.mount}"
    return found


@route("GET", "/v1/mounts/{name}/sessions", Page[SessionInfo])
def list_mount_sessions(
    ask: Ask, name: MountName, state: Text = "", cursor: Cursor = "", limit: Limit = 100
) -> Page[SessionInfo]:
    """Sessions of a mount, the newest first; a writer's own."""
    return _page(ask, ask.backend.sessions(ask.mount(name), state), cursor, limit)


@route("GET", "/v1/sessions", Page[SessionInfo])
def list_sessions(
    ask: Ask, mount: Text = "", state: Text = "", cursor: Cursor = "", limit: Limit = 100
) -> Page[SessionInfo]:
    """Sessions of all mounts this caller is for, the newest first; a writer's own."""
    if mount:
        ask.mount(mount)
    return _page(ask, ask.backend.sessions(mount, state), cursor, limit)


@route("POST", "/v1/mounts/{name}/sessions", SessionInfo, status=201, pool="commits", patience=LONG)
def begin_session(ask: Ask, name: MountName, new: NewSession | None = None) -> SessionInfo:
    """Begin a session."""
    new = new or NewSession()
    holder = ask.caller.id if ask.caller.role == "writer" else new.holder or ask.caller.id
    return ask.backend.begin(ask.mount(name), holder=holder, label=new.label, lease_s=new.lease_s)


@route("GET", "/v1/sessions/{id}", SessionInfo)
def get_session(ask: Ask, id: SessionId) -> SessionInfo:
    """One session."""
    return _owned(ask, id)


@route("POST", "/v1/sessions/{id}/renew", SessionInfo)
def renew_session(ask: Ask, id: SessionId, new: NewLease | None = None) -> SessionInfo:
    """Let the lease begin anew."""
    return ask.backend.renew(_owned(ask, id).id, new.lease_s if new else 0)


@route("POST", "/v1/sessions/{id}/commit", Committed, pool="commits", patience=LONG)
def commit_session(ask: Ask, id: SessionId, commit: Commit | None = None) -> Committed:
    """Make the recovery point of a session; asked again, the same."""
    commit = commit or Commit()
    return ask.backend.commit(_owned(ask, id).id, label=commit.label, durability=commit.durability)


@route("POST", "/v1/sessions/{id}/abandon", SessionInfo, pool="commits", patience=LONG)
def abandon_session(ask: Ask, id: SessionId) -> SessionInfo:
    """End a session without a recovery point."""
    return ask.backend.abandon(_owned(ask, id).id)


@route("POST", "/v1/sessions/{id}/logs", Attachment, status=201, pool="streams", upload=True)
def attach_log(ask: Ask, id: SessionId) -> Attachment:
    """Send a log, as the part 'file' of a form. It is kept with the session and its recovery point."""
    session = _owned(ask, id)
    assert ask.upload is not None
    return ask.backend.attach_log(session.id, ask.upload.name, ask.upload.pieces())


@route("GET", "/v1/attachments/{id}", media="text/plain")
def get_attachment(ask: Ask, id: Number) -> Stream:
    """A log, or what a hook printed."""
    found, pieces = ask.backend.attachment(id)
    mount = ""
    if found.session:
        session = ask.backend.session(found.session)
        mount = session.mount
        if not ask.caller.owns(session):
            raise NotFound(f"attachment {id}", found="none of this caller's")
    elif ask.caller.role == "writer":
        raise NotFound(f"attachment {id}", found="none of this caller's")
    elif found.point:
        mount = ask.backend.point(found.point).point.mount
    ask.hidden(mount, f"attachment {id}")
    return Stream(pieces, {
        "Content-Type": "text/plain; charset=utf-8", "Content-Disposition": disposition(found.name),
        "Content-Length": str(found.size), wire.ABOUT: wire.encoded(found).decode("ascii"),
    })  # fmt: skip
