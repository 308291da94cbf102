"""What is known of a store's recovery points: asked for, acknowledged, removed; and what each must hold for ever."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.store import PointInfo
from tools.torture.history import History, Meta, Picture, Seen
from tools.torture.kill.commands import BUSY, Command
from tools.torture.kill.served import Broken, Served, split

_SAID = re.compile(r"^point \d+ of \S+: (\w+)$", re.MULTILINE)
Print = dict[bytes, tuple[Meta, int, bytes]]
Look = Callable[[PointInfo], dict[bytes, Seen]]


def fingerprint(seen: Mapping[bytes, Seen]) -> Print:
    """A tree in short: what a point showed once, it shows for ever. Inode numbers are counted anew."""
    numbers: dict[int, int] = {}
    return {
        path: (one.meta, numbers.setdefault(one.ino, len(numbers)), hashlib.sha256(one.data).digest())
        for path, one in sorted(seen.items())
    }  # fmt: skip


def fingerprint_of(history: History) -> Print:
    """The same of what a history says is there now."""
    state = history.now
    seen = {
        path: Seen(state.metas[key], key, _content(history, key)) for path, key in state.paths.items()
    }  # fmt: skip
    return fingerprint(seen)


def _content(history: History, key: int) -> bytes:
    return bytes(history.contents[key].now) if key in history.contents else b""


class Taking:
    """A snapshot that is being made."""

    def __init__(self, served: Served, label: str, begin: Callable[[str], Command]) -> None:
        self.served = served
        self.label = label
        self._asked = [(writer, writer.ask()) for writer in served.writers]
        self._crashed = served.died or not served.pid
        self.command = begin(label)
        self.pictures: dict[str, Picture] = {}

    @property
    def point(self) -> str:
        """The id it has said; empty when it has not said one."""
        found = _SAID.search(self.command.said)
        return found[1] if found else ""

    def ended(self) -> None:
        """The command has ended, or was killed: what is begun from now on is not in the point."""
        if not self.pictures:
            crashed = self._crashed or self.served.died
            for writer, asked in self._asked:
                self.pictures[writer.name] = writer.answered(asked, crashed=crashed)

    def misfit(self, seen: Mapping[bytes, Seen]) -> str:
        """Why the point cannot hold this; empty when it can."""
        for name, picture in self.pictures.items():
            wrong = picture.misfit(split(dict(seen), name))
            if wrong:
                return f"{name}: {wrong}"
        return ""


@dataclass
class Book:
    """All points of one store."""

    prints: dict[str, Print] = field(default_factory=dict)  # of points that were looked at
    takings: list[Taking] = field(default_factory=list)  # of this round
    acknowledged: set[str] = field(default_factory=set)
    going: set[str] = field(default_factory=set)  # asked to be removed, unknown whether they are
    gone: set[str] = field(default_factory=set)  # acknowledged to be removed

    def removal_ended(self, point: str, command: Command) -> None:
        """What a removal's end says."""
        if not command.killed and command.status == 0:
            self.gone.add(point)
        elif command.killed:
            self.going.add(point)
            if f"point {point} deleted" in command.said:
                self.gone.add(point)
        elif command.status != BUSY:
            raise Broken(f"removing point {point} failed: {command.complained}")

    def note_takings(self) -> None:
        """Of the snapshots of this round, which were acknowledged. Raises Broken for one refused without a reason."""
        for taking in self.takings:
            if taking.point:
                self.acknowledged.add(taking.point)
            elif not taking.command.killed and not taking.served.died:
                raise Broken(
                    f"snapshot of {taking.served.name} failed: {taking.command.complained}"
                )

    def compare(self, there: list[PointInfo], look: Look, old: int) -> int:
        """The list of points is what it may be, and so is what new ones hold, and ``old`` others, the oldest first.

        Returns how many were looked at. Raises Broken.
        """
        self.note_takings()
        ids = {point.id for point in there}
        lost = (self.acknowledged | self.prints.keys()) - self.gone - self.going - ids
        if lost:
            raise Broken(f"points {sorted(lost)} were acknowledged, and are not there")
        back = self.gone & ids
        if back:
            raise Broken(f"points {sorted(back)} were removed, and are there")
        self.gone |= self.going - ids
        self.going.clear()
        looked = 0
        labels = {taking.label: taking for taking in self.takings}
        for point in there:
            if point.id in self.prints:
                if old > 0:
                    old -= 1
                    looked += 1
                    if fingerprint(look(point)) != self.prints[point.id]:
                        raise Broken(f"point {point.id} is not what it was")
                continue
            taking = labels.get(point.label)
            if taking is None or taking.served.name != point.mount:
                raise Broken(f"nobody asked for point {point.id} of {point.mount}, {point.label!r}")
            if taking.point not in ("", point.id):
                raise Broken(f"point {point.id} was acknowledged as {taking.point}")
            seen = look(point)
            looked += 1
            wrong = taking.misfit(seen)
            if wrong:
                said = "acknowledged" if taking.point else "not acknowledged"
                raise Broken(f"point {point.id} of {point.mount}, {said}: {wrong}")
            self.prints[point.id] = fingerprint(seen)
        self.takings = []
        return looked
