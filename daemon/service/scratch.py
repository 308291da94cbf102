"""Scratch directories of drills: each belongs to the process that made it, and to nobody when that has died.

A directory is locked by who works in it.  One whose lock can be had was left behind, and is removed with what its hook
still runs, by the next drill in the same place, when the daemon starts, and every hour.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from daemon.service import hooks
from daemon.state.database import FOLDER, give_to_owner
from engine.errors import InvalidRequest, from_os

log = logging.getLogger("holdfast.daemon")

PLACE = "drills"  # in the store's folder of the daemon, where no other is named
TREE, WORK = "tree", "work"  # what is restored, and a directory of the hook's own
_PREFIX, _KEPT = "drill-", "kept-"
_TOKEN = "hook"  # a file: by what the hook's processes are found
_TOKEN_MAX = 64


@dataclass(frozen=True)
class Scratch:
    """A directory of a drill."""

    path: str

    @property
    def tree(self) -> str:
        return os.path.join(self.path, TREE)

    @property
    def work(self) -> str:
        return os.path.join(self.path, WORK)

    def keep(self) -> str:
        """Leave it, under a name that no sweep takes; where what was restored is then."""
        place, name = os.path.split(self.path)
        kept = os.path.join(place, name.replace(_PREFIX, _KEPT, 1))
        os.rename(self.path, kept)
        return os.path.join(kept, TREE)

    def runs(self, token: str) -> None:
        """A hook with this token in its environment is about to run."""
        with open(os.path.join(self.path, _TOKEN), "x", encoding="ascii") as file:
            file.write(token)


def usual(store_path: str) -> str:
    """Where drills are made unless another place is named."""
    return os.path.join(store_path, FOLDER, PLACE)


@contextmanager
def made(place: str, job_id: int, *, store_path: str) -> Iterator[Scratch]:
    """A new directory below a place, removed at the end unless it was kept."""
    try:
        if place == usual(store_path):
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, 0o700)
                give_to_owner(place, store_path)
        if not os.path.isdir(place):
            raise InvalidRequest(f"scratch place {place}", expected="a directory", found="none",
                                 do="make it, or change the configuration")  # fmt: skip
        path, fd = _begin(place, job_id)
    except OSError as error:
        raise from_os(error, f"scratch place {place}") from None
    scratch = Scratch(path)
    try:
        os.mkdir(scratch.work, 0o711)
        yield scratch
    finally:
        try:
            remove(path)
        finally:
            os.close(fd)


def _begin(place: str, job_id: int) -> tuple[str, int]:
    """Its path, and the descriptor that holds its lock; what was left in the place is removed first."""
    above = _locked(place)
    try:
        _sweep(place)
        # Other stores may use the place, and number their jobs as well.
        path = os.path.join(place, f"{_PREFIX}{job_id}-{secrets.token_hex(4)}")
        # As root the hook may become another user, who has to come to what was restored.
        os.mkdir(path, 0o711 if os.geteuid() == 0 else 0o700)
        return path, _locked(path)
    finally:
        os.close(above)


def _locked(path: str, *, wait: bool = True) -> int:
    """Raises OSError; BlockingIOError where somebody else has it and ``wait`` is not set."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(fd)
        raise
    return fd


def sweep(place: str) -> None:
    """Remove what drills left in a place whose processes have died; what cannot be is told."""
    try:
        above = _locked(place)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        log.warning("drills: %s is not looked through: %s", place, error)
        return
    try:
        _sweep(place)
    finally:
        os.close(above)


def _sweep(place: str) -> None:
    for name in os.listdir(place):
        if not re.fullmatch(_PREFIX + "[0-9]+-[0-9a-f]{8}", name):
            continue
        path = os.path.join(place, name)
        try:
            fd = _locked(path, wait=False)
        except (BlockingIOError, NotADirectoryError):
            continue  # at work; no directory of ours
        except OSError as error:
            log.warning("drills: %s is left: %s", path, error)
            continue
        try:
            hooks.end_left(_token(path))
            remove(path)
            log.info("drills: %s, left by a process that died, was removed", path)
        finally:
            os.close(fd)


def _token(path: str) -> str:
    try:
        with open(os.path.join(path, _TOKEN), encoding="ascii") as file:
            return file.read(_TOKEN_MAX)
    except (OSError, ValueError):
        return ""


def remove(path: str) -> None:
    """A directory with all that is in it, whatever the modes are; what cannot be removed is told."""
    for folder, _, _ in os.walk(path):  # from above: what is closed is opened before it is listed
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, stat.S_IRWXU)
    shutil.rmtree(path, onerror=_left)  # by descriptors: no link in it leads out


def _left(_: object, path: str, why: tuple[object, BaseException, object]) -> None:
    if not isinstance(why[1], FileNotFoundError):
        log.warning("drills: %s is left: %s", path, why[1])
