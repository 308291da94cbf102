"""Retention that waits, and drills."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from daemon.contract import DrillInfo, DrillSpec, JobInfo, Page, RetentionInfo
from daemon.http.native.base import Ask, Body, Cursor, Limit, MountName, Text, paged, route
from daemon.http.native.mounts import LONG
from daemon.http.native.points import seen

_Word = Annotated[str, Field(max_length=1000)]


class NewDrill(Body):
    """A drill to be made, of a point, or of one that is drawn from a mount's; with neither, of the mount drilled
    longest ago. ``source``: "local" or a storage location; ``into``: name of a restore target, "" for the usual."""

    mount: _Word = ""
    point: _Word = ""
    source: _Word = "local"
    into: Annotated[str, Field(max_length=1000, pattern=r"^[^/]*$")] = ""
    keep: bool = False


@route("GET", "/v1/retention", Page[RetentionInfo])
def list_retention(ask: Ask, cursor: Cursor = "", limit: Limit = 100) -> Page[RetentionInfo]:
    """What retention does with the mounts this caller is for, and why it waits."""
    found = [one for one in ask.backend.retention() if ask.caller.sees(one.mount)]
    return paged("retention", found, lambda one: (one.mount,), cursor, limit)


@route("POST", "/v1/mounts/{name}/retention/release", RetentionInfo, patience=LONG)
def release_retention(ask: Ask, name: MountName) -> RetentionInfo:
    """Let retention of a mount go on: its newest point is as it should be."""
    return ask.backend.release_retention(ask.mount(name))


@route("GET", "/v1/drills", Page[DrillInfo])
def list_drills(
    ask: Ask, mount: Text = "", cursor: Cursor = "", limit: Limit = 100
) -> Page[DrillInfo]:
    """Drills that have ended, the newest first."""
    if mount:
        ask.mount(mount)
    found = [one for one in ask.backend.drills(mount) if ask.caller.sees(one.mount)]
    return paged("drills", found, lambda one: (-one.job,), cursor, limit)


@route("POST", "/v1/drills", JobInfo, status=202)
def start_drill(ask: Ask, new: NewDrill) -> JobInfo:
    """Restore a point into a scratch place, have its mount's hook verify it, and take the time."""
    if new.mount or not new.point:
        ask.mount(new.mount)
    point = seen(ask, new.point).point.id if new.point else ""
    ask.about = f"mount {new.mount}" if new.mount else f"point {point}" if point else "any mount"
    return ask.backend.drill(DrillSpec(new.mount, point, new.source, new.into, new.keep))
