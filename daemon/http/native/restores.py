"""Restores: jobs that show a point in its mount, or fill a configured target."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.responses import Response

from daemon.contract import JobInfo, Page, RestoreSpec
from daemon.http.native.base import Ask, Asked, Body, Cursor, Limit, Number, Text, route
from daemon.http.native.mounts import LONG
from daemon.http.native.points import seen
from engine.errors import NotFound


class NewRestore(Body):
    """A restore to be made. ``place``: mount, to show it there at no cost, or the name of a configured target. Of the
    point all, or what is at ``path``, at ``paths``, or the files of a ``database``. ``from``: the storage location to
    read it from, else wherever its bytes are."""

    point: Annotated[str, Field(max_length=1000)]
    path: str = ""
    place: Annotated[str, Field(max_length=1000)] = "mount"
    paths: Annotated[list[str], Field(max_length=100_000)] = []  # noqa: RUF012 - a field of a model
    database: Annotated[str, Field(max_length=1000)] = ""
    location: Annotated[str, Field(alias="from", max_length=1000)] = ""


def _restore(ask: Asked, number: int) -> JobInfo:
    ask.about = f"restore {number}"
    found = ask.backend.job(number)
    if found.kind != "restore" or not ask.caller.sees(found.mount):
        raise NotFound(f"restore {number}", found="none")
    return found


@route("GET", "/v1/restores", Page[JobInfo])
def list_restores(
    ask: Ask, state: Text = "", cursor: Cursor = "", limit: Limit = 100
) -> Page[JobInfo]:
    """Restores that were asked for, the newest first."""
    page = ask.backend.jobs(kind="restore", state=state, cursor=cursor, limit=limit)
    return Page([one for one in page.items if ask.caller.sees(one.mount)], page.cursor)


@route("POST", "/v1/restores", JobInfo, status=202, patience=LONG)
def begin_restore(ask: Ask, new: NewRestore) -> JobInfo:
    """Restore a point, or a part of it."""
    point = seen(ask, new.point).point
    source = f" from location {new.location}" if new.location else ""
    ask.about = f"point {point.id} of mount {point.mount} to {new.place}{source}"
    return ask.backend.restore(
        RestoreSpec(point.id, new.path, new.place, new.paths, new.database, new.location),
        once=ask.once,
    )


@route("GET", "/v1/restores/{id}", JobInfo)
def get_restore(ask: Ask, id: Number) -> JobInfo:
    """One restore."""
    return _restore(ask, id)


@route("DELETE", "/v1/restores/{id}", status=204)
def delete_restore(ask: Ask, id: Number, mount: Text = "") -> Response:
    """Remove what a restore shows in its mount, or has filled. ``mount``: which it must be of."""
    found = _restore(ask, id)
    if mount and found.mount != mount:
        raise NotFound(f"restore {id} of mount {mount!r}", found="none")
    ask.backend.delete_restore(found.mount, found.id)
    return Response(status_code=204)
