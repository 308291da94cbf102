"""Mounts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from daemon.contract import Durability, JobInfo, MountInfo, MountSpec, Page, PointDetail
from daemon.http.native.base import Ask, Body, Cursor, Limit, MountName, paged, route

LONG = 3600.0  # s: a worker writes down what is in memory, a snapshot waits for it
Label = Annotated[str, Field(max_length=1000)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class NewMount(Body):
    """A mount to be made; 0 means no limit."""

    name: Annotated[str, Field(max_length=64 << 10, examples=["oracle-prod"])]
    quota: Count = 0
    max_files: Count = 0
    chunking: Annotated[str, Field(max_length=100)] = "auto"
    path: Annotated[str, Field(max_length=4096)] = ""


class NewSnapshot(Body):
    """A recovery point to be made. ``durability`` remote: answer when its copies are verified. Asked again with the
    same idempotency key, also after an error, it is the same point."""

    label: Label = ""
    durability: Durability = "local"


@route("GET", "/v1/mounts", Page[MountInfo])
def list_mounts(ask: Ask, cursor: Cursor = "", limit: Limit = 100) -> Page[MountInfo]:
    """The mounts this caller is for, by name."""
    found = [one for one in ask.backend.mounts() if ask.caller.sees(one.name)]
    return paged("mounts", found, lambda one: (one.name,), cursor, limit)


@route("POST", "/v1/mounts", MountInfo, status=201)
def create_mount(ask: Ask, new: NewMount) -> MountInfo:
    """Make an empty mount."""
    ask.mount(new.name)
    return ask.backend.create_mount(MountSpec(**new.model_dump()))


@route("GET", "/v1/mounts/{name}", MountInfo)
def get_mount(ask: Ask, name: MountName) -> MountInfo:
    """One mount, and how it is served."""
    return ask.backend.mount(ask.mount(name))


@route("DELETE", "/v1/mounts/{name}", JobInfo, status=202)
def delete_mount(ask: Ask, name: MountName) -> JobInfo:
    """Delete a mount and all its recovery points, as a job."""
    return ask.backend.delete_mount(ask.mount(name))


@route("POST", "/v1/mounts/{name}/start", MountInfo, patience=LONG)
def start_mount(ask: Ask, name: MountName) -> MountInfo:
    """Serve a mount."""
    return ask.backend.start_mount(ask.mount(name))


@route("POST", "/v1/mounts/{name}/stop", MountInfo, pool="commits", patience=LONG)
def stop_mount(ask: Ask, name: MountName) -> MountInfo:
    """Write down what is in memory, and serve the mount no longer."""
    return ask.backend.stop_mount(ask.mount(name))


@route(
    "POST", "/v1/mounts/{name}/snapshots", PointDetail, status=201, pool="commits", patience=LONG
)
def take_snapshot(ask: Ask, name: MountName, new: NewSnapshot | None = None) -> PointDetail:
    """Make a recovery point of a mount as it is, outside a session."""
    new = new or NewSnapshot()
    return ask.backend.snapshot(
        ask.mount(name), label=new.label, durability=new.durability, once=ask.once
    )
