"""The rigs of real programs."""

from __future__ import annotations

from tools.torture.programs import cases, disks, postgres, received, repositories, sqlite, trees
from tools.torture.programs.stage import Stage
from tools.torture.rig import Job, Rig

COPYING = (*trees.CASES, *repositories.CASES, *disks.CASES)
STORING = (*disks.KILLED, *sqlite.CASES, *postgres.CASES, *received.CASES)
# Planted bug -> the case that is to find it: the others need not be run for that.
AIMS = {
    "holes-filled": "cp",
    "attributes-left-out-of-points": "cp",
    "hard-links-apart": "cpio",
    "times-in-microseconds": "cp",
    "links-without-attributes": "rsync-inplace",
    "default-lists-ignored": "acl-inherited",
}
DURABLE_AIMS = {
    "fsync-acknowledged-early": "sqlite-wal-killed",
    "sync-leaves-the-index": "dd-dsync-killed",
    "directory-sync-forgotten": "sqlite-delete-killed",
}


def programs(job: Job) -> None:
    """Every program on one mount, side by side with recovery points."""
    chosen = cases.perform(job, COPYING, AIMS)
    with Stage(job, "p") as stage:
        cases.play(job, stage, chosen)


def databases(job: Job) -> None:
    """Programs that promise durability; their worker is killed, and each has what it acknowledged."""
    chosen = cases.perform(job, STORING, DURABLE_AIMS)
    with Stage(job, "d") as stage:
        cases.play(job, stage, chosen)


RIGS = (
    Rig(
        "programs",
        "rsync, tar, cp, cpio, zip, git, dd, qemu-img, ext4 on a loop device: live, in points, after a remount",
        programs,
        ("fuse",),
        tuple(AIMS),
    ),
    Rig(
        "programs-databases",
        "sqlite, PostgreSQL, pg_receivewal, dd dsync: killed, cut, and all that was acknowledged is there",
        databases,
        ("fuse",),
        tuple(DURABLE_AIMS),
    ),
)
