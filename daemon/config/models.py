"""What the configuration says: one frozen model for each table of the file, with the defaults.

Sizes are bytes, durations seconds, schedules text for ``Schedule.parse``, networks and addresses text for
``ipaddress``.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from daemon.config.schedule import ALLOWED, Schedule
from daemon.config.values import (
    Address,
    Bind,
    Command,
    Count,
    Ids,
    Listen,
    Name,
    Network,
    OptionalPath,
    Path,
    Port,
    Seconds,
    Size,
    Some,
    SomeSeconds,
    Source,
    User,
    bind,
    ids,
    inside,
)
from daemon.contract import HookEvent
from engine.errors import InvalidRequest
from engine.registry import valid_name

DAY = 86400.0


def _schedule(text: str) -> str:
    try:
        return Schedule.parse(text).text
    except InvalidRequest:
        raise ValueError(f"a schedule: {ALLOWED}") from None


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", text):
        raise ValueError("the name of a host without its port, as 'backup.example.org'")
    return text.lower()


HostName = Annotated[str, AfterValidator(_host)]
Price = Annotated[float, Field(ge=0, le=1e9)]
Part = Annotated[float, Field(ge=0, le=1)]
Times = Annotated[str, AfterValidator(_schedule)]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, hide_input_in_errors=True
    )


class Api(_Table):
    """The native API. ``insecure_plain``: plain HTTP beyond this machine is meant; ``names``: what clients call this
    machine, besides its own name and addresses."""

    listen: list[Listen] = ["127.0.0.1:9091"]
    socket: OptionalPath = ""
    names: list[HostName] = []
    tls_cert: OptionalPath = ""
    tls_key: OptionalPath = ""
    client_ca: OptionalPath = ""
    insecure_plain: bool = False
    max_body: Size = 1 << 20
    max_upload: Size = 64 << 20
    request_limit_s: SomeSeconds = 60.0
    failures_per_minute: Some = 20

    def binds(self) -> list[Bind]:
        """``listen``, taken apart."""
        return [bind(one) for one in self.listen]


class Phoenix(_Table):
    """The Phoenix-compatible API: no authentication of its own, so clients are allowed by address."""

    enabled: bool = True
    listen: list[Listen] = ["127.0.0.1:9090"]
    allow: list[Network] = ["127.0.0.0/8", "::1/128"]
    token_required: bool = False
    max_pending: Some = 5

    def binds(self) -> list[Bind]:
        """``listen``, taken apart; none when it is not enabled."""
        return [bind(one) for one in self.listen] if self.enabled else []


class Sessions(_Table):
    """Write windows."""

    lease_s: SomeSeconds = DAY


class Maintenance(_Table):
    """What is done by itself. ``scrub_rate`` is in bytes a second, 0 for as fast as it goes."""

    collect: Times = "every 24h"
    scrub: Times = "every 24h"
    scrub_rate: Size = 50 << 20
    scrub_every: SomeSeconds = 30 * DAY
    scrub_for: SomeSeconds = DAY / 4


class Prices(_Table):
    """Of 1,000 requests that write or list, of 1,000 that read, of a GB fetched, of a GB kept for a month."""

    writes: Price = 0.005
    reads: Price = 0.0004
    egress: Price = 0.09
    month: Price = 0.023


class Uploads(_Table):
    """Copies at storage locations. ``wait_s``: how long who asks for durability "remote" waits; ``late_s``: a point
    that is older and has not come to a location is an incident; ``reclaim…``: when what no point needs is freed there,
    how long at a time, and how long packs stay that are gone; ``prices``: by location."""

    wait_s: Annotated[SomeSeconds, Field(le=3000)] = 900.0  # a request may take an hour
    late_s: SomeSeconds = DAY
    reclaim: Times = "every 7d"
    reclaim_for: SomeSeconds = DAY / 24
    reclaim_grace: Seconds = DAY
    prices: dict[Name, Prices] = Field(default_factory=dict)


class Drills(_Table):
    """Restores to see whether points can be restored. ``into``: where their scratch directories are made."""

    into: OptionalPath = ""


class Log(_Table):
    """Records of the daemon's work."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "plain", "journal"] = "auto"


class Nfs(_Table):
    """Who serves exports."""

    server: Literal["ganesha", "kernel", "off"] = "off"
    port: Port = 2049
    bind: Address = "127.0.0.1"
    exports_d: Path = "/etc/exports.d"


class Keep(_Table):
    """Points of a mount that are kept: the ``last`` so many and those made ``within_s``; 0 and 0 keep all."""

    last: Count = 0
    within_s: Seconds = 0.0


class Freeze(_Table):
    """When retention of a mount stops: at a point that is not like the ``points`` before it, once there are
    ``at_least`` so many. It holds less than a part of the usual bytes or files, or of its bytes a part
    (``stored_part``) is new and takes more than ``stored_above`` of its size, which it did not before; 0 for never."""

    points: Some = 10
    at_least: Some = 3
    bytes_below: Part = 0.5
    files_below: Part = 0.5
    stored_above: Part = 0.9
    stored_part: Part = 0.2


class Hook(_Table):
    """A command run at an event, without a shell."""

    command: Command
    timeout_s: SomeSeconds = 60.0


class Export(_Table):
    """A mount served over NFS to the addresses of ``client``."""

    client: Network
    read_only: bool = False
    squash: Literal["root", "all", "none"] = "root"


class Mount(_Table):
    """How a mount is served and kept. ``quota`` and ``max_files``: 0 means no limit; ``lock_for``: for how long
    each new point is locked; ``unprotected_s``: longest time without a new point, 0 for any; ``drill``: when one of its
    points is restored to see whether it can be, ``drill_from``: "local" or a storage location."""

    path: OptionalPath = ""
    start: bool = True
    quota: Size = 0
    max_files: Count = 0
    chunking: Literal["auto", "fixed", "cdc"] = "auto"
    write_through: bool = False
    root_squash: bool = False
    squash_to: Ids = "65534:65534"
    snapshots: Times = ""
    keep: Keep = Keep()
    lock_for: Seconds = 0.0
    freeze: Freeze = Freeze()
    unprotected_s: Seconds = 0.0
    drill: Times = ""
    drill_from: Name = "local"
    open_files: Literal["label", "refuse"] = "label"
    outside_sessions: Literal["write", "read-only"] = "write"
    hooks: dict[HookEvent, Hook] = Field(default_factory=dict)
    exports: list[Export] = Field(default_factory=list)

    def squash_ids(self) -> tuple[int, int]:
        """User and group root acts as, where ``root_squash`` is set."""
        return ids(self.squash_to)


class Config(_Table):
    """The whole file. ``user``: whom to become when started by root, "" for nobody else; ``store_key`` and
    ``store_passphrase``: where those of a sealed store are."""

    store: Path
    store_key: Source = ""
    store_passphrase: Source = ""
    user: User = ""
    mount_root: Path = "/mnt/holdfast"
    run_dir: Path = "/run/holdfast"
    api: Api = Api()
    phoenix: Phoenix = Phoenix()
    sessions: Sessions = Sessions()
    maintenance: Maintenance = Maintenance()
    uploads: Uploads = Uploads()
    drills: Drills = Drills()
    log: Log = Log()
    nfs: Nfs = Nfs()
    restore_targets: dict[Name, Path] = Field(default_factory=dict)
    mounts: dict[Name, Mount] = Field(default_factory=dict)

    def mount(self, name: str) -> Mount:
        """What is said of a mount, the defaults for one that is not named. Raises InvalidRequest for no name."""
        return self.mounts.get(valid_name(name)) or Mount()

    def mount_path(self, name: str) -> str:
        """Where a mount is mounted. Raises InvalidRequest for no name, and where it would hide the store."""
        path = self.mount(name).path or f"{self.mount_root.rstrip('/')}/{name}"
        if inside(self.store, path):
            raise InvalidRequest(
                f"mount {name}", expected=f"a path that does not hide the store {self.store}", found=path,
                do=f"write another as mounts.{name}.path",
            )  # fmt: skip
        return path

    def limits(self, name: str) -> tuple[int | None, int | None]:
        """Quota and largest number of files as the file says them; None where it says nothing: they stay."""
        mount = self.mount(name)
        said = mount.model_fields_set
        return (
            mount.quota if "quota" in said else None,
            mount.max_files if "max_files" in said else None,
        )

    def api_socket(self) -> str:
        """Where the native API's Unix socket is."""
        return self.api.socket or f"{self.run_dir.rstrip('/')}/api.sock"
