"""A disk as a power cut may leave it: which writes and names survive, by the letter of POSIX and no more.

Data written is durable when a later fsync or fdatasync of that file has returned, or when it went through O_DSYNC.  A
name (made, moved, removed) is durable when a later fsync of its directory has returned; for a move, that of the
directory moved to.  Everything else may be there or not, in any combination: pages of one write, sectors of the
last.  File systems promise more; a store that is right here does not depend on which it lies on.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from tools.torture.crash.trace import Event

SECTOR, PAGE = 512, 4096


@dataclass
class _Data:
    """A write (``data``), or a truncation to ``offset`` (None), of one file."""

    end: int
    offset: int
    data: bytes | None
    durable: bool


class Gone:
    """An entry that is removed."""


GONE = Gone()


@dataclass(eq=False)
class _File:
    """Its content as it is durable, and what was done since."""

    base: bytearray = field(default_factory=bytearray)
    later: list[_Data] = field(default_factory=list)
    _frozen: bytes | None = None

    def whole(self) -> bytes:
        """The content when nothing was done since; the same object until something is."""
        if self._frozen is None:
            self._frozen = bytes(self.base)
        return self._frozen

    def sync(self, start: int) -> None:
        """Everything that had ended when the sync began is durable."""
        for one in self.later:
            one.durable |= one.end < start
        while self.later and self.later[0].durable:
            _put(self.base, self.later.pop(0))
            self._frozen = None


class _Name(NamedTuple):
    """Entries that change together: path -> file, or None for a directory."""

    end: int
    folder: str  # whose fsync makes it durable
    entries: dict[str, _File | Gone | None]


def _put(content: bytearray, change: _Data) -> None:
    if change.data is None:
        if change.offset < len(content):
            del content[change.offset :]
            return
        content.extend(bytes(change.offset - len(content)))
        return
    if change.offset > len(content):
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.offset + len(change.data)] = change.data


Choice = Callable[[random.Random], bool]


class Style(NamedTuple):
    """How what is not durable is chosen: names, data (for each page, or all alike for a file), and the last write."""

    name: str
    names: Choice
    data: Choice
    whole_files: bool = False
    torn: bool = False


def _always(rng: random.Random) -> bool:
    return True


def _never(rng: random.Random) -> bool:
    return False


def _maybe(rng: random.Random) -> bool:
    return rng.random() < 0.5


KEPT = Style("kept", _always, _always)
STYLES = (
    KEPT,
    Style("dropped", _never, _never),
    Style("torn", _always, _always, torn=True),
    Style("names", _always, _never),
    Style("data", _never, _always),
    Style("pages", _maybe, _maybe),
    Style("files", _maybe, _maybe, whole_files=True),
    Style("mixed", _always, _maybe),
)


class State(NamedTuple):
    """A tree of files: path -> content, None for a directory; in the order of paths."""

    entries: dict[str, bytes | None]

    def digest(self, known: dict[int, tuple[bytes, bytes]]) -> bytes:
        """Equal for equal states. ``known`` keeps the digests of contents that are the same object next time."""
        total = hashlib.blake2b(digest_size=16)
        for path, content in self.entries.items():
            total.update(path.encode() + b"\0")
            if content is not None:
                held = known.get(id(content))
                if held is None or held[0] is not content:
                    held = known[id(content)] = (content, hashlib.blake2b(content).digest())
                total.update(held[1])
        return total.digest()

    def write(self, top: str) -> None:
        """Make it below a directory that exists."""
        for path, content in self.entries.items():
            place = os.path.join(top, path)
            if content is None:
                os.mkdir(place, 0o700)
            else:
                with open(place, "xb", opener=_private, buffering=0) as file:
                    file.write(content)

    @classmethod
    def read(cls, top: str) -> State:
        """What lies below a directory."""
        entries: dict[str, bytes | None] = {}
        for folder, folders, names in os.walk(top):
            folders.sort()
            for name in folders:
                entries[os.path.relpath(os.path.join(folder, name), top)] = None
            for name in sorted(names):
                place = os.path.join(folder, name)
                if not stat.S_ISSOCK(os.lstat(place).st_mode):
                    with open(place, "rb") as file:
                        entries[os.path.relpath(place, top)] = file.read()
        return cls(dict(sorted(entries.items())))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _folder(path: str) -> str:
    return os.path.dirname(path) or "."


def _name(tree: dict[str, _File | None], entries: dict[str, _File | Gone | None]) -> None:
    for path, there in entries.items():
        if isinstance(there, Gone):
            tree.pop(path, None)
        else:
            tree[path] = there


class Disk:
    """Fed with events in order; ``state`` tells what a cut just now may leave."""

    def __init__(self, start: State | None = None) -> None:
        """``start``: what lies there durably before the first event."""
        self._base: dict[str, _File | None] = {".": None}
        for path, content in (start or State({})).entries.items():
            self._base[path] = None if content is None else _File(bytearray(content))
        self._names: list[_Name] = []
        self._now: dict[str, _File | None] = dict(self._base)
        self._last: _Data | None = None

    def feed(self, event: Event) -> bool:
        """Take one event; False when it changed nothing that a cut could show."""
        self._last = None
        if event.kind == "mark" or event.path.endswith("lock.mdb"):
            return False  # the lock is made anew by whoever opens the index first after a boot
        return bool(getattr(self, f"_{event.kind}")(event))

    # --- events -------------------------------------------------------------------------------------------

    def _entries(self, event: Event, folder: str, entries: dict[str, _File | Gone | None]) -> bool:
        self._names.append(_Name(event.end, folder, entries))
        _name(self._now, entries)
        return True

    def _create(self, event: Event) -> bool:
        if event.path in self._now:
            return False
        return self._entries(event, _folder(event.path), {event.path: _File()})

    def _mkdir(self, event: Event) -> bool:
        return self._entries(event, _folder(event.path), {event.path: None})

    def _unlink(self, event: Event) -> bool:
        return self._entries(event, _folder(event.path), {event.path: GONE})

    _rmdir = _unlink

    def _rename(self, event: Event) -> bool:
        moved = self._now[event.path]
        entries: dict[str, _File | Gone | None] = {event.path: GONE, event.other: moved}
        for path, there in self._now.items():  # a directory takes along what is in it
            if path.startswith(event.path + "/"):
                entries[path] = GONE
                entries[event.other + path[len(event.path) :]] = there
        return self._entries(event, _folder(event.other), entries)

    def _write(self, event: Event) -> bool:
        file = self._now[event.path]
        assert isinstance(file, _File), event.path
        self._last = _Data(event.end, event.offset, event.data, event.durable)
        file.later.append(self._last)
        return True

    def _truncate(self, event: Event) -> bool:
        file = self._now[event.path]
        assert isinstance(file, _File), event.path
        file.later.append(_Data(event.end, event.offset, None, False))
        return True

    def _allocate(self, event: Event) -> bool:
        raise AssertionError(f"no file but the lock is allocated: {event.path}")

    def _sync(self, event: Event) -> bool:
        found = self._now.get(event.path)
        if isinstance(found, _File):
            found.sync(event.start)
        else:
            rest = []
            for one in self._names:
                if one.folder == event.path and one.end < event.start:
                    _name(self._base, one.entries)
                else:
                    rest.append(one)
            self._names = rest
        return True

    # --- what is durable ----------------------------------------------------------------------------------

    def content(self, path: str) -> bytes:
        """A file as programs see it now."""
        file = self._now[path]
        assert isinstance(file, _File), path
        return self._content(file, KEPT, random.Random(0))

    def loose(self, path: str, end: int) -> str:
        """Why the first ``end`` bytes of a file would not be found after a cut; empty when they would."""
        file = self._now.get(path)
        if not isinstance(file, _File):
            return f"{path} does not exist"
        name = path
        while name != ".":
            if name not in self._base or self._base[name] is not self._now.get(name):
                return f"the name of {name} is not synced"
            name = _folder(name)
        for one in file.later:
            if not one.durable and one.offset < end:
                return f"a write at {one.offset} of {path} is not synced"
        return "" if len(self.content(path)) >= end else f"{path} ends before {end}"

    # --- what is left -------------------------------------------------------------------------------------

    def state(self, style: Style, rng: random.Random) -> State:
        """What a cut now may leave."""
        tree = dict(self._base)
        for one in self._names:
            if style.names(rng):
                _name(tree, one.entries)
        entries: dict[str, bytes | None] = {}
        for path in sorted(tree):
            folder = _folder(path)
            if path == "." or (folder != "." and entries.get(folder, b"") is not None):
                continue  # what is in a directory that is not there is not there
            file = tree[path]
            entries[path] = None if file is None else self._content(file, style, rng)
        return State(entries)

    def _content(self, file: _File, style: Style, rng: random.Random) -> bytes:
        if not file.later:
            return file.whole()
        content = bytearray(file.base)
        whole = style.data(rng)
        for one in file.later:
            torn = style.torn and one is self._last
            if torn:
                _put_some(content, one, SECTOR, lambda: rng.random() < 0.5)
            elif one.durable or one.data is None or style.whole_files:
                if one.durable or whole:
                    _put(content, one)
            else:
                _put_some(content, one, PAGE, lambda: style.data(rng))
        return bytes(content)


def _put_some(content: bytearray, one: _Data, unit: int, keep: Callable[[], bool]) -> None:
    """Units of one write reach the disk one by one."""
    assert one.data is not None
    at = 0
    while at < len(one.data):
        end = min(len(one.data), at + unit - (one.offset + at) % unit)
        if keep():
            _put(content, _Data(one.end, one.offset + at, one.data[at:end], False))
        at = end
