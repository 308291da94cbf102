"""Recovery points: lists, what is in them, files and trees of them, deleting."""

from __future__ import annotations

import hashlib
from dataclasses import make_dataclass
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import Field

from daemon.contract import Change, EntryInfo, ManifestFile, Page, PointDetail, PointQuery
from daemon.http import wire
from daemon.http.native.base import (
    Ask,
    Asked,
    Body,
    Cursor,
    InPoint,
    Limit,
    Reference,
    Stream,
    Text,
    Time,
    paged,
    route,
)
from daemon.http.native.mounts import LONG
from daemon.http.native.names import disposition, part_of
from engine import PointInfo

_HERE = Annotated[str, Field(max_length=1000)]


Place = Annotated[int, Query(ge=0, le=2**63 - 1, description="Where in the file.")]
Database = Annotated[str, Path(max_length=1000, description="A database, as its logs name it.")]
Length = Annotated[int, Query(ge=-1, le=2**63 - 1, description="Bytes; -1 to the end.")]


class References(Body):
    """Points: ids, beginnings of them, or MOUNT@latest."""

    points: Annotated[list[_HERE], Field(min_length=1, max_length=10_000)]


class Keeping(Body):
    """Whether retention leaves a point alone."""

    kept: bool = True


class Locking(Body):
    """Until when a point is locked, or for how long from now on: one of them."""

    until_ns: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    for_s: Annotated[float, Field(ge=0, le=4e9, allow_inf_nan=False)] = 0


def seen(ask: Asked, reference: str) -> PointDetail:
    """A point this caller is for; others are not there. Raises NotFound, InvalidRequest."""
    mount, at, _ = reference.partition("@")
    if at:
        ask.mount(mount)
    found = ask.backend.point(reference)
    ask.hidden(found.point.mount, f"point {reference}")
    return found


ListedPoint: Any = make_dataclass(
    "ListedPoint",
    [*wire.fields_of(PointInfo).items(), ("copies", dict[str, str])],
    frozen=True,
    namespace={
        "__doc__": "A recovery point in a list. ``copies``: how far its copy is, by location."
    },
)


@route("GET", "/v1/points", Page[ListedPoint])
def list_points(
    ask: Ask, mount: Text = "", label: Text = "", since_ns: Time = 0, until_ns: Time = 0,
    cursor: Cursor = "", limit: Limit = 100,
) -> Page[Any]:  # fmt: skip
    """Points, oldest first. A page may have fewer than ``limit`` and still not be the last: see ``cursor``."""
    if mount:
        ask.mount(mount)
    page = ask.backend.points(PointQuery(mount, label, since_ns, until_ns, cursor, limit))
    points = [one for one in page.items if ask.caller.sees(one.mount)]
    copies: dict[str, dict[str, str]] = {one.id: {} for one in points}
    for row in ask.backend.uploads(points=list(copies)):
        copies[row.point][row.location] = row.state
    return Page(
        [ListedPoint(**one._asdict(), copies=copies[one.id]) for one in points], page.cursor
    )


@route("GET", "/v1/points/{ref}", PointDetail)
def get_point(ask: Ask, ref: Reference) -> PointDetail:
    """One point, with what is kept beside it."""
    return seen(ask, ref)


@route("POST", "/v1/points/forecast", dict[str, int], patience=LONG)
def forecast_deletion(ask: Ask, what: References) -> dict[str, int]:
    """What deleting these points would free."""
    return ask.backend.forecast([seen(ask, one).point.id for one in what.points])


@route("POST", "/v1/points/delete", list[PointInfo])
def delete_points(ask: Ask, what: References) -> list[PointInfo]:
    """Delete points, all of them or none."""
    ids = [seen(ask, one).point.id for one in what.points]
    ask.about = "points " + " ".join(ids)
    return ask.backend.remove_points(ids)


@route("POST", "/v1/points/{ref}/keep", PointDetail)
def keep_point(ask: Ask, ref: Reference, how: Keeping) -> PointDetail:
    """Have retention leave a point alone, or no longer. Deleting it by name is as before."""
    point = seen(ask, ref).point
    ask.about = f"point {point.id} of mount {point.mount}" + ("" if how.kept else ": no longer")
    return ask.backend.keep(point.id, kept=how.kept)


@route("POST", "/v1/points/{ref}/lock", PointDetail)
def lock_point(ask: Ask, ref: Reference, how: Locking) -> PointDetail:
    """Have nobody delete a point before a time. Nobody can take it back, or make it shorter."""
    point = seen(ask, ref).point
    ask.about = f"point {point.id} of mount {point.mount}"
    found = ask.backend.lock(point.id, until_ns=how.until_ns, for_s=how.for_s)
    ask.about += f", until {found.point.locked_ns // 10**9} s after 1970"
    return found


@route("GET", "/v1/points/{ref}/entries", Page[EntryInfo])
def list_entries(
    ask: Ask, ref: Reference, path: InPoint = "", cursor: Cursor = "", limit: Limit = 1000
) -> Any:
    """What is in a directory of a point, by name."""
    return ask.backend.entries(seen(ask, ref).point.id, path, cursor=cursor, limit=limit)


@route("GET", "/v1/points/{ref}/manifest", Page[ManifestFile], patience=LONG)
def get_manifest(
    ask: Ask, ref: Reference, cursor: Cursor = "", limit: Limit = 1000
) -> Page[ManifestFile]:
    """Regular files of a point, with what identifies their content."""
    return ask.backend.manifest(seen(ask, ref).point.id, cursor=cursor, limit=limit)


@route("GET", "/v1/points/{ref}/databases", dict[str, int])
def list_databases(ask: Ask, ref: Reference) -> dict[str, int]:
    """Databases that the logs of a point speak of, and how many files of each they name."""
    return ask.backend.databases(seen(ask, ref).point.id)


@route("GET", "/v1/points/{ref}/databases/{name}/files", Page[str], patience=LONG)
def list_database_files(
    ask: Ask, ref: Reference, name: Database, cursor: Cursor = "", limit: Limit = 1000
) -> Page[str]:
    """Files of a point that belong to a database, as the logs say that were sent with it."""
    files = ask.backend.files_of(seen(ask, ref).point.id, name)
    return paged("files", files, lambda path: (path,), cursor, limit)


@route("GET", "/v1/points/{ref}/file", media="application/octet-stream", pool="streams")
def get_file(
    ask: Ask, ref: Reference, path: InPoint, offset: Place = 0, length: Length = -1
) -> Stream:
    """A regular file of a point, or a part of it: by Range, or with offset and length."""
    point = seen(ask, ref).point.id
    headers = ask.request.headers
    entry, pieces = ask.backend.file(point, path, offset=offset, length=length)
    # A file of a point never changes, so its place is as good a mark of its content as a hash of it.
    mark = hashlib.blake2b(
        f"{point}/{offset}/{length}/{path}".encode("utf-8", "surrogateescape"), digest_size=16
    ).hexdigest()
    told = {
        "Content-Type": "application/octet-stream", "Content-Disposition": disposition(entry.name or path),
        "ETag": f'"{mark}"', "Accept-Ranges": "bytes", wire.ABOUT: wire.encoded(entry).decode("ascii"),
    }  # fmt: skip
    if mark in headers.get("if-none-match", ""):
        return Stream(iter(()), told, 304)
    size = max(0, entry.size - offset) if length < 0 else min(length, entry.size - offset)
    part = None
    if size == entry.size and mark in headers.get("if-range", mark):
        part = part_of(headers.get("range", ""), entry.size)
    if part is None:
        return Stream(pieces, {**told, "Content-Length": str(size)})
    entry, pieces = ask.backend.file(point, path, offset=part.offset, length=part.length)
    last = part.offset + part.length - 1
    return Stream(pieces, {
        **told, "Content-Length": str(part.length),
        "Content-Range": f"bytes {part.offset}-{last}/{entry.size}",
    }, 206)  # fmt: skip


@route("GET", "/v1/points/{ref}/tar", media="application/x-tar", pool="streams")
def get_tar(ask: Ask, ref: Reference, path: InPoint = "") -> Stream:
    """A point, or a directory or file of it, as a tar stream. One that is cut short is an error on the way."""
    point = seen(ask, ref).point
    name = path.rstrip("/").rpartition("/")[2] or f"{point.mount}-{point.id[:12]}"
    return Stream(
        ask.backend.tar(point.id, path),
        {"Content-Type": "application/x-tar", "Content-Disposition": disposition(f"{name}.tar")},
    )


@route("GET", "/v1/diff", Page[Change], patience=LONG)
def get_diff(
    ask: Ask, old: Text, new: Text, cursor: Cursor = "", limit: Limit = 1000
) -> Page[Change]:
    """What differs between two points."""
    one, other = seen(ask, old).point.id, seen(ask, new).point.id
    return ask.backend.diff(one, other, cursor=cursor, limit=limit)
