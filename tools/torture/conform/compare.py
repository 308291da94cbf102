"""Whether a real tree is what the model says: names, attributes, content, extended attributes, hard links."""

from __future__ import annotations

import os
import stat

from tools.torture.conform.disk import shown
from tools.torture.conform.nodes import PAGE, Content, Node, Tree

WHOLE = 8 << 20  # a file up to this is read from end to end


class Frozen:
    """What the model was at one moment."""

    def __init__(self, model: Tree) -> None:
        numbers: dict[int, int] = {}
        self.records = {
            path: (Tree.shown(node), node.target, dict(node.xattrs), node.content.copy(), _first(numbers, id(node)))
            for path, node in model.tree()
        }  # fmt: skip


def _first(numbers: dict[int, int], key: int) -> int:
    return numbers.setdefault(key, len(numbers))


def difference(top: str, wanted: Frozen) -> str:
    """The first difference between a directory and the model; empty when there is none."""
    found: dict[str, os.stat_result] = {}
    waiting = [""]
    while waiting:
        path = waiting.pop()
        found[path] = os.lstat(f"{top}/{path}")
        if stat.S_ISDIR(found[path].st_mode):
            names = os.listdir(f"{top}/{path}")
            if len(set(names)) != len(names):
                return f"{path!r}: a name is listed twice: {sorted(names)}"
            waiting += [f"{path}/{name}".lstrip("/") for name in names]
    if found.keys() != wanted.records.keys():
        more, less = found.keys() - wanted.records.keys(), wanted.records.keys() - found.keys()
        return f"too many: {sorted(more)}, missing: {sorted(less)}"
    numbers: dict[int, int] = {}
    for path, (attributes, target, xattrs, content, number) in wanted.records.items():
        real = found[path]
        have = shown(real)
        if path and have != attributes:
            return f"{path!r}: (mode, uid, gid, links, size) are {_octal(have)}, not {_octal(attributes)}"
        if _first(numbers, real.st_ino) != number:
            return f"{path!r}: is not the file it should be (hard links)"
        complaint = _inside(f"{top}/{path}", real.st_mode, target, xattrs, content)
        if complaint:
            return f"{path!r}: {complaint}"
    return ""


def _octal(shown_: tuple[int, ...]) -> str:
    return f"({shown_[0]:o}, {', '.join(map(str, shown_[1:]))})"


def _inside(path: str, mode: int, target: str, xattrs: dict[str, bytes], content: Content) -> str:
    if stat.S_ISLNK(mode):
        real = os.readlink(path)
        return "" if real == target else f"leads to {real!r}, not {target!r}"
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return ""
    have = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    if have != xattrs:
        return f"has the attributes {have}, not {xattrs}"
    return content_difference(path, content) if stat.S_ISREG(mode) else ""


def content_difference(path: str, content: Content) -> str:
    """Where a file's bytes differ; of a very large one only the parts that were written, and some between."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if content.size <= WHOLE:
            return where(
                os.read(fd, content.size + 1) if content.size else b"",
                content.read(0, content.size),
                0,
            )
        places = {number * PAGE for number in content.pages} | {
            (number + 1) * PAGE for number in content.pages
        }
        for offset in sorted({*places, content.size // 2, max(0, content.size - PAGE)}):
            complaint = where(os.pread(fd, PAGE, offset), content.read(offset, PAGE), offset)
            if complaint:
                return complaint
        return ""
    finally:
        os.close(fd)


def where(have: bytes, want: bytes, offset: int) -> str:
    """The first byte that differs."""
    if have == want:
        return ""
    if len(have) != len(want) and have[: len(want)] == want[: len(have)]:
        return f"{len(have)} bytes from {offset}, not {len(want)}"
    at = next(i for i, (a, b) in enumerate(zip(have, want, strict=False)) if a != b)
    wrong = sum(a != b for a, b in zip(have, want, strict=False))
    return f"byte {offset + at} is {have[at]:#x}, not {want[at]:#x}; {wrong} bytes differ"


def marks(node: Node) -> tuple[int, int, int]:
    """How often the times of a node were marked for update."""
    return node.marks["a"], node.marks["m"], node.marks["c"]
