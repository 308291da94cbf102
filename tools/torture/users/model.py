"""Who may do what: POSIX's rules once more, written apart from the file system's own, as the oracle of the matrix.

A scene is one directory ``d`` with a file ``f``, an empty directory ``s``; beside it
``mine``, a directory of the actor with a file ``g`` and a symbolic link ``to`` that leads to ``d``.
"""

from __future__ import annotations

import random
import stat
from typing import NamedTuple

from tools.torture.users.agents import NOBODY, ROOT, Who

READ, WRITE, SEARCH = 4, 2, 1

ALICE = Who(41001, 42001)
BOB = Who(41002, 42002)
CAROL = Who(41003, 42003, (42001,))  # in Alice's group
ACTORS = (ALICE, BOB, CAROL, ROOT)

FILE_MODES = (0o600, 0o640, 0o644, 0o660, 0o666, 0o604, 0o400, 0o200, 0o060, 0o006, 0o000, 0o4755)
DIR_MODES = (0o700, 0o755, 0o711, 0o770, 0o777, 0o1777, 0o733, 0o1733, 0o555, 0o750, 0o707, 0o000)

# How a name is reached. The handles are given to the actor by root: it could not open them itself.
DIRECT = "path"
LINK = "symbolic link"
HANDLE = "handle of the directory"
FILE_HANDLE = "handle of the file"
UP = ".. of a handle below"
INSIDE = "working directory"
WAYS = (DIRECT, LINK, HANDLE, FILE_HANDLE, UP, INSIDE)
HANDLED = (HANDLE, FILE_HANDLE, UP, INSIDE)


class Node(NamedTuple):
    """Owner and mode of one thing."""

    uid: int
    gid: int
    mode: int


class Call(NamedTuple):
    """``on``: "file", "name" or "directory"; ``changes``: whether it leaves a trace when it succeeds."""

    name: str
    on: str
    changes: bool


CALLS = (
    Call("read", "file", False),
    Call("stat", "file", False),
    Call("getxattr", "file", False),
    Call("write", "file", True),
    Call("append", "file", True),
    Call("truncate", "file", True),
    Call("chmod", "file", True),
    Call("chown", "file", True),
    Call("chgrp to own", "file", True),
    Call("chgrp to another", "file", True),
    Call("set times", "file", True),
    Call("touch", "file", True),
    Call("setxattr", "file", True),
    Call("removexattr", "file", True),
    Call("set trusted", "file", True),
    Call("set security", "file", True),
    Call("link out", "file", True),
    Call("unlink", "name", True),
    Call("rename out", "name", True),
    Call("rename over", "name", True),
    Call("create", "name", True),
    Call("mkdir", "name", True),
    Call("symlink", "name", True),
    Call("fifo", "name", True),
    Call("device", "name", True),
    Call("rmdir", "name", True),
    Call("move directory", "name", True),
    Call("link in", "name", True),
    Call("list", "directory", False),
    Call("chmod directory", "directory", True),
    Call("xattr on directory", "directory", True),
)  # fmt: skip


class Scene(NamedTuple):
    """One attempt: who, what, how, and whose things with which modes."""

    number: str
    who: Who
    call: Call
    way: str
    d: Node
    f: Node
    s: Node

    def __str__(self) -> str:
        whose = ", ".join(
            f"{name} {node.uid}:{node.gid} {node.mode:o}"
            for name, node in (("d", self.d), ("f", self.f), ("s", self.s))
        )
        return f"{self.call.name} by {self.who.uid} through a {self.way} ({whose})"


def scene(number: str, chance: random.Random, squashed: bool) -> Scene:
    """A random attempt. On a mount with root squash root tries most, and nobody can be given handles."""
    who = ROOT if squashed and chance.random() < 0.7 else chance.choice(ACTORS)
    call = chance.choice(CALLS)
    ways = [way for way in WAYS if way not in HANDLED] if squashed else list(WAYS)
    if call.on == "name":
        ways = [way for way in ways if way != FILE_HANDLE]
    elif call.on == "directory":
        ways = [way for way in ways if way in (DIRECT, LINK, HANDLE)]

    def node(modes: tuple[int, ...], likely: Who) -> Node:
        owner = likely if chance.random() < 0.5 else chance.choice((*ACTORS, NOBODY))
        group = chance.choice((owner.gid, ALICE.gid, BOB.gid, 0))
        return Node(owner.uid, group, chance.choice(modes))

    mine = who if chance.random() < 0.4 else ALICE
    d, f = node(DIR_MODES, mine), node(FILE_MODES, mine)
    return Scene(number, who, call, chance.choice(ways), d, f, node(DIR_MODES, mine))


class Judge:
    """Says what must come of an attempt."""

    def __init__(self, squash: Who | None = None, protected_links: bool = True) -> None:
        """``squash``: who root is on this mount. ``protected_links``: what the host does about hard links."""
        self._squash = squash
        self._protected = protected_links or squash is not None

    def acts_as(self, who: Who) -> Who:
        """Who the requests of somebody come from."""
        return self._squash if self._squash is not None and who.uid == 0 else who

    def allowed(self, scene: Scene) -> bool:
        """Whether the modes and owners let this attempt succeed."""
        who = self.acts_as(scene.who)
        return self._reached(scene, who) and self._granted(scene, who)

    def _reached(self, scene: Scene, who: Who) -> bool:
        if scene.way == FILE_HANDLE or scene.call.on == "directory":
            return True
        found = may(who, scene.d, SEARCH)
        return found and (scene.way != UP or may(who, scene.s, SEARCH))

    def _granted(self, scene: Scene, who: Who) -> bool:
        call, root = scene.call.name, who.uid == 0
        if scene.call.on == "name":
            return self._name(scene, who)
        if scene.call.on == "directory":
            d = scene.d
            if call == "list":
                return may(who, d, READ)
            if call == "chmod directory":
                return root or who.uid == d.uid
            sticky = d.mode & stat.S_ISVTX and not (root or who.uid == d.uid)
            return not sticky and may(who, d, WRITE)
        f = scene.f
        owner = root or who.uid == f.uid
        rules = {
            "read": may(who, f, READ),
            "stat": True,
            "getxattr": may(who, f, READ),
            "chmod": owner,
            "chown": root,
            "chgrp to own": owner,
            "chgrp to another": root,
            "set times": owner,
            "touch": owner or may(who, f, WRITE),
            "set trusted": root,
            "set security": root,
        }
        if call == "link out":
            safe = f.mode & stat.S_ISUID == 0 and may(who, f, READ | WRITE)
            return owner or safe or not self._protected
        return rules.get(call, may(who, f, WRITE))

    def _name(self, scene: Scene, who: Who) -> bool:
        call, d = scene.call.name, scene.d
        if not may(who, d, WRITE | SEARCH):
            return False
        if call in ("unlink", "rename out", "rename over"):
            return removable(who, d, scene.f)
        if call == "rmdir":
            return removable(who, d, scene.s)
        if call == "move directory":
            return removable(who, d, scene.s) and may(who, scene.s, WRITE)
        return call != "device" or who.uid == 0


def may(who: Who, node: Node, want: int) -> bool:
    """Whether the mode grants ``want``; root needs no mode."""
    if who.uid == 0:
        return True
    if who.uid == node.uid:
        return node.mode >> 6 & want == want
    if node.gid in who.all_groups:
        return node.mode >> 3 & want == want
    return node.mode & want == want


def removable(who: Who, directory: Node, entry: Node) -> bool:
    """The sticky bit's rule."""
    free = not directory.mode & stat.S_ISVTX
    return free or who.uid in (0, directory.uid, entry.uid)
