"""Starting and ending mounts of a store: the functions the command line and the daemon call."""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable

from engine.errors import Busy, HoldfastError, InvalidRequest, NotFound
from fsmount import background, mountpoint
from fsmount.channel import kernel
from fsmount.options import Options, check
from fsmount.remote import FOLDER, request

END_LIMIT = 120.0  # s for a worker to commit and end after its file system was unmounted
_MARK = "#"  # between store and mount in the name that mount(8) shows


def serve(
    store_path: str,
    name: str,
    point: str | None,
    where: str,
    options: Options | None = None,
    *,
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Mount ``name`` (or its recovery point, read-only) at ``where`` and serve it until it is unmounted.

    Blocks; call it on the main thread of a process that does nothing else. Returns the exit code 0, or raises the
    engine's errors. ``ready`` is called when the mount can be used.
    """
    # Only a process that serves needs trio and pyfuse3: they take longer to import than a snapshot takes.
    from fsmount import running, source

    options = options or Options()
    check(options)
    store_path = os.path.abspath(store_path)
    logging.getLogger("holdfast").setLevel(options.log_level)
    with source.opened(store_path, name, point, shown(store_path, name, point), options) as subject:
        running.run(subject, where, options, ready)
    return 0


def shown(store_path: str, name: str, point: str | None) -> str:
    """What mount(8) shows as the source."""
    return f"{store_path}{_MARK}{name}" + (f"@{point}" if point else "")


def start_background(
    store_path: str,
    name: str,
    point: str | None,
    where: str,
    options: Options | None = None,
    *,
    user: tuple[int, int] | None = None,
    scratch: tuple[str, int] | None = None,
) -> int:
    """As ``serve`` in a process of its own; returns its id once the mount can be used, or raises what went wrong.

    ``user``: user and group that the process becomes first, without any privilege; root may ask for that. Such a
    worker cannot mount for others: it is given a connection, ``options.fuse_fd``, which stays open here.
    ``scratch``: a directory, and a descriptor that has it locked: the process removes it when it ends.
    """
    options = options or Options()
    check(options)
    if user is not None and options.fuse_fd < 0:
        raise InvalidRequest(
            "worker of another user", expected="a connection that is mounted", found="none"
        )
    store_path = os.path.abspath(store_path)
    where = mountpoint.absolute(where)
    label = f"{name}@{point}" if point else name
    if "/" in label:
        raise InvalidRequest("name to mount", found=repr(label))
    request: dict[str, object] = {
        "store": store_path,
        "name": name,
        "point": point,
        "where": where,
        "options": options.to_json(),
    }
    if not os.path.isdir(store_path):
        raise NotFound(f"store {store_path}", expected="a store", found="no such directory")
    keep = [options.fuse_fd] if options.fuse_fd >= 0 else []
    if scratch is not None:
        request["scratch"] = scratch[0]
        keep.append(scratch[1])
    log_path = os.path.join(store_path, FOLDER, f"{label}.log")
    return background.start(request, log_path, user=user, keep=keep)


def unmount(where: str) -> None:
    """Unmount and wait until the worker has committed everything and ended.

    Raises NotFound when nothing of ours is mounted there, Busy when files in it are in use.
    """
    where = mountpoint.followed(where)
    there = mountpoint.at(where)
    if there is None or there.type != mountpoint.TYPE:
        raise NotFound(f"mount at {where!r}", expected="a Holdfast mount", found="none")
    if mountpoint.is_stale(where):
        why = kernel.detach(where, lazy=True)
        if why:
            raise Busy(f"mount at {where!r}", found=why)
        return
    watch = _watch(there.source)
    try:
        why = kernel.detach(where, lazy=False)
        if why:
            raise Busy(
                f"mount at {where!r}",
                expected="no open files in it",
                found=why,
                do="close what uses it (fuser -vm PATH shows who) and try again",
            )
        if watch >= 0 and not select.select([watch], [], [], END_LIMIT)[0]:
            raise Busy(f"worker of {there.source}", expected="its end", found="it still commits")
    finally:
        if watch >= 0:
            os.close(watch)


def _watch(shown_source: str) -> int:
    """A descriptor that becomes readable when the worker of that mount ends; -1 when there is none to wait for."""
    store_path, _, name = shown_source.rpartition(_MARK)
    if "@" in name:
        return -1  # a recovery point: nothing to commit
    try:
        return os.pidfd_open(int(request(store_path, name, "status")["pid"]))
    except (HoldfastError, OSError):
        return -1
