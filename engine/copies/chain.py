"""The order of journal entries, and what they add up to.

``Chain`` takes entries one after the other and refuses whatever is not the next one; ``State`` is what holds after
them: the truth from which a store is made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine import strict
from engine.copies import journal
from engine.copies.journal import (
    Begin,
    Checkpoint,
    Entry,
    Locked,
    PacksChanged,
    Place,
    Point,
    PointMade,
    Removed,
)
from engine.copies.sealed import PackRow
from engine.errors import Corrupt
from engine.keys import Vault

_DO = "find out who wrote to the location"
_STAYS = ("object_lock",)  # of what is set for a location: no entry switches it off


class State:
    """What holds: ``points`` in the order they were made, ``packs`` by name, ``locks``: point -> time in ns.

    ``store``: whose location it is; ``contested``: points that were removed while a lock held, and so are still here;
    ``gone``: packs that an entry says are gone, which a contested point may need; ``place``: what the store had set for
    the location itself.
    """

    def __init__(self) -> None:
        self.store = b""
        self.points: dict[str, Point] = {}
        self.packs: dict[str, PackRow] = {}
        self.locks: dict[str, int] = {}
        self.contested: set[str] = set()
        self.gone: dict[str, PackRow] = {}
        self.place: Mapping[str, Any] = {}

    @property
    def settings(self) -> dict[str, Mapping[str, Any]]:
        """Settings of each mount as they were at its newest point."""
        return {point.mount: point.settings for point in self.points.values()}

    def apply(self, entry: Entry) -> None:
        """What the entry says holds from now on. Raises Corrupt, and then nothing of it does."""
        match entry.body:
            case Begin(store):
                self._of_store(store, entry)
            case PointMade(point, packs):
                if self.points.get(point.id, point) != point:
                    strict.refuse(f"journal entry {entry.seq}", "a new point", point.id)
                self._add(packs, entry)
                self.points[point.id] = point
            case Removed(points):
                self._remove(points, entry)
            case PacksChanged(packs, gone):
                self._add(packs, entry)
                for (
                    name
                ) in gone:  # of one that no entry names, too: it never became part of a point
                    row = self.packs.pop(name, None)
                    if row is not None:
                        self.gone[name] = row
            case Locked(points, until_ns):
                if missing := [name for name in points if name not in self.points]:
                    strict.refuse(f"journal entry {entry.seq}", "points that are here", missing[0])
                for name in points:  # longer, never shorter
                    self.locks[name] = max(until_ns, self.locks.get(name, 0))
            case Place(settings):
                kept = {name: True for name in _STAYS if self.place.get(name) is True}
                self.place = {**settings, **kept}
            case Checkpoint():
                self._checkpoint(entry.body, entry)

    def checkpoint(self) -> Checkpoint:
        """The entry that says all of this."""
        points, packs = tuple(self.points.values()), tuple(self.packs.values())
        return Checkpoint(self.store, points, packs, dict(self.locks), self.place)

    def refuse_forgetting(self, body: Checkpoint, entry: Entry) -> None:
        """Raises Corrupt for a checkpoint, which does not follow what adds up to this, but leaves out of it what is
        locked at its time, or that the server retains."""
        points = {point.id: point for point in body.points}
        for name, until in self.locks.items():
            same = points.get(name) == self.points[name]
            if until > entry.time_ns and not (same and body.locks.get(name, 0) >= until):
                raise Corrupt(
                    f"journal entry {entry.seq}", expected=f"point {name}, which is locked, as it was before",
                    found="another, or none", do=_DO,
                )  # fmt: skip
        for name in _STAYS:
            if self.place.get(name) is True and body.place.get(name) is not True:
                raise Corrupt(
                    f"journal entry {entry.seq}",
                    expected=f"{name}, as it was before",
                    found="none",
                    do=_DO,
                )

    def _of_store(self, store: bytes, entry: Entry) -> None:
        if self.store not in (b"", store):
            raise Corrupt(
                f"journal entry {entry.seq}", expected=f"store {self.store.hex()}", found=store.hex(), do=_DO
            )  # fmt: skip
        self.store = store

    def _add(self, packs: tuple[PackRow, ...], entry: Entry) -> None:
        for row in packs:
            if self.packs.get(row.name, row) != row:
                strict.refuse(f"journal entry {entry.seq}", f"pack {row.name} as before", "another")
        self.packs.update((row.name, row) for row in packs)

    def _remove(self, points: tuple[str, ...], entry: Entry) -> None:
        if missing := [name for name in points if name not in self.points]:
            strict.refuse(f"journal entry {entry.seq}", "points that are here", missing[0])
        for name in points:
            if self.locks.get(name, 0) > entry.time_ns:
                self.contested.add(name)  # no writer of ours does that
            else:
                del self.points[name]
                self.locks.pop(name, None)

    def _checkpoint(self, body: Checkpoint, entry: Entry) -> None:
        """Where entries before it were read, it must say what they add up to: it is no way to drop a point unseen."""
        first = not self.store
        said = (list(body.points), sorted(body.packs), dict(body.locks), body.place)
        known = (
            list(self.points.values()), sorted(self.packs.values()), self.locks, self.place
        )  # fmt: skip
        if not first and said != known:
            raise Corrupt(
                f"journal entry {entry.seq}", expected="all that the entries before it say", found="something else",
                do=_DO,
            )  # fmt: skip
        self._of_store(body.store, entry)
        self.points = {point.id: point for point in body.points}
        self.packs = {row.name: row for row in body.packs}
        self.locks = dict(body.locks)
        self.place = body.place


class Chain:
    """Takes entries in order: from number 1, or from a checkpoint, or behind one that is known already.

    ``seq`` and ``digest``: of the entry taken last, 0 and zeros before the first. ``writer``: who may append.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.state = State()
        self._epoch = 0
        self.seq = 0
        self.digest = journal.FIRST_PREV
        self.writer = b""

    def take(self, seq: int, raw: bytes) -> Entry:
        """The next entry, checked and part of ``state``.

        Raises Corrupt for a gap, a fork, a replay, an entry of a writer who was replaced, or one that contradicts what
        holds; then nothing has changed. Raises FormatTooNew, PermissionDenied.
        """
        entry = journal.decode(self._vault, seq, raw)
        self._follows(entry)
        epoch = journal.refuse_older(raw, self._epoch, seq)
        self.state.apply(entry)
        self._epoch = epoch
        self.seq, self.digest, self.writer = seq, journal.digest(raw), entry.writer
        return entry

    def pass_over(self, seq: int) -> None:
        """Go on behind the next entry, a checkpoint that cannot be read: it said no more than what holds.

        What comes behind it is taken to follow it: whoever calls knows the ``digest`` that it must end with, b"" when
        this is the last.
        """
        assert seq == self.seq + 1
        self.seq, self.digest = seq, b""

    def next(self, writer: bytes, time_ns: int, body: journal.Body) -> Entry:
        """The entry this writer would append."""
        return Entry(self.seq + 1, self.digest, writer, time_ns, body)

    def _follows(self, entry: Entry) -> None:
        what, body = f"journal entry {entry.seq}", entry.body
        if not self.seq:
            if not isinstance(body, Checkpoint) and not (
                entry.seq == 1 and isinstance(body, Begin)
            ):
                raise Corrupt(
                    what, expected="entry 1 or a checkpoint to begin with", found="another", do=_DO
                )
            if entry.seq != 1:
                return
        elif entry.seq != self.seq + 1:
            raise Corrupt(what, expected=f"entry {self.seq + 1}", found="another number", do=_DO)
        if self.digest and entry.prev != self.digest:
            raise Corrupt(
                what, expected="one that follows what was read before", found="a fork", do=_DO
            )
        if isinstance(body, Begin):
            if body.replaces != self.writer or body.replaces == entry.writer:
                raise Corrupt(
                    what, expected="a writer in place of the one before", found="another", do=_DO
                )
        elif entry.writer != self.writer:
            raise Corrupt(
                what, expected=f"writer {self.writer.hex()}", found=f"{entry.writer.hex()}, who was replaced", do=_DO
            )  # fmt: skip
