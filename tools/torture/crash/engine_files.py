"""The tree of a store without FUSE: operations straight on a live tree, and what is found in it and in a point."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator

from engine.live import ROOT, Attr, Ctx, LiveTree
from engine.nodes import Entry
from engine.points.view import PointView
from tools.torture.history import Meta, Op, Seen

CTX = Ctx(0, 0)


class TreeFiles:
    """``workload.Files`` over a live tree: each operation with the calls a kernel would make for it."""

    def __init__(self, tree: LiveTree) -> None:
        self._tree = tree

    def do(self, op: Op) -> None:
        """Carry out one operation; errors are those of the engine."""
        tree = self._tree
        if tree.over_limit():
            tree.wait_room()
        parent, name = self._place(op.path)
        match op.kind:
            case "create":
                ino = tree.create(parent, name, op.number, CTX).ino
                self._opened(ino, os.O_WRONLY)
            case "mkdir":
                tree.mkdir(parent, name, op.number, CTX)
            case "symlink":
                tree.symlink(parent, name, op.other, CTX)
            case "link":
                tree.link(tree.lookup(parent, name).ino, *self._place(op.other))
            case "rename":
                self._rename(parent, name, op)
            case "unlink":
                ino = tree.lookup(parent, name).ino
                tree.unlink(parent, name)
                tree.forgotten(ino)
            case "rmdir":
                ino = tree.lookup(parent, name).ino
                tree.rmdir(parent, name)
                tree.forgotten(ino)
            case _:
                self._on_inode(op, tree.lookup(parent, name).ino)

    def _on_inode(self, op: Op, ino: int) -> None:
        tree = self._tree
        match op.kind:
            case "chmod":
                tree.setattr(ino, mode=op.number, now_ns=time.time_ns())
            case "setxattr":
                tree.setxattr(ino, op.other, op.data)
            case "fsyncdir":
                tree.fsyncdir(ino)
            case _:
                self._opened(ino, os.O_RDWR, op)

    def _opened(self, ino: int, flags: int, op: Op | None = None) -> None:
        tree = self._tree
        tree.opened(ino, flags)
        try:
            if op is not None and op.kind == "write":
                done = tree.write(ino, op.number, op.data)
                assert done == len(op.data)
            elif op is not None and op.kind == "truncate":
                tree.setattr(ino, size=op.number, now_ns=time.time_ns())
            elif op is not None:
                assert op.kind == "fsync", op.kind
                tree.fsync(ino)
            tree.flush(ino)
        finally:
            tree.released(ino)

    def _rename(self, parent: int, name: bytes, op: Op) -> None:
        tree = self._tree
        new_parent, new_name = self._place(op.other)
        there = [entry for entry, _, _ in tree.readdir(new_parent, 0)]
        over = tree.lookup(new_parent, new_name).ino if new_name in there else 0
        tree.rename(parent, name, new_parent, new_name, op.number)
        if over and not op.number:
            tree.forgotten(over)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        *folders, name = path.split(b"/")
        ino = ROOT
        for folder in folders:
            ino = self._tree.lookup(ino, folder).ino
        return ino, name


def observe_tree(tree: LiveTree) -> dict[bytes, Seen]:
    """Everything in a live tree, by path."""
    return dict(_walk_tree(tree, ROOT, b""))


def _walk_tree(tree: LiveTree, directory: int, above: bytes) -> Iterator[tuple[bytes, Seen]]:
    for name, attr, _ in tree.readdir(directory, 0):
        path = above + name
        yield path, _seen(tree, attr)
        if stat.S_ISDIR(attr.mode):
            yield from _walk_tree(tree, attr.ino, path + b"/")


def _seen(tree: LiveTree, attr: Attr) -> Seen:
    kind = _kind(attr.mode)
    names = [n for n in tree.listxattr(attr.ino) if n.startswith(b"user.")]
    xattrs = tuple((n, tree.getxattr(attr.ino, n)) for n in sorted(names))
    target = tree.readlink(attr.ino) if kind == "l" else b""
    data = tree.read(attr.ino, 0, attr.size) if kind == "f" else b""
    assert len(data) == attr.size or kind != "f", (attr, len(data))
    return Seen(Meta(kind, stat.S_IMODE(attr.mode), target, xattrs), attr.ino, data)


def observe_point(view: PointView) -> dict[bytes, Seen]:
    """Everything in a recovery point, by path."""
    return dict(_walk_point(view, view.root_entry, b""))


def _walk_point(view: PointView, directory: Entry, above: bytes) -> Iterator[tuple[bytes, Seen]]:
    for entry in view.scan(directory):
        path = above + entry.name
        kind = _kind(entry.mode)
        xattrs = sorted((n, v) for n, v in view.xattrs(entry).items() if n.startswith(b"user."))
        data = view.read(entry, 0, entry.size) if kind == "f" else b""
        meta = Meta(kind, stat.S_IMODE(entry.mode), entry.target, tuple(xattrs))
        yield path, Seen(meta, entry.ino, data)
        if kind == "d":
            yield from _walk_point(view, entry, path + b"/")


def _kind(mode: int) -> str:
    return {stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFREG: "f"}[stat.S_IFMT(mode)]
