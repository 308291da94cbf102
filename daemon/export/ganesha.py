"""NFS-Ganesha's configuration, as text.

- Handles name the export by its number and the file system by its identity: both are ours and stay (``plan``).
- Attributes are asked for each time: the same mount is used on this host, and a file whose old size is believed is read
  short.
- Descriptors of files are not kept for long: a file that Ganesha holds open is "open for writing" when a recovery
  point is made.
- Whoever is not a client of an export has no access at all, not even to its attributes.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from daemon.export.plan import NOBODY, Client, Planned

PLUGIN = "libfsalvfs.so"
_PLACES = ("/usr/lib/*/ganesha", "/usr/lib64/ganesha", "/usr/lib/ganesha")  # of Debian, of others
MOUNT_PORT = 20048  # the one that is registered for it, beside NFS's own 2049
FDS_KEPT = 2  # s between turns that close descriptors nobody used meanwhile
_SQUASH = {"root": "Root_Squash", "all": "All_Squash", "none": "No_Root_Squash"}


def found_plugins() -> str:
    """The directory of Ganesha's parts for file systems; "" when that for mounted ones is not installed."""
    for place in _PLACES:
        for folder in sorted(glob.glob(place)):
            if os.path.exists(os.path.join(folder, PLUGIN)):
                return folder
    return ""


@dataclass(frozen=True)
class Settings:
    """How the server listens. ``grace_s``: how long clients of version 4 may reclaim after it started; shorter when
    all have."""

    port: int = 2049
    bind: str = "127.0.0.1"
    grace_s: int = 15
    plugins: str = field(default_factory=found_plugins)

    @property
    def mount_port(self) -> int:
        """Where NFSv3 clients ask for the root's handle."""
        return MOUNT_PORT if self.port == 2049 else self.port + 1


def render(settings: Settings, recovery: str, exports: Sequence[tuple[int, Planned]]) -> str:
    """The file. ``recovery``: directory for what clients of version 4 reclaim; ``exports``: each with its number."""
    return "\n".join([_core(settings, recovery), *(_export(*one) for one in exports)])


def _core(settings: Settings, recovery: str) -> str:
    return f"""\
# Written by Holdfast; changes are overwritten.
NFS_CORE_PARAM {{
    NFS_Port = {settings.port};
    MNT_Port = {settings.mount_port};
    Bind_addr = {settings.bind};
    Protocols = 3, 4;
    Enable_NLM = false;
    Enable_RQUOTA = false;
    Enable_UDP = false;
    mount_path_pseudo = true;
    Plugins_Dir = "{settings.plugins}";
}}
NFSv4 {{
    Minor_Versions = 0, 1, 2;
    Lease_Lifetime = {settings.grace_s};
    Grace_Period = {settings.grace_s};
    RecoveryBackend = fs;
    RecoveryRoot = "{recovery}";
    Only_Numeric_Owners = true;
}}
NFS_KRB5 {{ Active_krb5 = false; }}
MDCACHE {{
    LRU_Run_Interval = {FDS_KEPT};
    FD_LWMark_Percent = 0;
    FD_HWMark_Percent = 1;
    Reaper_Work_Per_Lane = 1000;
}}
EXPORT_DEFAULTS {{
    Access_Type = None;
    SecType = sys;
    Protocols = 3, 4;
    Transports = TCP;
    Anonymous_Uid = {NOBODY};
    Anonymous_Gid = {NOBODY};
    Attr_Expiration_Time = 0;
}}
LOG {{ Default_Log_Level = EVENT; }}
"""


def _export(number: int, planned: Planned) -> str:
    clients = "\n".join(_client(one) for one in planned.clients)
    return f"""\
EXPORT {{
    Export_Id = {number};
    Path = "{planned.path}";
    Pseudo = "{planned.path}";
    Filesystem_Id = {planned.fsid >> 32}.{planned.fsid & 0xFFFFFFFF};
    FSAL {{ Name = VFS; }}
{clients}
}}
"""


def _client(client: Client) -> str:
    access = "RO" if client.read_only else "RW"
    return f"    CLIENT {{ Clients = {client}; Access_Type = {access}; Squash = {_SQUASH[client.squash]}; }}"


def identities(exports: Sequence[Planned]) -> str:
    """The file that the preloaded library reads: the identity of the file system at each path."""
    return "".join(f"{one.fsid:016x} {one.path}\n" for one in exports)
