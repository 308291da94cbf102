"""``restores``: directories of recovery points shown in the root of a mount, one for each restore, read-only.

``restores/JOB`` shows a point, a directory inside it, or some of what is in it, at no cost.  Listed while there is any;
not part of recovery points; a name ``restores`` in the live tree wins, and then nothing is shown.  The number of the
restore is part of the inodes, and means the same for ever.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.errors import AlreadyExists, InvalidRequest, NotFound
from fsmount.pointfs import Entry, View
from fsmount.snapdir import POINTS_MAX, Named, Points

NAME = b"restores"
SHOWN_MAX = 1000  # restores shown at once
_FIELDS = {"point", "path", "paths", "from"}


class Below:
    """A directory of a point, as if it were the point."""

    def __init__(self, view: View, root: Entry) -> None:
        self._view = view
        self.root_entry = root

    def get(self, directory: Entry, name: bytes) -> Entry | None:
        return self._view.get(directory, name)

    def scan(self, directory: Entry, after: bytes) -> Iterator[Entry]:
        return self._view.scan(directory, after)

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        return self._view.read(entry, offset, size)

    def xattrs(self, entry: Entry) -> dict[bytes, bytes]:
        return self._view.xattrs(entry)


class Some(Below):
    """Of a directory what is at some paths, whole, and the directories on the way. Raises NotFound."""

    def __init__(self, view: View, root: Entry, what: Shown) -> None:
        super().__init__(view, root)
        self._names: dict[
            int, set[bytes]
        ] = {}  # by inode of a directory on the way: what is shown of it
        wanted = {tuple(filter(None, os.fsencode(path).split(b"/"))) for path in what.paths}
        for names in sorted(wanted):
            above = {names[:depth] for depth in range(1, len(names))}
            if not above & wanted:  # else all of the directory is shown
                self._show(root, names, what)

    def _show(self, entry: Entry, names: tuple[bytes, ...], what: Shown) -> None:
        for name in names:
            found = self._view.get(entry, name) if stat.S_ISDIR(entry.mode) else None
            if found is None:
                path = os.fsdecode(b"/".join(names))
                raise NotFound(f"path {path!r} in point {what.point}")
            self._names.setdefault(entry.ino, set()).add(name)
            entry = found

    def get(self, directory: Entry, name: bytes) -> Entry | None:
        names = self._names.get(directory.ino)
        return None if names is not None and name not in names else super().get(directory, name)

    def scan(self, directory: Entry, after: bytes) -> Iterator[Entry]:
        names = self._names.get(directory.ino)
        if names is None:
            return super().scan(directory, after)
        found = (super(Some, self).get(directory, name) for name in sorted(names) if name > after)
        return filter(None, found)


class Shown(NamedTuple):
    """What a restore shows. ``paths``: of the directory ``path`` these only, all when there are none; ``location``:
    where it is read from, "" for wherever its bytes are."""

    point: str
    path: str
    paths: tuple[str, ...] = ()
    location: str = ""


class Plan(NamedTuple):
    """What will be shown, and what each number has ever shown."""

    shown: dict[int, tuple[Named, View]]
    meant: dict[int, Shown]


class Restores:
    """What is shown, in the manner of ``snapdir.Points``. Thread-safe: what is shown changes as a whole."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self._shown: dict[int, tuple[Named, View]] = {}
        self._meant: dict[int, Shown] = {}  # what each number ever showed: the kernel may remember

    def names(self) -> list[Named]:
        return [named for named, _ in self._shown.values()]

    def view(self, name: bytes, location: str = "") -> View:
        """``location`` is part of what is shown, and nobody's wish."""
        for named, view in self._shown.values():
            if named.name == name:
                return view
        raise NotFound(f"restore {name!r}")

    def planned(self, wanted: object) -> Plan:
        """[T] To show these and no others, as ``control`` has them. Raises InvalidRequest, NotFound, and what keeps a
        point from being read."""
        shown: dict[int, tuple[Named, View]] = {}
        meant = dict(self._meant)
        for number, what in parsed(wanted).items():
            if meant.setdefault(number, what) != what:
                raise InvalidRequest(
                    f"restore {number}", expected=f"to show {meant[number]} as before", found=f"{what}",
                    do="use another number",
                )  # fmt: skip
            if number in self._shown:
                shown[number] = self._shown[number]
                continue
            view = self._points.view(what.point.encode(), what.location)
            root = _directory(view, what.point, what.path)
            named = Named(b"%d" % number, number, root.mtime_ns, root)
            shown[number] = named, Some(view, root, what) if what.paths else Below(view, root)
        return Plan(shown, meant)

    def show(self, plan: Plan) -> None:
        """From now on. Short, fit for the loop."""
        self._shown, self._meant = plan


def parsed(wanted: object) -> dict[int, Shown]:
    """What a request wants to be shown, by number. Raises InvalidRequest."""
    if not isinstance(wanted, dict) or len(wanted) > SHOWN_MAX:
        raise InvalidRequest("restores", expected=f"an object with at most {SHOWN_MAX} fields")
    return {_number(key): _what(key, value) for key, value in wanted.items()}


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and str(int(text)) == text):
        raise InvalidRequest("restores", expected="numbers as names", found=repr(text[:40]))
    if not 0 < int(text) < POINTS_MAX:
        raise InvalidRequest(f"restore {text}", expected=f"a number from 1 to {POINTS_MAX - 1}")
    return int(text)


def _what(key: str, value: Any) -> Shown:
    if isinstance(value, dict) and {"point", "path"} <= value.keys() <= _FIELDS:
        point, path, location = value["point"], value["path"], value.get("from", "")
        paths = value.get("paths", [])
        texts = [point, path, location, *(paths if isinstance(paths, list) else [None])]
        if all(isinstance(one, str) for one in texts) and point.isascii() and point:
            return Shown(point, path.strip("/"), tuple(paths), location)
    raise InvalidRequest(f"restore {key}", expected="a point and a path", found="something else")


def _directory(view: View, point: str, path: str) -> Entry:
    entry = view.root_entry
    for name in filter(None, os.fsencode(path).split(b"/")):
        found = view.get(entry, name) if stat.S_ISDIR(entry.mode) else None
        if found is None:
            raise NotFound(f"path {path!r} in point {point}")
        entry = found
    if not stat.S_ISDIR(entry.mode):
        raise InvalidRequest(
            f"path {path!r} in point {point}", expected="a directory", found="something else",
            do="show the directory it is in",
        )  # fmt: skip
    return entry


def taken() -> AlreadyExists:
    """The live tree has that name itself."""
    return AlreadyExists(
        "restores", expected="no such name in the mount's root", found="one",
        do="rename it, or restore to a target",
    )  # fmt: skip
