"""What one writer did to its own tree, and so what may be there after a crash: the oracle of the crash rigs.

A writer does one operation after the other.  ``begin`` tells of an operation before it is asked for, ``done`` when it
returned.  What may be found then:

names  the tree of names, types, modes, targets, extended attributes and hard links is that after *one* operation
       between the last that was made durable and the last that was begun: one prefix of history.
data   every byte of a file is that of its last fsync or of a write begun after that; its size is one it had since.
points the tree as it was, with every write that had returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Meta(NamedTuple):
    """What is seen of an inode but for its content. ``kind``: f, d or l."""

    kind: str
    mode: int
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


class Seen(NamedTuple):
    """One path as it is found: ``ino`` tells hard links, ``data`` is a file's content."""

    meta: Meta
    ino: int
    data: bytes = b""


class Op(NamedTuple):
    """One operation: ``other`` a second path or a name, ``number`` an offset, size, mode or flags."""

    kind: str
    path: bytes = b""
    other: bytes = b""
    number: int = 0
    data: bytes = b""


class Change(NamedTuple):
    """A write (``data``) at ``at``, or a truncation to ``at`` (None), by operation ``by``."""

    by: int
    at: int
    data: bytes | None


@dataclass
class Content:
    """A file's content: what is durable, and what came after."""

    base: bytes = b""
    changes: list[Change] = field(default_factory=list)
    now: bytearray = field(default_factory=bytearray)


class State(NamedTuple):
    """The names after operation ``after``. Never changed once made."""

    after: int
    paths: dict[bytes, int]
    metas: dict[int, Meta]


def _applied(base: bytes, changes: Iterable[Change]) -> bytes:
    data = bytearray(base)
    for change in changes:
        _apply(data, change)
    return bytes(data)


def _apply(data: bytearray, change: Change) -> None:
    if change.data is None:
        if change.at < len(data):
            del data[change.at :]
        else:
            data.extend(bytes(change.at - len(data)))
        return
    if len(data) < change.at:
        data.extend(bytes(change.at - len(data)))
    data[change.at : change.at + len(change.data)] = change.data


def misfit(found: bytes, base: bytes, changes: Iterable[Change]) -> str:
    """Why ``found`` can not be ``base`` with any of the changes after it; empty when it can."""
    actual = np.frombuffer(found, np.uint8)
    fits = np.zeros(len(found), bool)

    def allow(start: int, end: int, values: bytes | None) -> None:
        end = min(end, len(found))
        if start < end:
            wanted = 0 if values is None else np.frombuffer(values, np.uint8)[: end - start]
            fits[start:end] |= actual[start:end] == wanted

    allow(0, len(base), base)
    size = least = most = len(base)
    for change in changes:
        end = change.at if change.data is None else change.at + len(change.data)
        if change.data is None:
            allow(size, end, None)
            size = end
        else:
            allow(size, change.at, None)
            allow(change.at, end, change.data)
            size = max(size, end)
        least, most = min(least, size), max(most, size)
    if not least <= len(found) <= most:
        return f"size {len(found)}, expected {least} to {most}"
    if not fits.all():
        bad = int(np.argmin(fits))
        return f"byte {bad} of {len(found)} is {found[bad]}, which nobody wrote there ({int((~fits).sum())} such bytes)"
    return ""


@dataclass(frozen=True)
class Picture:
    """What may be found of one writer's tree at one moment."""

    states: tuple[State, ...]
    contents: dict[int, tuple[bytes, tuple[Change, ...]]]

    def misfit(self, seen: Mapping[bytes, Seen]) -> str:
        """Why this can not be what is left; empty when it can."""
        matches = [state for state in reversed(self.states) if not _differs(state, seen)]
        if not matches:
            first, last = self.states[0], self.states[-1]
            return (
                f"no state between operations {first.after} and {last.after};"
                f" after {first.after}: {_differs(first, seen)}; after {last.after}: {_differs(last, seen)}"
            )
        # Several look alike but for content: two files of one mode changed places.
        wrongs = [self._content(state, seen) for state in matches]
        return wrongs[0] if all(wrongs) else ""

    def _content(self, state: State, seen: Mapping[bytes, Seen]) -> str:
        for path, key in state.paths.items():
            if state.metas[key].kind == "f":
                base, changes = self.contents[key]
                wrong = misfit(seen[path].data, base, changes)
                if wrong:
                    return f"{path!r}: {wrong}"
        return ""


def _differs(state: State, seen: Mapping[bytes, Seen]) -> str:
    if state.paths.keys() != seen.keys():
        gone, new = state.paths.keys() - seen.keys(), seen.keys() - state.paths.keys()
        return f"missing {sorted(gone)}, unexpected {sorted(new)}"
    inodes: dict[int, int] = {}
    for path, key in state.paths.items():
        if seen[path].meta != state.metas[key]:
            return f"{path!r} is {seen[path].meta}, expected {state.metas[key]}"
        if inodes.setdefault(key, seen[path].ino) != seen[path].ino:
            return f"{path!r} is no link of its file any more"
    if len(set(inodes.values())) != len(inodes):
        return "two files have become one"
    return ""


class History:
    """See the module."""

    def __init__(self) -> None:
        self.begun = 0  # operations are numbered from 1
        self.finished = 0
        self.durable = 0  # names up to here can not be lost
        self._next_key = 1
        self._states = [State(0, {}, {})]
        self.contents: dict[int, Content] = {}

    @classmethod
    def of(cls, seen: Mapping[bytes, Seen]) -> History:
        """The history that begins with what was found, all of it durable."""
        history = cls()
        keys: dict[int, int] = {}
        for path, one in seen.items():
            key = keys.setdefault(one.ino, len(keys) + 1)
            history.now.paths[path] = key
            history.now.metas[key] = one.meta
            if one.meta.kind == "f":
                history.contents[key] = Content(one.data, [], bytearray(one.data))
        history._next_key = len(keys) + 1
        return history

    def copy(self) -> History:
        """The same, to be gone on with apart: for what may be in a snapshot, which no later fsync settles."""
        other = History()
        other.begun, other.finished, other.durable = self.begun, self.finished, self.durable
        other._next_key, other._states = self._next_key, list(self._states)
        other.contents = {
            key: Content(one.base, list(one.changes), bytearray(one.now))
            for key, one in self.contents.items()
        }
        return other

    @property
    def now(self) -> State:
        """The tree as it is when all that was begun has happened."""
        return self._states[-1]

    def begin(self, op: Op) -> int:
        """The operation is about to be asked for; its number."""
        assert self.begun == self.finished, "one operation after the other"
        self.begun += 1
        change = getattr(self, f"_{op.kind}", None)
        if change is not None:
            change(op)
        return self.begun

    def done(self, op: Op) -> None:
        """The operation returned without an error."""
        self.finished = self.begun
        if op.kind == "fsync":
            content = self.contents[self.now.paths[op.path]]
            content.base, content.changes = bytes(content.now), []
        if op.kind in ("fsync", "fsyncdir"):
            self.settled(self.begun)

    def settled(self, index: int) -> None:
        """Names up to an operation are durable: earlier states are forgotten."""
        self.durable = max(self.durable, index)
        at = max(i for i, state in enumerate(self._states) if state.after <= self.durable)
        del self._states[:at]

    def all_settled(self) -> None:
        """Everything that was done is durable: a barrier, a snapshot, an unmount."""
        for content in self.contents.values():
            content.base, content.changes = bytes(content.now), []
        self.settled(self.begun)

    def picture(self, floor: int | None = None) -> Picture:
        """What a crash now may leave. With ``floor``: what holds at least every operation up to that one."""
        low = self.durable if floor is None else max(floor, self.durable)
        start = max(i for i, state in enumerate(self._states) if state.after <= low)
        contents = {}
        for key, content in self.contents.items():
            fixed = [c for c in content.changes if floor is not None and c.by <= floor]
            loose = tuple(content.changes[len(fixed) :])
            contents[key] = (_applied(content.base, fixed) if fixed else content.base, loose)
        return Picture(tuple(self._states[start:]), contents)

    # --- what operations change ---------------------------------------------------------------------------

    def _push(self, paths: dict[bytes, int], metas: dict[int, Meta]) -> None:
        self._states.append(State(self.begun, paths, metas))

    def _make(self, path: bytes, meta: Meta) -> None:
        key = self._next_key
        self._next_key += 1
        self._push({**self.now.paths, path: key}, {**self.now.metas, key: meta})
        if meta.kind == "f":
            self.contents[key] = Content()

    def _create(self, op: Op) -> None:
        self._make(op.path, Meta("f", op.number))

    def _mkdir(self, op: Op) -> None:
        self._make(op.path, Meta("d", op.number))

    def _symlink(self, op: Op) -> None:
        self._make(op.path, Meta("l", 0o777, op.other))

    def _link(self, op: Op) -> None:
        paths = self.now.paths
        self._push({**paths, op.other: paths[op.path]}, self.now.metas)

    def _unlink(self, op: Op) -> None:
        self._push({p: k for p, k in self.now.paths.items() if p != op.path}, self.now.metas)

    _rmdir = _unlink

    def _rename(self, op: Op) -> None:
        def renamed(path: bytes, old: bytes, new: bytes) -> bytes | None:
            return new + path[len(old) :] if path == old or path.startswith(old + b"/") else None

        exchange = bool(op.number & 2)
        paths = {}
        for path, key in self.now.paths.items():
            there = renamed(path, op.path, op.other)
            back = renamed(path, op.other, op.path)
            if there is not None:
                paths[there] = key
            elif back is None:
                paths[path] = key
            elif exchange:
                paths[back] = key
        self._push(paths, self.now.metas)

    def _set(self, path: bytes, meta: Meta) -> None:
        self._push(self.now.paths, {**self.now.metas, self.now.paths[path]: meta})

    def _chmod(self, op: Op) -> None:
        self._set(op.path, self.now.metas[self.now.paths[op.path]]._replace(mode=op.number))

    def _setxattr(self, op: Op) -> None:
        meta = self.now.metas[self.now.paths[op.path]]
        xattrs = {**dict(meta.xattrs), op.other: op.data}
        self._set(op.path, meta._replace(xattrs=tuple(sorted(xattrs.items()))))

    def _change(self, path: bytes, change: Change) -> None:
        content = self.contents[self.now.paths[path]]
        content.changes.append(change)
        _apply(content.now, change)

    def _write(self, op: Op) -> None:
        self._change(op.path, Change(self.begun, op.number, op.data))

    def _truncate(self, op: Op) -> None:
        self._change(op.path, Change(self.begun, op.number, None))
