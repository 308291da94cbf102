"""Settings of one worker, each with its reason. They travel to a background worker as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from engine.errors import InvalidRequest
from fsmount.spin import SPIN_MAX

FUSE_CONF = "/etc/fuse.conf"
NOBODY = 65534  # user and group that own nothing, by custom
ID_MAX = 2**32 - 2  # the largest user or group there can be


@dataclass(frozen=True)
class Options:
    """How to mount. Times are seconds, sizes bytes."""

    allow_other: bool | None = None
    """Let other users in, under the usual permission checks; None: when this user may grant that."""
    writeback: bool = True
    """Let the kernel gather writes: many times faster for small ones; a snapshot asks for what it holds."""
    spin: float = SPIN_MAX
    """Longest time to poll for the next request before sleeping; 0 never polls."""
    readahead: int = 1 << 20
    """What the kernel reads ahead, when we may set it (root): one largest request."""
    drain_limit: float = 20.0
    """How long a worker told to stop goes on serving files that are still open after cutting the mount off."""
    freeze_limit: float = 30.0
    """Longest freeze; a client that dies or forgets must not hold writers up for ever."""
    root_squash: bool = False
    """Root's requests act as a user who owns nothing; no page is kept back by the kernel, no name remembered."""
    squash_uid: int = NOBODY
    squash_gid: int = NOBODY
    fenced: bool = False
    """Refuse every change from the first moment, until told otherwise by its control socket."""
    stream: bool = False
    """Of a recovery point: fetch ahead what is at a storage location only, as far as the cache has room."""
    cache: int | None = None
    """Bytes of the cache for what is at a storage location only, as far as there is room; None: as is usual."""
    log_level: str = "INFO"
    fuse_fd: int = -1
    """A mounted connection that somebody else made, and will unmount; -1: this worker mounts, and unmounts."""

    def to_json(self) -> str:
        """All settings as one JSON object."""
        return json.dumps(asdict(self))

    def served(self) -> dict[str, object]:
        """What users of the mount notice: a worker that has it otherwise is not the one that is wanted."""
        return {
            "writeback": self.writeback,
            "squash": [self.squash_uid, self.squash_gid] if self.root_squash else [],
        }

    @staticmethod
    def from_json(text: str) -> Options:
        """The inverse of ``to_json``. Raises InvalidRequest."""
        try:
            return Options(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise InvalidRequest("mount options", found=str(error)) from None


def check(options: Options) -> None:
    """Raises InvalidRequest for what makes no sense together."""
    if not options.root_squash:
        return
    if not all(0 < one <= ID_MAX for one in (options.squash_uid, options.squash_gid)):
        raise InvalidRequest(
            "root squash", expected=f"a user and a group from 1 to {ID_MAX}",
            found=f"{options.squash_uid}:{options.squash_gid}", do="choose others than root's",
        )  # fmt: skip
    if not allows_other(options):
        raise InvalidRequest(
            "root squash", expected="a mount that others may use", found="one for its owner alone",
            do="mount as root, or set user_allow_other in /etc/fuse.conf",
        )  # fmt: skip


def allows_other(options: Options) -> bool:
    """Whether other users are let in; who mounts for us always lets them."""
    if options.fuse_fd >= 0:
        return True
    return may_allow_other() if options.allow_other is None else options.allow_other


def may_allow_other(conf: str = FUSE_CONF) -> bool:
    """Whether this user may let others into a mount: root, or ``user_allow_other`` in fuse.conf."""
    if os.geteuid() == 0:
        return True
    try:
        with open(conf, encoding="utf-8", errors="replace") as file:
            return any(line.strip() == "user_allow_other" for line in file)
    except OSError:
        return False


def mount_options(options: Options, source: str, *, read_only: bool) -> list[str]:
    """The option list for the kernel. ``source`` is shown by mount(8) and df(1)."""
    escaped = source.replace("\\", "\\\\").replace(",", "\\,")
    words = ["default_permissions", "nosuid", "nodev", "subtype=holdfast", f"fsname={escaped}"]
    if allows_other(options):
        words.append("allow_other")
    if read_only:
        words.append("ro")
    return words
