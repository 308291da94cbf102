"""Restores that another process has a part in: by a job of the service, or of a stream that it sends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import click

from daemon.cli import following
from daemon.cli.common import backend
from daemon.cli.output import as_json, say, shown, size
from daemon.contract import Backend, RestoreSpec
from engine.errors import AlreadyExists, HoldfastError, InvalidRequest, Unsupported, from_os

_SAID_MAX = 2000  # characters of what tar says that are passed on


def placed(ctx: click.Context, spec: RestoreSpec, json_: bool) -> None:
    """A restore job of the service, waited for."""
    with backend(ctx) as asked:
        job = following.follow(asked, asked.restore(spec))
    if json_:
        as_json(job)
    found = following.result(job)
    if not json_:
        say(f"restore {job.id}: {shown(str(found.get('path', spec.place)))}")


def fetched(ctx: click.Context, point: str, inner: str, target: str, json_: bool) -> None:
    """A point, or a path of it, as a new file or directory here: whole, or not there at all."""
    if os.path.lexists(target) and not _is_empty(target):
        raise AlreadyExists(f"target {target}", expected="nothing, or an empty directory",
                            found="something", do="choose another target")  # fmt: skip
    with backend(ctx) as asked, _beside(target) as folder:
        total = _unpack(asked, point, inner, folder)
        _sync(folder)
        _place(os.path.join(folder, _member(inner)) if inner else folder, target)
    if json_:
        as_json({"stream_bytes": total, "target": target})
    else:
        say(f"{shown(point)} restored to {shown(target)} from a stream of {size(total)}")


def _is_empty(target: str) -> bool:
    try:
        return not os.path.islink(target) and not os.listdir(target)
    except OSError:
        return False


def _member(inner: str) -> str:
    """How a path of a point is called in its stream: by its last name."""
    return inner.rstrip("/").rpartition("/")[2]


@contextmanager
def _beside(target: str) -> Iterator[str]:
    """A new directory next to the target, for us alone, gone afterwards with what is left in it."""
    try:
        above = os.path.dirname(os.path.abspath(target))
        folder = tempfile.mkdtemp(prefix=".holdfast-", dir=above)
    except OSError as error:
        raise from_os(error, f"target {target}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(asked: Backend, point: str, inner: str, folder: str) -> int:
    """Fill the directory by the system's tar, which keeps what it unpacks below it; the stream's length."""
    command = ["tar", "-x", "-f", "-", "-C", folder, "--xattrs", "--xattrs-include=*", "--acls",
               "--preserve-permissions", "--numeric-owner", "--delay-directory-restore", "--sparse"]  # fmt: skip
    content = asked.tar(point, inner)
    with tempfile.TemporaryFile() as said:
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said,
                env={**os.environ, "LC_ALL": "C", "TAR_OPTIONS": ""},
            )  # fmt: skip
        except FileNotFoundError:
            raise Unsupported(
                "restore", expected="the program tar", found="none", do="install it"
            ) from None
        total = 0
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError), child.stdin:
                for part in content:
                    child.stdin.write(part)
                    total += len(part)
        except BaseException:
            child.kill()  # a stream that ends too soon must not look like one that ends
            raise
        finally:
            status = child.wait()
        if status:
            said.seek(0)
            lines = said.read(_SAID_MAX).decode("utf-8", "surrogateescape").strip()
            raise HoldfastError("tar", expected="that it unpacks the stream",
                                found=f"status {status}: {'; '.join(lines.splitlines())}",
                                do="choose a target this user may write to, with room")  # fmt: skip
    return total


def _sync(folder: str) -> None:
    """What was unpacked is on the disk before it gets its name."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise from_os(OSError(number, os.strerror(number)), f"target {folder}")
    finally:
        os.close(fd)


def _place(source: str, target: str) -> None:
    """Give what was unpacked its name. An empty directory is taken over, anything else is not."""
    if not os.path.lexists(source):
        raise InvalidRequest("stream", expected="the path that was asked for", found="another")
    try:
        if os.path.isdir(source) and not os.path.islink(source):
            os.rename(source, target)  # the kernel refuses it onto a directory that is not empty
        else:
            os.link(source, target, follow_symlinks=False)  # and this onto anything
    except OSError as error:
        raise from_os(error, f"target {target}") from None
