"""A point's tree as lists: every regular file in the order of paths, from any place on, in little memory."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from daemon.contract import EntryInfo
from engine import PointView
from engine.errors import InvalidRequest, NotFound
from engine.nodes import Entry

_TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFBLK: "block", stat.S_IFCHR: "char",
}  # fmt: skip


def raw_path(path: str) -> bytes:
    """A path inside a point as bytes, without slashes at its ends. Raises InvalidRequest for text that is none."""
    try:
        return path.encode("utf-8", "surrogateescape").strip(b"/")
    except UnicodeEncodeError:
        raise InvalidRequest("path", expected="text", found="half of a character") from None


def text_path(path: bytes) -> str:
    """The inverse: bytes that are not UTF-8 become surrogate escapes."""
    return path.decode("utf-8", "surrogateescape")


def entry_info(entry: Entry) -> EntryInfo:
    """An entry as it is told."""
    return EntryInfo(
        text_path(entry.name), _TYPES[stat.S_IFMT(entry.mode)], entry.mode, entry.uid, entry.gid,
        entry.size, entry.mtime_ns, text_path(entry.target),
    )  # fmt: skip


def below(
    view: PointView, top: Entry, after: bytes = b"", *, folders: bool = False
) -> Iterator[tuple[bytes, Entry]]:
    """(path below ``top``, entry) of everything that is no directory, in order; directories too, before what is in
    them, with ``folders``. ``after``: only what comes behind that path of an earlier walk."""
    stack = _begun(view, top, after)
    while stack:
        path, members = stack[-1]
        entry = next(members, None)
        if entry is None:
            stack.pop()
            continue
        here = path + b"/" + entry.name if path else entry.name
        directory = stat.S_ISDIR(entry.mode)
        if folders or not directory:
            yield here, entry
        if directory:
            stack.append((here, view.scan(entry)))


def _begun(view: PointView, top: Entry, after: bytes) -> list[tuple[bytes, Iterator[Entry]]]:
    """The directories on the way to ``after``, each at the place behind it."""
    if not after:
        return [(b"", view.scan(top))]
    stack: list[tuple[bytes, Iterator[Entry]]] = []
    path = b""
    names = after.split(b"/")
    here: Entry | None = top
    for place, name in enumerate(names):
        if here is None or not name or not stat.S_ISDIR(here.mode):
            raise InvalidRequest("cursor", expected="one of this point", found="another's")
        stack.append((path, view.scan(here, after=name)))
        path = path + b"/" + name if path else name
        if place < len(names) - 1:
            here = view.get(here, name)
    return stack


def found(view: PointView, path: str) -> Entry:
    """The entry at a path of a request. Raises NotFound, InvalidRequest."""
    raw = raw_path(path)
    entry = view.lookup(raw)
    if entry is None:
        raise NotFound(
            f"path {text_path(raw)!r} in the point", expected="a file or directory", found="nothing"
        )
    return entry
