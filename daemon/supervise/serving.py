"""One worker, from outside: found, started, told to end. Synchronous; for threads, since disks and kernels take time.

With a mounter the mount is made and taken away by it, and the worker is given the connection; without one the worker
does both itself, by fusermount3.
"""

from __future__ import annotations

import contextlib
import os
import select
from dataclasses import replace
from typing import NamedTuple

import fsmount
from daemon.mounter import kernel
from daemon.mounter.client import Mounter
from engine.errors import Busy, HoldfastError, NotFound, PermissionDenied, from_os
from fsmount import Options
from fsmount.lifecycle import shown
from fsmount.mountpoint import absolute, at, followed, is_stale

ASK_LIMIT = 10.0  # s for a worker to answer what it has at hand
BARRIER_LIMIT = 120.0  # s to make everything durable
END_LIMIT = (
    150.0  # s from being told to end: open files are served for a while, then all is committed
)


class Process(NamedTuple):
    """A worker that runs. ``fd`` is a pidfd: readable when it has ended."""

    pid: int
    fd: int


class Place(NamedTuple):
    """What is to be served, where and how."""

    store: str
    name: str
    path: str
    options: Options


def find(place: Place) -> tuple[Process, dict[str, object]] | None:
    """The worker that serves the mount, and its status; None when there is none.

    The process is the one that answers: its descriptor is taken between two answers on one connection, and what has
    ended answers no more.  Raises Busy when it does not answer, HoldfastError when it answers nonsense.
    """
    try:
        client = fsmount.client(place.store, place.name, timeout=ASK_LIMIT)
    except NotFound:
        return None
    with client:
        try:
            pid = int(client.request("status")["pid"])
            fd = os.pidfd_open(pid)
        except (NotFound, ProcessLookupError):
            return None
        try:
            return Process(pid, fd), client.request("status")
        except NotFound:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise


def fits(place: Place, status: dict[str, object]) -> bool:
    """Whether a worker serves what is wanted, where and how it is wanted."""
    return (
        status.get("state") == "serving"
        and status.get("mountpoint") in (absolute(place.path), followed(place.path))
        and status.get("options") == place.options.served()
    )


def start(place: Place, mounter: Mounter | None, *, make: bool) -> Process:
    """Start a worker; returns when its mount can be used. What a dead one left mounted is taken away first.

    ``make``: the mount point may be made. Raises what is wrong with it, and what the worker reports.
    """
    if make:
        _make(place.path)
    if mounter is None:
        if os.geteuid() == 0 and at(absolute(place.path)) is None:
            kernel.seal(place.path, sealed=True)
        return _watched(
            fsmount.start_background(place.store, place.name, None, place.path, place.options)
        )
    _clear(place.path, mounter)
    fd = mounter.mount(absolute(place.path), shown(place.store, place.name, None))
    try:
        options = replace(place.options, fuse_fd=fd)
        pid = fsmount.start_background(place.store, place.name, None, place.path, options)
    except BaseException:
        mounter.unmount(absolute(place.path), lazy=True)
        raise
    finally:
        os.close(fd)  # the worker's is the last: when it dies, the mount is seen to be dead
    with contextlib.suppress(HoldfastError):  # only speed
        mounter.readahead(absolute(place.path), place.options.readahead)
    return _watched(pid)


def _make(path: str) -> None:
    if at(absolute(path)) is not None:
        return  # not to be touched: its worker may be stuck
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError:
        return  # what it is instead is told by who mounts there
    except PermissionError as error:
        raise PermissionDenied(
            f"mount point {path}", expected="a directory, or one above it that the service's user may write to",
            found=error.strerror or "a refusal", do="make it, empty, or name another path in the configuration",
        ) from None  # fmt: skip
    except OSError as error:
        if at(absolute(path)) is None:
            raise from_os(error, f"mount point {path}") from None


def _clear(path: str, mounter: Mounter) -> None:
    """Take away what dead workers left; who lives there is told by who mounts."""
    path = absolute(path)
    while at(path) is not None and is_stale(path):
        why = mounter.unmount(path, lazy=True)
        if why:
            raise Busy(f"mount point {path}", found=f"a dead mount that stays: {why}")


def _watched(pid: int) -> Process:
    """Of a child: until it is waited for, the number is its own."""
    return Process(pid, os.pidfd_open(pid))


def reap(process: Process) -> int | None:
    """Its exit status, negative for a signal, if it has ended and was our child; lets go of it."""
    try:
        result = os.waitid(os.P_PIDFD, process.fd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # adopted
        return None
    finally:
        os.close(process.fd)
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def ended(process: Process, limit: float) -> bool:
    """Wait for its end, at most so long."""
    poll = select.poll()  # not select: descriptors may be many
    poll.register(process.fd, select.POLLIN)
    return bool(poll.poll(limit * 1000))


def unmount(place: Place, process: Process, mounter: Mounter | None) -> None:
    """End a worker whose files nobody uses; returns when all is committed. Raises Busy when somebody does."""
    if mounter is None:
        fsmount.unmount(place.path)
        if os.geteuid() == 0:
            kernel.seal(place.path, sealed=False)
    else:
        why = mounter.unmount(absolute(place.path), lazy=False)
        if why:
            raise Busy(
                f"mount at {place.path!r}", expected="no open files in it", found=why,
                do="close what uses it (fuser -vm PATH shows who) and try again",
            )  # fmt: skip
    if not ended(process, END_LIMIT):
        raise Busy(f"worker of mount {place.name!r}", expected="its end", found="it still commits")


def drain(place: Place, process: Process, mounter: Mounter | None) -> bool:
    """End a worker whoever uses its files: all is made durable, open files are served for a while. False when it has
    not ended in time: it goes on by itself."""
    path = absolute(place.path)
    if mounter is not None and not mounter.unmount(path, lazy=False):
        return ended(process, END_LIMIT)
    if mounter is None:
        return _drained_alone(place, process, path)
    with fsmount.client(place.store, place.name, timeout=BARRIER_LIMIT) as client:
        with contextlib.suppress(HoldfastError):  # what cannot be stored is the worker's to tell
            client.request("barrier")
        client.request("drain")
    mounter.unmount(path, lazy=True)
    return ended(process, END_LIMIT)


def _drained_alone(place: Place, process: Process, path: str) -> bool:
    """The same of a worker that unmounts by itself."""
    with fsmount.client(place.store, place.name, timeout=BARRIER_LIMIT) as client:
        client.request("drain")
    done = ended(process, END_LIMIT)
    if os.geteuid() == 0 and at(path) is None:
        kernel.seal(path, sealed=False)
    return done
