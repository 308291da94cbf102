"""Attaching to the kernel: a mounted /dev/fuse descriptor, its mount options, and unmounting.

The descriptor comes from ``fusermount3`` over a socket, for root as for everybody else: one way to mount, and the
process that serves needs no privilege of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess

from engine.errors import HoldfastError, NotFound, PermissionDenied, Unsupported

HELPER = "fusermount3"
COMM_FD = "_FUSE_COMMFD"  # the helper's protocol: it sends the descriptor over this socket


def attach(mountpoint: str, options: list[str]) -> int:
    """Mount a FUSE file system and return its /dev/fuse descriptor; nobody serves it yet.

    Raises Unsupported where there is no FUSE, PermissionDenied and HoldfastError with the helper's own words.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        try:
            helper = subprocess.run(
                [HELPER, "-o", ",".join(options), "--", mountpoint],
                env={**os.environ, COMM_FD: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
        except FileNotFoundError:
            raise Unsupported(
                "mounting", expected="the program fusermount3", found="none", do="install fuse3"
            ) from None
        theirs.close()
        if helper.returncode:
            raise _refused(mountpoint, helper.stderr.decode(errors="replace").strip())
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if len(descriptors) != 1:
        raise HoldfastError(
            f"mounting {mountpoint!r}", expected="one descriptor from fusermount3", found="none"
        )
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def _refused(mountpoint: str, said: str) -> HoldfastError:
    said = said.removeprefix("fusermount3: ").splitlines()[-1] if said else "no reason given"
    what = f"mounting {mountpoint!r}"
    if "/dev/fuse" in said or "fuse device not found" in said:
        return Unsupported(what, found=said, do="load the fuse module (modprobe fuse)")
    if "ermission" in said or "not permitted" in said or "allow_other" in said:
        return PermissionDenied(what, found=said)
    if "No such file" in said:
        return NotFound(what, found=said)
    return HoldfastError(what, found=said)


def detach(mountpoint: str, *, lazy: bool) -> str:
    """Unmount; ``lazy`` cuts it off at once even when in use. Returns "" or why it did not work."""
    done = subprocess.run(
        [HELPER, "-uz" if lazy else "-u", "--", mountpoint],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    text = done.stderr.decode(errors="replace").strip()
    return text.removeprefix("fusermount3: ") or f"fusermount3 ended with status {done.returncode}"


def tune(device: tuple[int, int], readahead: int) -> None:
    """Raise the kernel's readahead (bytes) where we may; else leave it.

    The default is 128 KiB: a sequential reader would wait for each of them in turn.  The share of dirty pages stays
    at its default of 1 %: 5 and 30 % wrote no faster (512 MiB in pieces of 8 KiB to 1 MiB, three runs each), and
    what is dirty has to be waited for at each snapshot.
    """
    path = f"/sys/class/bdi/{device[0]}:{device[1]}/read_ahead_kb"
    # Not root, or no sysfs here: slower, not wrong.
    with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
        file.write(str(readahead // 1024))
