"""Mount points: is there something to mount on, is a dead worker's mount still there, what is mounted where.

Read from the kernel's table wherever possible: touching a mount whose worker is dead or stuck may block.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from engine.errors import Busy, HoldfastError, InvalidRequest, NotFound, PermissionDenied

TABLE = "/proc/self/mountinfo"
TYPE = "fuse.holdfast"
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mounted(NamedTuple):
    """One line of the kernel's table of mounts."""

    device: tuple[int, int]
    path: str
    type: str
    source: str


def _plain(text: str) -> str:
    raw = _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
    return raw.encode("latin-1", "surrogateescape").decode("utf-8", "surrogateescape")


def table(path: str = TABLE) -> list[Mounted]:
    """Everything mounted, in the order of mounting."""
    found = []
    with open(path, encoding="latin-1") as file:
        for line in file:
            fields = line.rstrip("\n").split(" ")
            dash = fields.index("-")
            major, minor = fields[2].split(":")
            found.append(
                Mounted(
                    (int(major), int(minor)),
                    _plain(fields[4]),
                    fields[dash + 1],
                    _plain(fields[dash + 2]),
                )
            )
    return found


def at(path: str) -> Mounted | None:
    """What is mounted exactly there, uppermost; None when nothing is."""
    return next((one for one in reversed(table()) if one.path == path), None)


def mounted_at(path: str) -> tuple[int, int] | None:
    """The device of the Holdfast mount that is uppermost at exactly this path; None when there is none."""
    there = at(path)
    return there.device if there is not None and there.type == TYPE else None


def absolute(path: str) -> str:
    """The path without links, touching only the directory above it."""
    path = os.path.abspath(path)
    return os.path.normpath(
        os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    )


def followed(path: str) -> str:
    """The path without links, where its last part is one as well; a mount there is not touched."""
    path = absolute(path)
    return os.path.realpath(path) if os.path.islink(path) else path


def is_stale(path: str) -> bool:
    """Whether the worker of the file system mounted there is gone."""
    try:
        os.statvfs(path)  # never answered from what the kernel remembers, as attributes may be
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def prepare(path: str, detach: Callable[[str], str]) -> str:
    """Make sure a file system can be mounted there; returns the path to mount at.

    A mount whose worker is gone is taken away first (``detach(path)`` returns why it could not be, or "").  Raises
    NotFound, InvalidRequest (no directory, not empty), Busy (mounted already), PermissionDenied.
    """
    path = followed(path)
    while (there := at(path)) is not None and there.type.startswith("fuse"):
        if not is_stale(path):
            raise Busy(
                f"mount point {path!r}",
                expected="a directory that nothing is mounted on",
                found=f"{there.source} mounted there",
                do="unmount it, or choose another directory",
            )
        why = detach(path)
        if why and at(path) == there:
            raise Busy(f"mount point {path!r}", found=f"a dead mount that stays: {why}")
    _look(path)
    return path


def _look(path: str) -> None:
    what = f"mount point {path!r}"
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        raise NotFound(
            what, expected="a directory", found="nothing", do="create it first"
        ) from None
    except NotADirectoryError:
        raise InvalidRequest(
            what, expected="a directory", found="something else", do="choose a directory"
        ) from None
    except PermissionError:
        raise PermissionDenied(what, found="a directory that may not be read") from None
    except OSError as error:
        raise HoldfastError(what, found=os.strerror(error.errno or errno.EIO)) from None
    if names:
        raise InvalidRequest(
            what,
            expected="an empty directory",
            found=f"{len(names)} entries in it",
            do="choose an empty directory: what is in it would be hidden",
        )
