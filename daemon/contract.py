"""What can be asked of a Holdfast, wherever it is asked: the values, and the ``Backend`` that answers.

``service.Service`` answers in this process, ``client.Remote`` over HTTP; the HTTP layer asks the first, the
command line either.  Everything here is plain data: frozen, fit for JSON by ``dataclasses.asdict``.  Times are
nanoseconds since the epoch, sizes bytes, paths inside points are text with bytes that are not UTF-8 as surrogate
escapes.  Every method is synchronous, may block, may be called from any thread, and raises the errors of the engine's
table only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from engine import PointInfo

T = TypeVar("T")

MountState = Literal["stopped", "starting", "serving", "draining", "failed", "deleting"]
SessionState = Literal["open", "committing", "committed", "abandoned"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
JobKind = Literal["collect", "scrub", "check", "restore", "delete-mount", "upload", "drill"]
UploadState = Literal["queued", "uploading", "verified", "failed"]
Durability = Literal["local", "remote"]
"""When a commit or a snapshot answers: when the point is durable here, or when every location that it must go to has
it verified as well."""
HookEvent = Literal[
    "before_begin", "after_begin", "before_commit", "after_commit", "after_restore", "verify"
]  # fmt: skip
Role = Literal["admin", "operator", "writer", "restorer", "auditor"]
Consistency = Literal["consistent", "crash-consistent"]

MANIFEST_INLINE = 1_000  # files in the answer to a commit; the others are asked for


@dataclass(frozen=True)
class Page(Generic[T]):
    """Part of a list. ``cursor``: where the next part begins; "" after the last."""

    items: list[T]
    cursor: str = ""


@dataclass(frozen=True)
class MountSpec:
    """A mount to be made; 0 means no limit. ``path``: where it is mounted, "" below the configured root."""

    name: str
    quota: int = 0
    max_files: int = 0
    chunking: str = "auto"
    path: str = ""


@dataclass(frozen=True)
class MountInfo:
    """A mount and how it is served. ``session``: id of the one that is open, "" for none; ``pending``: points not yet
    verified at every location that they must go to, 0 without one; ``frozen``: why its retention deletes nothing, ""
    when it does; ``recovery_s``: what the last drill that went well took, ``drilled_ns``: when it ended."""

    name: str
    chunking: str
    quota: int
    max_files: int
    points: int
    state: MountState
    path: str = ""
    pid: int = 0
    session: str = ""
    exports: list[str] = field(default_factory=list)
    pending: int = 0
    frozen: str = ""
    recovery_s: float = 0.0
    drilled_ns: int = 0


@dataclass(frozen=True)
class RetentionInfo:
    """What retention does with a mount. ``frozen``: why it deletes nothing, "" when it does; ``since_ns``, ``point``:
    when that was found, and of which point."""

    mount: str
    last: int
    within_s: float
    frozen: str = ""
    since_ns: int = 0
    point: str = ""


@dataclass(frozen=True)
class Attachment:
    """Text kept with a session and its recovery point: a log that was sent, or what a hook printed."""

    id: int
    kind: Literal["log", "hook"]
    name: str
    size: int
    time_ns: int
    session: str = ""
    point: str = ""


@dataclass(frozen=True)
class SessionInfo:
    """A write window of a mount. ``expires_ns``: end of its lease; ``stale``: that has passed and it is still open.

    ``holder``: who began it, as they call themselves; ``point``: what its commit made.
    """

    id: str
    mount: str
    state: SessionState
    begun_ns: int
    expires_ns: int
    stale: bool = False
    holder: str = ""
    label: str = ""
    point: str = ""
    ended_ns: int = 0


@dataclass(frozen=True)
class ManifestFile:
    """A regular file of a point. ``root``: BLAKE3 id (hex) of the node its content hangs from; equal roots, equal
    content. Small files may have no node: then it is the id of their extents."""

    path: str
    size: int
    root: str


@dataclass(frozen=True)
class PointDetail:
    """A recovery point with what is kept beside it. ``open_files``: what was open for writing, the first of them;
    ``copies``: how far its copy is, by location."""

    point: PointInfo
    session: str = ""
    consistency: Consistency = "consistent"
    open_files: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    kept: bool = False
    copies: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Committed:
    """What a commit made. ``manifest``: files, the first ``MANIFEST_INLINE``; ``more``: there are others."""

    session: SessionInfo
    detail: PointDetail
    manifest: list[ManifestFile]
    more: bool


@dataclass(frozen=True)
class EntryInfo:
    """A name in a point's directory. ``type``: file, directory, link, fifo, socket, block, char."""

    name: str
    type: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: str = ""


@dataclass(frozen=True)
class Change:
    """A difference between two points. ``detail``: what changed."""

    kind: Literal["added", "removed", "changed"]
    path: str
    detail: str = ""


@dataclass(frozen=True)
class JobInfo:
    """Work in the background. ``options`` as asked, ``progress`` {stage, done, total, unit, rate, eta_s}: ``rate`` in
    units a second, ``eta_s`` until the stage ends, null while nobody can tell; ``result`` by kind, ``error`` {kind,
    message} of the error table, all empty when there is none."""

    id: int
    kind: JobKind
    state: JobState
    created_ns: int
    started_ns: int = 0
    ended_ns: int = 0
    mount: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RestoreSpec:
    """A restore to be made. ``place``: "mount" shows it read-only under ``restores/JOBID`` of the mount at no cost;
    else the name of a configured target, below which a directory ``JOBID`` is filled. Of the point all, or one of:
    what is at ``path``; what is at ``paths``, each below its own directories; the files of a ``database``, as the logs
    of the point name them. ``location``: a storage location to read it from, "" for wherever its bytes are."""

    point: str
    path: str = ""
    place: str = "mount"
    paths: list[str] = field(default_factory=list)
    database: str = ""
    location: str = ""


@dataclass(frozen=True)
class DrillSpec:
    """A drill to be made, of a point, or of one that is drawn from a mount's; with neither, of the mount drilled
    longest ago. ``source``: "local" or a storage location; ``into``: name of a restore target, "" for the usual
    place."""

    mount: str = ""
    point: str = ""
    source: str = "local"
    into: str = ""
    keep: bool = False


@dataclass(frozen=True)
class DrillInfo:
    """A drill that has ended. ``error``: why it failed, "" when it went well; ``restore_s``, ``verify_s``: what
    restoring and the mount's hook took; ``hook``: whether there was one; ``output``: the attachment with what it
    printed, 0 for none; ``path``: where what was restored is kept, "" when it is gone."""

    job: int
    mount: str
    point: str
    source: str
    begun_ns: int
    ended_ns: int
    error: str = ""
    files: int = 0
    bytes: int = 0
    restore_s: float = 0.0
    verify_s: float = 0.0
    hook: bool = False
    output: int = 0
    path: str = ""


@dataclass(frozen=True)
class ExportInfo:
    """A mount served over NFS to the addresses of ``client`` (CIDR). ``state``: active, pending, or failed: why."""

    mount: str
    client: str
    read_only: bool = False
    squash: Literal["root", "all", "none"] = "root"
    state: str = ""


@dataclass(frozen=True)
class LocationSpec:
    """A storage location to be made. The passphrase and each of the keys, as printed, open it alone; they are told to
    nobody. ``mounts``: whose points go there, empty for all; ``verify``: part of what is sent that is read back;
    ``local``: what becomes of the bytes here once they are verified there; ``bandwidth``, ``read_bandwidth``: limits of
    bytes a second sent and fetched, as ``08:00-18:00=5M,20M``; ``object_lock``: the server retains what locked points
    need."""

    name: str
    url: str
    passphrase: str = field(default="", repr=False)
    keys: list[str] = field(default_factory=list, repr=False)
    credentials: str = "environment"
    sealed: bool = True
    mounts: list[str] = field(default_factory=list)
    verify: float = 0.02
    local: Literal["keep", "drop"] = "keep"
    bandwidth: str = ""
    read_bandwidth: str = ""
    object_lock: bool = False


@dataclass(frozen=True)
class LocationChange:
    """What of a storage location is to be another, as in ``LocationSpec``; None: as it is."""

    mounts: list[str] | None = None
    verify: float | None = None
    local: Literal["keep", "drop"] | None = None
    credentials: str | None = None
    bandwidth: str | None = None
    read_bandwidth: str | None = None
    object_lock: bool | None = None


@dataclass(frozen=True)
class LocationInfo:
    """A storage location. ``paused``: why nothing is sent there, "" when it is; ``queued`` to ``failed``: points by how
    far their copy is; ``requests``: asked of it so far, by kind as a server bills them, with bytes each way;
    ``locking``: points there whose lock it has not been told of in full."""

    name: str
    url: str
    sealed: bool
    mounts: list[str]
    verify: float
    local: str
    paused: str = ""
    queued: int = 0
    uploading: int = 0
    verified: int = 0
    failed: int = 0
    bandwidth: str = ""
    read_bandwidth: str = ""
    requests: dict[str, int] = field(default_factory=dict)
    object_lock: bool = False
    locking: int = 0


@dataclass(frozen=True)
class SecretSpec:
    """What opens a location: a passphrase, a key as printed (also of a recipient), or with both what needs both. It is
    told to nobody."""

    passphrase: str = field(default="", repr=False)
    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class KeySlot:
    """A way into a location. ``kind``: passphrase, key, both or recipient; ``own``: this store's own key."""

    id: str
    kind: str
    made_ns: int
    own: bool = False


@dataclass(frozen=True)
class KeyRing:
    """Who may open a location. ``ring``: its number; ``epochs``: of data keys, the last is in use; ``fingerprint``: to
    be compared by who opens it with a recipient's key; ``left``: why older rings are still there, "" when none is."""

    location: str
    ring: int
    slots: list[KeySlot]
    epochs: list[int]
    fingerprint: str
    left: str = ""


@dataclass(frozen=True)
class UploadInfo:
    """How far the copy of a point at a location is. ``since_ns``: in this state; ``sent``: bytes; ``reason``: why it
    failed or is tried again; ``requests``: asked of the location to send it."""

    location: str
    point: str
    mount: str
    state: UploadState
    since_ns: int
    tries: int = 0
    sent: int = 0
    reason: str = ""
    requests: int = 0


@dataclass(frozen=True)
class TokenInfo:
    """A token without its secret. ``mounts``: those it is for, empty for all; 0 for never."""

    id: str
    role: Role
    mounts: list[str]
    label: str
    created_ns: int
    expires_ns: int = 0
    revoked_ns: int = 0
    used_ns: int = 0


@dataclass(frozen=True)
class AuditLine:
    """One administrative act. ``result``: ok, or the slug of the error. ``chain``: hash over this and all before."""

    number: int
    time_ns: int
    who: str
    origin: str
    act: str
    about: str
    result: str
    chain: str


@dataclass(frozen=True)
class PointQuery:
    """Which points: all that agree with everything given."""

    mount: str = ""
    label: str = ""
    since_ns: int = 0
    until_ns: int = 0
    cursor: str = ""
    limit: int = 100


class Backend(Protocol):
    """A Holdfast. See the module for threads and errors; one that has no daemon raises Unsupported for exports and
    jobs that outlive the call. ``once``: a name for this one wish, good for a day: asked again by it, also after an
    error or a crash, what was made the first time is the answer."""

    # mounts
    def mounts(self) -> list[MountInfo]: ...
    def mount(self, name: str) -> MountInfo: ...
    def create_mount(self, spec: MountSpec) -> MountInfo: ...
    def start_mount(self, name: str) -> MountInfo: ...
    def stop_mount(self, name: str) -> MountInfo: ...
    def delete_mount(self, name: str) -> JobInfo: ...

    # sessions
    def begin(
        self, mount: str, *, holder: str = "", label: str = "", lease_s: float = 0
    ) -> SessionInfo: ...
    def session(self, session_id: str) -> SessionInfo: ...
    def sessions(self, mount: str = "", state: str = "") -> list[SessionInfo]: ...
    def renew(self, session_id: str, lease_s: float = 0) -> SessionInfo: ...
    def attach_log(self, session_id: str, name: str, content: Iterable[bytes]) -> Attachment: ...
    def commit(
        self, session_id: str, *, label: str = "", durability: Durability = "local"
    ) -> Committed: ...
    def abandon(self, session_id: str) -> SessionInfo: ...

    # recovery points
    def snapshot(
        self, mount: str, *, label: str = "", durability: Durability = "local", once: str = ""
    ) -> PointDetail: ...
    def points(self, query: PointQuery) -> Page[PointInfo]: ...
    def point(self, reference: str) -> PointDetail: ...
    def keep(self, reference: str, *, kept: bool = True) -> PointDetail: ...
    def lock(self, reference: str, *, until_ns: int = 0, for_s: float = 0) -> PointDetail: ...
    def remove_points(self, references: list[str]) -> list[PointInfo]: ...
    def forecast(self, references: list[str]) -> dict[str, int]: ...
    def entries(
        self, reference: str, path: str = "", *, cursor: str = "", limit: int = 1000
    ) -> Page[EntryInfo]: ...
    def file(
        self, reference: str, path: str, *, offset: int = 0, length: int = -1
    ) -> tuple[EntryInfo, Iterator[bytes]]: ...
    def tar(self, reference: str, path: str = "") -> Iterator[bytes]: ...
    def manifest(
        self, reference: str, *, cursor: str = "", limit: int = 1000
    ) -> Page[ManifestFile]: ...
    def attachment(self, attachment_id: int) -> tuple[Attachment, Iterator[bytes]]: ...
    def databases(self, reference: str) -> dict[str, int]: ...
    def files_of(self, reference: str, database: str) -> list[str]: ...
    def diff(self, old: str, new: str, *, cursor: str = "", limit: int = 1000) -> Page[Change]: ...

    # restores and jobs
    def restore(self, spec: RestoreSpec, *, once: str = "") -> JobInfo: ...
    def delete_restore(self, mount: str, job_id: int) -> None: ...
    def start_job(self, kind: JobKind, options: dict[str, Any]) -> JobInfo: ...
    def jobs(
        self, *, kind: str = "", state: str = "", cursor: str = "", limit: int = 100
    ) -> Page[JobInfo]: ...
    def job(self, job_id: int) -> JobInfo: ...
    def cancel_job(self, job_id: int) -> JobInfo: ...

    # copies at storage locations
    def locations(self) -> list[LocationInfo]: ...
    def add_location(self, spec: LocationSpec) -> LocationInfo: ...
    def change_location(self, name: str, change: LocationChange) -> LocationInfo: ...
    def remove_location(self, name: str) -> None: ...
    def keys(self, location: str) -> KeyRing: ...
    def change_keys(
        self, location: str, *, add: Sequence[SecretSpec] = (), remove: Sequence[str] = (), machine: bool = False,
        force: bool = False, opened_with: SecretSpec | None = None,
    ) -> KeyRing: ...  # fmt: skip
    def rotate_keys(
        self, location: str, *, master_for: Sequence[SecretSpec] = (), opened_with: SecretSpec | None = None
    ) -> KeyRing: ...  # fmt: skip
    def uploads(
        self, location: str = "", state: str = "", points: Collection[str] | None = None
    ) -> list[UploadInfo]: ...
    def retry_uploads(self, location: str) -> int: ...

    # retention and drills
    def retention(self) -> list[RetentionInfo]: ...
    def release_retention(self, mount: str) -> RetentionInfo: ...
    def drill(self, spec: DrillSpec) -> JobInfo: ...
    def drills(self, mount: str = "") -> list[DrillInfo]: ...

    # exports
    def exports(self, mount: str = "") -> list[ExportInfo]: ...
    def export(self, wanted: ExportInfo) -> ExportInfo: ...
    def unexport(self, mount: str, client: str) -> None: ...

    # the store
    def stats(self, mount: str = "") -> dict[str, int | float]: ...
    def history(self, since_ns: int = 0, limit: int = 1000) -> list[dict[str, int | float]]: ...
    def incidents(self) -> list[dict[str, Any]]: ...
    def reset_incidents(self) -> None: ...
    def config(self) -> dict[str, Any]: ...
    def reload_config(self) -> list[str]: ...

    # tokens and audit
    def tokens(self) -> list[TokenInfo]: ...
    def create_token(
        self, role: Role, mounts: list[str], *, label: str = "", lifetime_s: float = 0
    ) -> tuple[TokenInfo, str]: ...
    def revoke_token(self, token_id: str) -> TokenInfo: ...
    def audit(self, *, after: int = 0, limit: int = 1000) -> list[AuditLine]: ...
