"""Storage locations, and how far the copies of recovery points are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Path
from pydantic import Field

from daemon.contract import (
    KeyRing,
    LocationChange,
    LocationInfo,
    LocationSpec,
    Page,
    SecretSpec,
    UploadInfo,
)
from daemon.http.native.base import Ask, Body, Cursor, Limit, Text, paged, route
from daemon.http.native.mounts import LONG

LocationName = Annotated[str, Path(max_length=1000, description="The name of a storage location.")]
_Name = Annotated[str, Field(max_length=1000)]
_Words = Annotated[str, Field(max_length=4096, repr=False)]
_Printed = Annotated[str, Field(max_length=1000, repr=False)]
_Windows = Annotated[str, Field(max_length=1000, examples=["08:00-18:00=5M,20M"])]


class NewLocation(Body):
    """A storage location. The passphrase, and each key as printed, open it alone: they are kept nowhere, and are in
    no answer and no log. ``mounts``: whose points go there, empty for all."""

    name: _Name
    url: Annotated[str, Field(max_length=4096, examples=["s3://bucket/prefix"])]
    passphrase: _Words = ""
    keys: Annotated[list[_Name], Field(max_length=50, repr=False)] = []  # noqa: RUF012
    credentials: Annotated[str, Field(max_length=4096)] = "environment"
    sealed: bool = True
    mounts: Annotated[list[_Name], Field(max_length=1000)] = []  # noqa: RUF012
    verify: Annotated[float, Field(ge=0, le=1)] = 0.02
    local: Literal["keep", "drop"] = "keep"
    bandwidth: _Windows = ""
    read_bandwidth: _Windows = ""
    object_lock: bool = False


class ChangedLocation(Body):
    """What of a storage location is to be another; what is left out stays."""

    mounts: Annotated[list[_Name], Field(max_length=1000)] | None = None
    verify: Annotated[float, Field(ge=0, le=1)] | None = None
    local: Literal["keep", "drop"] | None = None
    credentials: Annotated[str, Field(max_length=4096)] | None = None
    bandwidth: _Windows | None = None
    read_bandwidth: _Windows | None = None
    object_lock: Literal[True] | None = None


class OneSecret(Body):
    """A passphrase, a key as printed (of a new slot also a recipient's public half), or with both what needs both."""

    passphrase: _Words = ""
    key: _Printed = ""

    def spec(self) -> SecretSpec:
        return SecretSpec(self.passphrase, self.key)


class KeyChange(Body):
    """What is to open a location, and what no longer (ids of slots): all of it at once, or nothing. ``machine``: this
    store's own key, where it does not; ``force``: also where nobody but this store, or not even it, could open it
    then. ``opened_with``: what opens it now, when it is not to be this store's own key."""

    add: Annotated[list[OneSecret], Field(max_length=16)] = []  # noqa: RUF012
    remove: Annotated[list[_Name], Field(max_length=16)] = []  # noqa: RUF012
    machine: bool = False
    force: bool = False
    opened_with: OneSecret | None = None


class Rotation(Body):
    """A new key for what is sent from now on. ``master_for``: a new master key as well, with slots for these and for
    this store alone: who is not among them can open nothing that is written then."""

    master_for: Annotated[list[OneSecret], Field(max_length=15)] = []  # noqa: RUF012
    opened_with: OneSecret | None = None


class Retry(Body):
    """The location whose failed copies are to be tried again."""

    location: _Name


@dataclass(frozen=True)
class Queued:
    """How many points wait again."""

    queued: int


@route("GET", "/v1/locations", Page[LocationInfo])
def list_locations(ask: Ask, cursor: Cursor = "", limit: Limit = 100) -> Page[LocationInfo]:
    """Where copies of recovery points are kept."""
    return paged("locations", ask.backend.locations(), lambda one: (one.name,), cursor, limit)


# Not keyed: what tells its request from another would be a hash of secrets, kept for a day.
@route(
    "POST", "/v1/locations", LocationInfo, status=201, pool="commits", patience=LONG, keyed=False
)
def add_location(ask: Ask, new: NewLocation) -> LocationInfo:
    """Have points go to a place from now on, those that are here too."""
    ask.about = f"location {new.name}"
    return ask.backend.add_location(LocationSpec(**new.model_dump()))


@route("PATCH", "/v1/locations/{name}", LocationInfo, pool="commits", patience=LONG)
def change_location(ask: Ask, name: LocationName, change: ChangedLocation) -> LocationInfo:
    """Change what is told; new credentials are tried first."""
    ask.about = f"location {name}"
    return ask.backend.change_location(name, LocationChange(**change.model_dump()))


@route("DELETE", "/v1/locations/{name}", status=204, pool="commits", patience=LONG)
def remove_location(ask: Ask, name: LocationName) -> None:
    """Send nothing there any more; what lies there stays."""
    ask.about = f"location {name}"
    ask.backend.remove_location(name)


@route("GET", "/v1/locations/{name}/keys", KeyRing, patience=LONG)
def list_keys(ask: Ask, name: LocationName) -> KeyRing:
    """Who may open a location: no key, and nothing that tells one."""
    return ask.backend.keys(name)


@route("POST", "/v1/locations/{name}/keys", KeyRing, pool="commits", patience=LONG, keyed=False)
def change_keys(ask: Ask, name: LocationName, change: KeyChange) -> KeyRing:
    """Have others open a location, or some no longer. No secret is kept, nor in any answer or log."""
    ask.about = f"location {name}: {len(change.add)} added, {len(change.remove)} removed"
    return ask.backend.change_keys(
        name, add=[one.spec() for one in change.add], remove=change.remove, machine=change.machine,
        force=change.force, opened_with=_given(change.opened_with),
    )  # fmt: skip


@route(
    "POST", "/v1/locations/{name}/keys/rotate", KeyRing, pool="commits", patience=LONG, keyed=False
)
def rotate_keys(ask: Ask, name: LocationName, wanted: Rotation) -> KeyRing:
    """Have what is sent from now on be sealed with a new key; nothing that is there is written again."""
    ask.about = f"location {name}" + (": master key" if wanted.master_for else "")
    return ask.backend.rotate_keys(
        name, master_for=[one.spec() for one in wanted.master_for], opened_with=_given(wanted.opened_with)
    )  # fmt: skip


def _given(secret: OneSecret | None) -> SecretSpec | None:
    return secret.spec() if secret is not None else None


@route("GET", "/v1/uploads", Page[UploadInfo])
def list_uploads(
    ask: Ask, location: Text = "", state: Text = "", cursor: Cursor = "", limit: Limit = 100
) -> Page[UploadInfo]:
    """How far the copies of points are, of the mounts this caller is for."""
    found = [one for one in ask.backend.uploads(location, state) if ask.caller.sees(one.mount)]
    return paged("uploads", found, lambda one: (one.location, one.point), cursor, limit)


@route("POST", "/v1/uploads/retry", Queued)
def retry_uploads(ask: Ask, wanted: Retry) -> Queued:
    """Try again what failed."""
    ask.about = f"location {wanted.location}"
    return Queued(ask.backend.retry_uploads(wanted.location))
