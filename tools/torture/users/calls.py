"""Carrying an attempt out, as the actor: paths for each way, the call itself, what is left of the scene afterwards."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from tools.torture.users import model
from tools.torture.users.agents import NOBODY
from tools.torture.users.model import Scene

SECRET = b"nobody else's business\n"
OLD_NS = 1_500_000_000_000_000_000
ATTRIBUTE = "user.kept"


class Stage:
    """Where a scene is played: ``place`` has d with what is in it, ``mine`` is the actor's own directory."""

    def __init__(self, scene: Scene, place: str, mine: str) -> None:
        self.scene = scene
        self.place = place
        self.mine = mine
        self.fd = -1

    def open_handle(self) -> None:
        """As root: the handle that the actor is given."""
        inner = {model.FILE_HANDLE: "/d/f", model.UP: "/d/s"}.get(self.scene.way, "/d")
        if self.scene.way in model.HANDLED:
            self.fd = os.open(self.place + inner, os.O_PATH)

    def close(self) -> None:
        """Take it away again."""
        if self.fd >= 0:
            os.close(self.fd)

    def path(self, name: str) -> str:
        """How the actor names something in d (or d itself: "")."""
        way = self.scene.way
        if way == model.FILE_HANDLE:
            return f"/proc/self/fd/{self.fd}"
        if way == model.INSIDE:
            return name
        start = {
            model.DIRECT: f"{self.place}/d",
            model.LINK: f"{self.mine}/to",
            model.HANDLE: f"/proc/self/fd/{self.fd}",
            model.UP: f"/proc/self/fd/{self.fd}/..",
        }[way]
        return f"{start}/{name}" if name else start

    def play(self) -> str:
        """As the actor: "ok", or the name of the error."""
        try:
            if self.scene.way == model.INSIDE:
                os.fchdir(self.fd)
            return ACTIONS[self.scene.call.name](self) or "ok"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
        finally:
            os.chdir("/")


def _read(stage: Stage) -> str:
    with open(stage.path("f"), "rb") as file:
        return "" if file.read() == SECRET else "other content"


def _write(stage: Stage, flags: int) -> None:
    fd = os.open(stage.path("f"), os.O_WRONLY | flags)
    try:
        os.write(fd, b"overwritten")
    finally:
        os.close(fd)


def _link(source: str, target: str) -> None:
    """linkat(2) that follows: link(2) would link to the magic link of a handle itself."""
    here = os.open(".", os.O_PATH)
    try:
        os.link(source, target, src_dir_fd=here, follow_symlinks=True)
    finally:
        os.close(here)


def _quiet(action: Callable[[Stage], object]) -> Callable[[Stage], str]:
    def done(stage: Stage) -> str:
        action(stage)
        return ""

    return done


ACTIONS: dict[str, Callable[[Stage], str]] = {
    "read": _read,
    **{
        name: _quiet(action)
        for name, action in {
            "stat": lambda s: os.stat(s.path("f")),
            "getxattr": lambda s: os.getxattr(s.path("f"), ATTRIBUTE),
            "write": lambda s: _write(s, 0),
            "append": lambda s: _write(s, os.O_APPEND),
            "truncate": lambda s: os.truncate(s.path("f"), 3),
            "chmod": lambda s: os.chmod(s.path("f"), 0o707),
            "chown": lambda s: os.chown(s.path("f"), s.scene.f.uid + 7, -1),
            "chgrp to own": lambda s: os.chown(s.path("f"), -1, os.getegid() or NOBODY.gid),
            "chgrp to another": lambda s: os.chown(s.path("f"), -1, 47111),
            "set times": lambda s: os.utime(s.path("f"), ns=(5, 5)),
            "touch": lambda s: os.utime(s.path("f")),
            "setxattr": lambda s: os.setxattr(s.path("f"), "user.mine", b"1"),
            "removexattr": lambda s: os.removexattr(s.path("f"), ATTRIBUTE),
            "set trusted": lambda s: os.setxattr(s.path("f"), "trusted.mine", b"1"),
            "set security": lambda s: os.setxattr(s.path("f"), "security.mine", b"1"),
            "link out": lambda s: _link(s.path("f"), f"{s.mine}/linked"),
            "unlink": lambda s: os.unlink(s.path("f")),
            "rename out": lambda s: os.rename(s.path("f"), f"{s.mine}/taken"),
            "rename over": lambda s: os.rename(f"{s.mine}/g", s.path("f")),
            "create": lambda s: open(s.path("new"), "xb").close(),
            "mkdir": lambda s: os.mkdir(s.path("new")),
            "symlink": lambda s: os.symlink("f", s.path("new")),
            "fifo": lambda s: os.mkfifo(s.path("new")),
            "device": lambda s: os.mknod(s.path("new"), stat.S_IFCHR | 0o666, os.makedev(1, 3)),
            "rmdir": lambda s: os.rmdir(s.path("s")),
            "move directory": lambda s: os.rename(s.path("s"), f"{s.mine}/taken"),
            "link in": lambda s: _link(f"{s.mine}/g", s.path("new")),
            "list": lambda s: os.listdir(s.path("")),
            "chmod directory": lambda s: os.chmod(s.path(""), 0o707),
            "xattr on directory": lambda s: os.setxattr(s.path(""), "user.mine", b"1"),
        }.items()
    },
}  # fmt: skip


def build(scene: Scene, place: str, mine: str, towards: str, actor: tuple[int, int]) -> None:
    """As root, without squash: the scene below ``place``; ``mine/to`` leads to ``towards``."""
    os.makedirs(f"{place}/d/s")
    os.mkdir(mine, 0o700)
    for path, data in ((f"{place}/d/f", SECRET), (f"{mine}/g", b"the actor's")):
        with open(path, "wb") as file:
            file.write(data)
    os.setxattr(f"{place}/d/f", ATTRIBUTE, b"kept")
    os.symlink(towards, f"{mine}/to")
    for path in (mine, f"{mine}/g"):
        os.chown(path, *actor)
    for path, node in (
        (f"{place}/d/f", scene.f),
        (f"{place}/d/s", scene.s),
        (f"{place}/d", scene.d),
    ):
        os.chown(path, node.uid, node.gid)
        os.chmod(path, node.mode)
        os.utime(path, ns=(OLD_NS, OLD_NS))


def trace(place: str) -> dict[str, tuple[object, ...]]:
    """As root: all that an attempt could have changed in d."""
    found: dict[str, tuple[object, ...]] = {}
    for name in ("", *sorted(os.listdir(f"{place}/d"))):
        path = f"{place}/d/{name}"
        status = os.lstat(path)
        content = b""
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                content = file.read()
        attributes = {} if stat.S_ISLNK(status.st_mode) else {
            one: os.getxattr(path, one) for one in sorted(os.listxattr(path))
        }  # fmt: skip
        found[name] = (
            status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns, status.st_ctime_ns,
            content, tuple(attributes.items()),
        )  # fmt: skip
    return found
