"""The same operations on a mount, on ext4 and in the model, one after the other, compared after each."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from tools.torture.conform.choose import OPERATIONS, Chooser, Draw, Step
from tools.torture.conform.compare import Frozen, difference, marks
from tools.torture.conform.disk import Disk
from tools.torture.conform.model import Model
from tools.torture.conform.nodes import Node, Refused
from tools.torture.conform.places import Broken

TICK = (
    12_000_000  # ns: three ticks of the kernel's coarse clock, within which two times may be equal
)
LAST = 12  # steps shown when something is wrong
FIELDS = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")


class Difference(NamedTuple):
    """Where a mount and ext4 may differ, and both be right."""

    applies: Callable[[Step, Model], bool]
    reason: str


def _of_holes(step: Step, _: Model) -> bool:
    return step.name == "lseek" and step.arguments[2] in (os.SEEK_DATA, os.SEEK_HOLE)


def _to_the_same_size(step: Step, model: Model) -> bool:
    if step.name != "truncate":
        return False
    try:
        return model.find(str(step.arguments[0])).content.size == step.arguments[1]
    except Refused:
        return False


# Answers: here ext4's is not asked for.
ANSWERS = (
    Difference(
        _of_holes, "README: no SEEK_HOLE; all of a file is data, which every program understands"
    ),
)
# Times: in these steps none is looked at.
TIMES = (
    Difference(
        _to_the_same_size, "POSIX lets the times stay, as FUSE and XFS do, or move, as ext4 does"
    ),
    Difference(
        lambda step, _: step.name == "setxattr" and not step.arguments[2],
        "ext4 moves no time when an empty value takes the place of an empty one",
    ),
    Difference(
        lambda step, model: (
            bool(model.maps) or step.name in ("map", "store", "unmap", "close", "fsync")
        ),
        "POSIX: stores through a mapping are marked at any time until msync()",
    ),
)


class Wrong(Exception):
    """The mount differs from the model and from ext4."""


Watched = dict[str, tuple[Node, tuple[int, int, int], tuple[os.stat_result, os.stat_result]]]


def answer(thing: Model | Disk, step: Step) -> Any:
    """What an operation answers; an errno's name when it is refused."""
    try:
        if isinstance(thing, Disk):
            return thing.do(step.name, step.arguments)
        return getattr(thing, step.name)(*step.arguments)
    except Refused as refused:
        return errno.errorcode.get(refused.errno, refused.errno)


class Machine:
    """One tree, three times. ``step`` makes one operation and raises Wrong when the mount is not as it should be."""

    def __init__(self, ours: str, control: str, draw: Draw) -> None:
        self.model = Model()
        self.ours = Disk(ours)
        self.control = Disk(control)
        self._chooser = Chooser(self.model, draw)
        self._draw = draw
        self.steps = 0
        self.refused = 0
        self._last: deque[str] = deque(maxlen=LAST)
        for path in (ours, control):
            os.mkdir(path)
            os.chmod(path, 0o755)

    def end(self) -> None:
        """Close everything."""
        self.ours.end()
        self.control.end()

    def step(self, name: str = "") -> None:
        """Draw an operation (of that name), do it, compare."""
        step = self._chooser.step(name or OPERATIONS[self._draw(len(OPERATIONS))])
        if step is None:
            return
        self.steps += 1
        watched = self._watch(step)
        now = time.time_ns()
        wanted = answer(self.model, step)
        self._last.append(f"{step} = {_short(wanted, 40)}")
        theirs = answer(self.control, step)
        ours = answer(self.ours, step)
        if isinstance(wanted, str) and wanted in errno.errorcode.values():
            self.refused += 1
        self._judge(step, wanted, theirs, ours)
        self._times(step, watched, now)

    def _judge(self, step: Step, wanted: Any, theirs: Any, ours: Any) -> None:
        if any(one.applies(step, self.model) for one in ANSWERS):
            slot = int(str(step.arguments[0]))
            if isinstance(wanted, int):
                os.lseek(
                    self.control.fds[slot], wanted, os.SEEK_SET
                )  # both go on from the same place
            theirs = wanted
        if theirs != wanted:
            raise Broken(self.said(f"the model answers {_short(wanted)}, ext4 {_short(theirs)}"))
        if ours != wanted:
            raise Wrong(self.said(f"{_short(ours)} instead of {_short(wanted)}"))

    def said(self, what: str) -> str:
        """What is wrong, and the last steps."""
        return f"{what}\n  after {self.steps} steps, the last: {'; '.join(self._last)}"

    # --- times

    def _watch(self, step: Step) -> Watched:
        """The nodes that the step's paths and descriptors name, and their directories, with their times before."""
        if any(one.applies(step, self.model) for one in TIMES):
            return {}
        watched: Watched = {}
        paths = {
            path
            for one in step.arguments
            if isinstance(one, str)
            for path in (one, one.rpartition("/")[0])
        }
        for path in paths:
            try:
                node = self.model.find(path, follow=False) if path else self.model.root
                real = (os.lstat(self.control.at(path)), os.lstat(self.ours.at(path)))
            except (Refused, OSError):
                continue
            watched[path] = (node, marks(node), real)
        for slot, one in self.model.open_files.items():
            real = (os.fstat(self.control.fds[slot]), os.fstat(self.ours.fds[slot]))
            watched[f"@{slot}"] = (one.node, marks(one.node), real)
        return watched

    def _times(self, step: Step, watched: Watched, now: int) -> None:
        """Each time moved where the model marked it for update, and stayed where it did not."""
        for path, (node, before, was) in watched.items():
            try:
                if path.startswith("@"):
                    if self.model.open_files[int(path[1:])].node is not node:
                        continue
                    slot = int(path[1:])
                    real = (os.fstat(self.control.fds[slot]), os.fstat(self.ours.fds[slot]))
                else:
                    if (
                        self.model.find(path, follow=False) if path else self.model.root
                    ) is not node:
                        continue
                    real = (os.lstat(self.control.at(path)), os.lstat(self.ours.at(path)))
            except (Refused, KeyError):
                continue
            for number, (place, error) in enumerate((("ext4", Broken), ("the mount", Wrong))):
                for old_mark, new_mark, field in zip(before, marks(node), FIELDS, strict=True):
                    old, new = getattr(was[number], field), getattr(real[number], field)
                    if new_mark == old_mark and new != old:
                        raise error(self.said(f"on {place} {field} of {path!r} moved: {old} {new}"))
                    if (
                        new_mark != old_mark
                        and new == old
                        and now - old > TICK
                        and step.name != "utime"
                    ):
                        raise error(self.said(f"on {place} {field} of {path!r} stayed: {old}"))

    # --- whole trees

    def compare(self) -> Frozen:
        """Both trees with the model; what the model is now."""
        frozen = Frozen(self.model)
        for disk, error in ((self.control, Broken), (self.ours, Wrong)):
            complaint = difference(disk.top, frozen)
            if complaint:
                raise error(self.said(f"{disk.top}: {complaint}"))
        return frozen

    def times(self) -> dict[str, tuple[int, int]]:
        """Modification and change time of every path of the mount, as stat tells them."""
        found = {path: os.lstat(self.ours.at(path)) for path, _ in self.model.tree()}
        return {path: (real.st_mtime_ns, real.st_ctime_ns) for path, real in found.items()}

    def close_all(self) -> None:
        """Close every descriptor and mapping, in all three."""
        for slot in list(self.model.open_files):
            self.model.close(slot)
        self.end()


def _short(thing: Any, most: int = 300) -> str:
    text = repr(thing)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
