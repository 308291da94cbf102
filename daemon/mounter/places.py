"""Where may be mounted, for whom, and the four things the mounter does there. Standard library only.

A path is allowed when it lies below an allowed root or equals an allowed path; no part of it may be a symbolic link, so
that it means what it says.  A directory is opened, looked at, and mounted over through that descriptor: nobody puts
another in its place between.  What is unmounted is a mount of our type; which mount it is the kernel is asked, not
the file system, whose worker may be stuck.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from daemon.mounter import kernel
from daemon.mounter.wire import Refused, Request


@dataclass(frozen=True)
class Allowed:
    """For whom, and where: ``roots`` with everything below them, and single ``paths``."""

    uid: int
    gid: int
    roots: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def covers(self, path: str) -> bool:
        """Whether this path is allowed, by its words alone."""
        return path in self.paths or any(path.startswith(f"{root}/") for root in self.roots)


def allowed(uid: int, gid: int, roots: list[str], paths: list[str]) -> Allowed:
    """The same with links in roots and paths followed once, now: they are the administrator's. Raises ValueError."""
    if uid <= 0 or gid <= 0:
        raise ValueError("the service's user and group must not be root's")
    for one in [*roots, *paths]:
        if not one.startswith("/") or os.path.realpath(one) == "/":
            raise ValueError(f"{one!r} is not an absolute path below /")
    real = os.path.realpath
    return Allowed(uid, gid, tuple(map(real, roots)), tuple(map(real, paths)))


def from_config(path: str) -> Callable[[], Allowed]:
    """What the configuration says, read for each request. Raises ValueError when others than root can change it."""

    def read() -> Allowed:
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o022:
                    raise ValueError(f"{path} can be changed by others than root")
                config = tomllib.load(file)
            who = pwd.getpwnam(config["user"])
            mounts = config.get("mounts", {}).values()
            return allowed(
                who.pw_uid, who.pw_gid, [config.get("mount_root", "/mnt/holdfast")],
                [one["path"] for one in mounts if one.get("path")],
            )  # fmt: skip
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: no user and mounts in it ({error!r})") from None

    return read


def answer(where: Allowed, request: Request) -> int:
    """Do what is asked; the connection of a mount, else -1. Raises Refused."""
    if not where.covers(request.path):
        raise Refused(
            "permission_denied",
            f"path {request.path!r}: expected one at or below what the configuration names"
            f" ({', '.join([*where.roots, *where.paths])})",
        )
    try:
        if request.verb == "mount":
            return _mount(where, request)
        if request.verb == "readahead":
            with _mounted(request.path) as (_, there):
                kernel.set_readahead(there.device, request.bytes)
        else:
            _unmount(request.path, lazy=request.verb == "unmount-lazy")
    except OSError as error:
        raise _refusal(request, error) from None
    return -1


def _mount(where: Allowed, request: Request) -> int:
    over = kernel.open_plain(request.path, os.O_PATH | os.O_DIRECTORY)
    try:
        there = kernel.mount_of(over)
        if there.type.split(".")[0] == "fuse" or there.path == request.path:
            raise Refused(
                "busy", f"mount point {request.path!r}: found a mount of type {there.type} there"
            )
        target = f"/proc/self/fd/{over}"
        if os.listdir(target):
            raise Refused(
                "invalid_request",
                f"mount point {request.path!r}: expected an empty directory; what is in it would be hidden",
            )
        connection = os.open(kernel.FUSE, os.O_RDWR | os.O_CLOEXEC)
        try:
            words = [
                "rootmode=40000", f"user_id={where.uid}", f"group_id={where.gid}",
                "default_permissions", "allow_other", *(one for one in request.options if one != "ro"),
            ]  # fmt: skip
            kernel.seal(target, sealed=True)
            kernel.mount_fuse(
                connection, target, request.source, ",".join(words), read_only="ro" in request.options
            )  # fmt: skip
        except BaseException:
            os.close(connection)
            raise
        return connection
    finally:
        os.close(over)


@contextmanager
def _mounted(path: str) -> Iterator[tuple[str, kernel.Mounted]]:
    """The mount of ours at a path, and a name for it that stays the same place whatever is renamed above it."""
    folder = kernel.open_plain(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        name = os.path.basename(path)
        top = kernel.open_plain(name, os.O_PATH, folder)
        try:
            there = kernel.mount_of(top)
        finally:
            os.close(top)  # kept open, it would keep the mount busy
        if there.type != kernel.TYPE or there.path != path:
            raise Refused("not_found", f"mount at {path!r}: expected a Holdfast mount, found none")
        yield f"/proc/self/fd/{folder}/{name}", there
    finally:
        os.close(folder)


def _unmount(path: str, *, lazy: bool) -> None:
    with _mounted(path) as (target, _):
        kernel.unmount(target, lazy=lazy)
        if not lazy:  # else another worker may be about to take over
            kernel.seal(target, sealed=False)


def _refusal(request: Request, error: OSError) -> Refused:
    kinds = {
        errno.EBUSY: "busy", errno.ENOENT: "not_found", errno.ENOTDIR: "invalid_request",
        errno.ELOOP: "invalid_request", errno.ENODEV: "unsupported", errno.EACCES: "permission_denied",
        errno.EPERM: "permission_denied",
    }  # fmt: skip
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.ELOOP:
        why = "a symbolic link in it"
    elif error.errno == errno.ENODEV or error.filename == kernel.FUSE:
        why += " (load the fuse module: modprobe fuse)"
    kind = kinds.get(error.errno or 0, "internal")
    return Refused(kind, f"{request.verb} of {request.path!r}: found {why}")
