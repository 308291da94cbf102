"""The contract over HTTP: one method for each route of the native API."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Self

from daemon.client.link import Link, Query, part
from daemon.contract import (
    Attachment,
    AuditLine,
    Change,
    Committed,
    DrillInfo,
    DrillSpec,
    Durability,
    EntryInfo,
    ExportInfo,
    JobInfo,
    JobKind,
    KeyRing,
    LocationChange,
    LocationInfo,
    LocationSpec,
    ManifestFile,
    MountInfo,
    MountSpec,
    Page,
    PointDetail,
    PointQuery,
    RestoreSpec,
    RetentionInfo,
    Role,
    SecretSpec,
    SessionInfo,
    TokenInfo,
    UploadInfo,
)
from daemon.http import wire
from engine import PointInfo
from engine.errors import HoldfastError

PAGE = 1000  # items the daemon gives at once, at most
LONGEST = 10_000  # items of a page that may be asked for at all


def _shown(limit: int) -> int:
    """A page's length as the daemon takes it. What is no length at all it shall say itself."""
    return PAGE if PAGE < limit <= LONGEST else limit


class Remote:
    """The ``Backend`` of a daemon elsewhere. ``address``: http(s)://HOST:PORT, or ``unix:PATH``.

    Redirections are not followed. What may be sent twice is sent again when its answer was lost. Use as a context
    manager; any thread may.
    """

    def __init__(self, address: str, *, token: str = "", ca: str = "", cert: str = "") -> None:
        self._link = Link(address, token=token, ca=ca, cert=cert)

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all(self, kind: Any, path: str, query: Query | None = None, most: int = 0) -> list[Any]:
        """All items of a list, or the first ``most``."""
        found: list[Any] = []
        cursor = ""
        while True:
            limit = min(PAGE, most - len(found)) if most else PAGE
            page = self._link.get(
                Page[kind], path, {**(query or {}), "limit": limit, "cursor": cursor}
            )
            found += page.items
            cursor = page.cursor
            if not cursor or (most and len(found) >= most):
                return found

    def status(self) -> dict[str, Any]:
        """What answers, and as whom it knows us."""
        found: dict[str, Any] = self._link.get(dict[str, Any], "/v1/status")
        return found

    # --- mounts -------------------------------------------------------------------------------------------

    def mounts(self) -> list[MountInfo]:
        return self._all(MountInfo, "/v1/mounts")

    def mount(self, name: str) -> MountInfo:
        return self._link.get(MountInfo, f"/v1/mounts/{part(name)}")

    def create_mount(self, spec: MountSpec) -> MountInfo:
        return self._link.post(MountInfo, "/v1/mounts", asdict(spec))

    def start_mount(self, name: str) -> MountInfo:
        path = f"/v1/mounts/{part(name)}/start"
        return self._link.post(MountInfo, path, long=True)

    def stop_mount(self, name: str) -> MountInfo:
        path = f"/v1/mounts/{part(name)}/stop"
        return self._link.post(MountInfo, path, long=True)

    def delete_mount(self, name: str) -> JobInfo:
        return self._link.delete(JobInfo, f"/v1/mounts/{part(name)}")

    # --- sessions -----------------------------------------------------------------------------------------

    def begin(
        self, mount: str, *, holder: str = "", label: str = "", lease_s: float = 0
    ) -> SessionInfo:
        path = f"/v1/mounts/{part(mount)}/sessions"
        asked = {"holder": holder, "label": label, "lease_s": lease_s}
        return self._link.post(SessionInfo, path, asked, long=True)

    def session(self, session_id: str) -> SessionInfo:
        return self._link.get(SessionInfo, f"/v1/sessions/{part(session_id)}")

    def sessions(self, mount: str = "", state: str = "") -> list[SessionInfo]:
        return self._all(SessionInfo, "/v1/sessions", {"mount": mount, "state": state})

    def renew(self, session_id: str, lease_s: float = 0) -> SessionInfo:
        path = f"/v1/sessions/{part(session_id)}/renew"
        return self._link.post(SessionInfo, path, {"lease_s": lease_s})

    def attach_log(self, session_id: str, name: str, content: Iterable[bytes]) -> Attachment:
        path = f"/v1/sessions/{part(session_id)}/logs"
        return self._link.upload(Attachment, path, name, content)

    def commit(
        self, session_id: str, *, label: str = "", durability: Durability = "local"
    ) -> Committed:
        path = f"/v1/sessions/{part(session_id)}/commit"
        asked = {"label": label, "durability": durability}
        return self._link.post(Committed, path, asked, long=True)

    def abandon(self, session_id: str) -> SessionInfo:
        path = f"/v1/sessions/{part(session_id)}/abandon"
        return self._link.post(SessionInfo, path, long=True)

    # --- recovery points ----------------------------------------------------------------------------------

    def snapshot(
        self, mount: str, *, label: str = "", durability: Durability = "local", once: str = ""
    ) -> PointDetail:
        path = f"/v1/mounts/{part(mount)}/snapshots"
        asked = {"label": label, "durability": durability}
        return self._link.post(PointDetail, path, asked, long=True, key=once)

    def points(self, query: PointQuery) -> Page[PointInfo]:
        asked: Query = {**asdict(query), "limit": _shown(query.limit)}
        return self._link.get(Page[PointInfo], "/v1/points", asked)

    def point(self, reference: str) -> PointDetail:
        return self._link.get(PointDetail, f"/v1/points/{part(reference)}")

    def keep(self, reference: str, *, kept: bool = True) -> PointDetail:
        path = f"/v1/points/{part(reference)}/keep"
        return self._link.post(PointDetail, path, {"kept": kept}, long=True)

    def lock(self, reference: str, *, until_ns: int = 0, for_s: float = 0) -> PointDetail:
        path = f"/v1/points/{part(reference)}/lock"
        asked = {"until_ns": until_ns, "for_s": for_s}
        return self._link.post(PointDetail, path, asked, long=True)

    def remove_points(self, references: list[str]) -> list[PointInfo]:
        asked = {"points": list(references)}
        return self._link.post(list[PointInfo], "/v1/points/delete", asked)

    def forecast(self, references: list[str]) -> dict[str, int]:
        asked = {"points": list(references)}
        return self._link.post(dict[str, int], "/v1/points/forecast", asked, long=True)

    def entries(
        self, reference: str, path: str = "", *, cursor: str = "", limit: int = 1000
    ) -> Page[EntryInfo]:
        query: Query = {"path": path, "cursor": cursor, "limit": _shown(limit)}
        return self._link.get(Page[EntryInfo], f"/v1/points/{part(reference)}/entries", query)

    def file(
        self, reference: str, path: str, *, offset: int = 0, length: int = -1
    ) -> tuple[EntryInfo, Iterator[bytes]]:
        query: Query = {"path": path, "offset": offset, "length": length}
        headers, pieces = self._link.stream(f"/v1/points/{part(reference)}/file", query)
        return wire.decoded(EntryInfo, headers.get(wire.ABOUT, "").encode("latin-1")), pieces

    def tar(self, reference: str, path: str = "") -> Iterator[bytes]:
        return self._link.stream(f"/v1/points/{part(reference)}/tar", {"path": path})[1]

    def manifest(
        self, reference: str, *, cursor: str = "", limit: int = 1000
    ) -> Page[ManifestFile]:
        query: Query = {"cursor": cursor, "limit": _shown(limit)}
        path = f"/v1/points/{part(reference)}/manifest"
        return self._link.get(Page[ManifestFile], path, query, long=True)

    def attachment(self, attachment_id: int) -> tuple[Attachment, Iterator[bytes]]:
        headers, pieces = self._link.stream(f"/v1/attachments/{attachment_id}")
        return wire.decoded(Attachment, headers.get(wire.ABOUT, "").encode("latin-1")), pieces

    def databases(self, reference: str) -> dict[str, int]:
        return self._link.get(dict[str, int], f"/v1/points/{part(reference)}/databases")

    def files_of(self, reference: str, database: str) -> list[str]:
        return self._all(str, f"/v1/points/{part(reference)}/databases/{part(database)}/files")

    def diff(self, old: str, new: str, *, cursor: str = "", limit: int = 1000) -> Page[Change]:
        query: Query = {"old": old, "new": new, "cursor": cursor, "limit": _shown(limit)}
        return self._link.get(Page[Change], "/v1/diff", query, long=True)

    # --- restores and jobs --------------------------------------------------------------------------------

    def restore(self, spec: RestoreSpec, *, once: str = "") -> JobInfo:
        asked = asdict(spec)
        asked["from"] = asked.pop("location")
        return self._link.post(JobInfo, "/v1/restores", asked, long=True, key=once)

    def delete_restore(self, mount: str, job_id: int) -> None:
        self._link.remove(f"/v1/restores/{job_id}", {"mount": mount})

    def start_job(self, kind: JobKind, options: dict[str, Any]) -> JobInfo:
        return self._link.post(JobInfo, "/v1/jobs", {"kind": kind, "options": options})

    def jobs(
        self, *, kind: str = "", state: str = "", cursor: str = "", limit: int = 100
    ) -> Page[JobInfo]:
        query: Query = {"kind": kind, "state": state, "cursor": cursor, "limit": _shown(limit)}
        return self._link.get(Page[JobInfo], "/v1/jobs", query)

    def job(self, job_id: int) -> JobInfo:
        return self._link.get(JobInfo, f"/v1/jobs/{job_id}")

    def cancel_job(self, job_id: int) -> JobInfo:
        return self._link.delete(JobInfo, f"/v1/jobs/{job_id}")

    # --- copies at storage locations ----------------------------------------------------------------------

    def locations(self) -> list[LocationInfo]:
        return self._all(LocationInfo, "/v1/locations")

    def add_location(self, spec: LocationSpec) -> LocationInfo:
        return self._link.post(LocationInfo, "/v1/locations", asdict(spec), long=True, keyed=False)

    def change_location(self, name: str, change: LocationChange) -> LocationInfo:
        return self._link.patch(
            LocationInfo, f"/v1/locations/{part(name)}", asdict(change), long=True
        )

    def remove_location(self, name: str) -> None:
        self._link.remove(f"/v1/locations/{part(name)}", long=True)

    def keys(self, location: str) -> KeyRing:
        return self._link.get(KeyRing, f"/v1/locations/{part(location)}/keys", long=True)

    def change_keys(
        self, location: str, *, add: Sequence[SecretSpec] = (), remove: Sequence[str] = (), machine: bool = False,
        force: bool = False, opened_with: SecretSpec | None = None,
    ) -> KeyRing:  # fmt: skip
        asked = {
            "add": [asdict(one) for one in add],
            "remove": list(remove),
            "machine": machine,
            "force": force,
        }
        return self._keys(location, "keys", asked, opened_with)

    def rotate_keys(
        self, location: str, *, master_for: Sequence[SecretSpec] = (), opened_with: SecretSpec | None = None
    ) -> KeyRing:  # fmt: skip
        asked = {"master_for": [asdict(one) for one in master_for]}
        return self._keys(location, "keys/rotate", asked, opened_with)

    def _keys(
        self, location: str, path: str, asked: dict[str, Any], opened_with: SecretSpec | None
    ) -> KeyRing:
        if opened_with is not None:
            asked["opened_with"] = asdict(opened_with)
        path = f"/v1/locations/{part(location)}/{path}"
        return self._link.post(KeyRing, path, asked, long=True, keyed=False)

    def uploads(
        self, location: str = "", state: str = "", points: Collection[str] | None = None
    ) -> list[UploadInfo]:
        query: Query = {"location": location, "state": state}
        found: list[UploadInfo] = self._all(UploadInfo, "/v1/uploads", query)
        return found if points is None else [one for one in found if one.point in set(points)]

    def retry_uploads(self, location: str) -> int:
        found = self._link.post(dict[str, int], "/v1/uploads/retry", {"location": location})
        return found["queued"]

    # --- retention and drills -----------------------------------------------------------------------------

    def retention(self) -> list[RetentionInfo]:
        return self._all(RetentionInfo, "/v1/retention")

    def release_retention(self, mount: str) -> RetentionInfo:
        path = f"/v1/mounts/{part(mount)}/retention/release"
        return self._link.post(RetentionInfo, path, long=True)

    def drill(self, spec: DrillSpec) -> JobInfo:
        return self._link.post(JobInfo, "/v1/drills", asdict(spec))

    def drills(self, mount: str = "") -> list[DrillInfo]:
        return self._all(DrillInfo, "/v1/drills", {"mount": mount})

    # --- exports ------------------------------------------------------------------------------------------

    def exports(self, mount: str = "") -> list[ExportInfo]:
        return self._all(ExportInfo, "/v1/exports", {"mount": mount})

    def export(self, wanted: ExportInfo) -> ExportInfo:
        asked = asdict(wanted)
        del asked["state"]
        return self._link.post(ExportInfo, "/v1/exports", asked, long=True)

    def unexport(self, mount: str, client: str) -> None:
        self._link.remove("/v1/exports", {"mount": mount, "client": client}, long=True)

    # --- the store ----------------------------------------------------------------------------------------

    def stats(self, mount: str = "") -> dict[str, int | float]:
        return self._link.get(dict[str, int | float], "/v1/stats", {"mount": mount}, long=True)

    def history(self, since_ns: int = 0, limit: int = 1000) -> list[dict[str, int | float]]:
        return self._all(dict[str, int | float], "/v1/history", {"since_ns": since_ns}, limit)

    def incidents(self) -> list[dict[str, Any]]:
        return self._all(dict[str, Any], "/v1/incidents")

    def reset_incidents(self) -> None:
        self._link.remove("/v1/incidents")

    def config(self) -> dict[str, Any]:
        return self._link.get(dict[str, Any], "/v1/config")

    def reload_config(self) -> list[str]:
        found = self._link.post(dict[str, list[str]], "/v1/config/reload", long=True)
        return found["changed"]

    # --- tokens and audit ---------------------------------------------------------------------------------

    def tokens(self) -> list[TokenInfo]:
        return self._all(TokenInfo, "/v1/tokens")

    def create_token(
        self, role: Role, mounts: list[str], *, label: str = "", lifetime_s: float = 0
    ) -> tuple[TokenInfo, str]:
        asked = {"role": role, "mounts": list(mounts), "label": label, "lifetime_s": lifetime_s}
        found = self._link.post(dict[str, Any], "/v1/tokens", asked, keyed=False)
        try:
            return wire.revive(TokenInfo, found["token"]), str(found["secret"])
        except (KeyError, TypeError) as error:
            raise HoldfastError("new token", found=f"an answer that is none: {error}") from None

    def revoke_token(self, token_id: str) -> TokenInfo:
        return self._link.delete(TokenInfo, f"/v1/tokens/{part(token_id)}")

    def audit(self, *, after: int = 0, limit: int = 1000) -> list[AuditLine]:
        return self._all(AuditLine, "/v1/audit", {"after": after}, limit)
