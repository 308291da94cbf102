"""Whether a recovery point is like those before it: decided from figures alone, so that retention stops in time.

A producer that broke, and whoever encrypts what it wrote, leave points that hold much less, in far fewer files, or new
content that no longer compresses.  Retention would go on to delete the good points before anybody looks.  So what a
point holds is compared with the median of those before it; while one has not been accepted by somebody, its mount is
frozen.  The order is that of the server's own sequence: no clock is asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Protocol

MARK = "watch "  # of a mark, before a mount's name: what is known of its points
ENOUGH = 256 << 10  # bytes of new content from which how it compresses says something
WORSE = 1.3  # times as much room as usual, at the least, is a collapse of compressibility
UNKNOWN = -1


class Limits(Protocol):
    """Of the configuration (``config.Freeze``)."""

    @property
    def points(self) -> int: ...
    @property
    def at_least(self) -> int: ...
    @property
    def bytes_below(self) -> float: ...
    @property
    def files_below(self) -> float: ...
    @property
    def stored_above(self) -> float: ...
    @property
    def stored_part(self) -> float: ...


@dataclass(frozen=True)
class Figures:
    """Of a point. ``changed``: files with new content; ``new``: bytes of it; ``plain``, ``stored``: what chunks drawn
    from it hold and take. These are ``UNKNOWN`` where nothing could be compared."""

    point: str
    seq: int
    bytes: int
    files: int
    changed: int = UNKNOWN
    new: int = UNKNOWN
    plain: int = UNKNOWN
    stored: int = UNKNOWN

    @property
    def part(self) -> float | None:
        """Room that new content takes, as a part of its size; None where too little is known."""
        if self.new < ENOUGH or self.plain <= 0:
            return None
        return min(1.0, self.stored / self.plain)


@dataclass(frozen=True)
class Watch:
    """What is known of a mount's points. ``seen``: of the last ones, the oldest first; ``accepted``: somebody said that
    the first of them is as it should be; ``frozen``: why retention waits, since when and because of which point."""

    seen: tuple[Figures, ...] = ()
    accepted: bool = False
    frozen: str = ""
    since_ns: int = 0
    point: str = field(default="")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Watch:
        """The inverse; of no text a mount that was never looked at."""
        if not text:
            return Watch()
        value = json.loads(text)
        return Watch(**{**value, "seen": tuple(Figures(**one) for one in value["seen"])})

    def looked_at(self, new: Figures, limits: Limits, now_ns: int) -> Watch:
        """With one more point. One that is frozen stays so, whatever comes."""
        why = "" if self.frozen else collapse(self.seen, new, limits, accepted=self.accepted)
        seen = (*self.seen, new)[-limits.points - 1 :]
        accepted = self.accepted and len(seen) == len(self.seen) + 1
        found = replace(self, seen=seen, accepted=accepted)
        return replace(found, frozen=why, since_ns=now_ns, point=new.point) if why else found

    def released(self) -> Watch:
        """Retention goes on, and what was made last is what is usual from now on."""
        return Watch(self.seen[-1:], accepted=True) if self.frozen else self


def collapse(
    before: Sequence[Figures], new: Figures, limits: Limits, *, accepted: bool = False
) -> str:
    """In which way a point is not like those before it, the oldest first; "" when it is, or nothing can be said."""
    known = before[-limits.points :]
    enough = 1 if accepted else limits.at_least
    if len(known) < enough:
        return ""
    signs = [
        _fewer("bytes", new.bytes, [one.bytes for one in known], limits.bytes_below),
        _fewer("files", new.files, [one.files for one in known], limits.files_below),
        _denser(known, new, limits, enough),
    ]
    return "; ".join(sign for sign in signs if sign)


def _fewer(what: str, found: int, known: Sequence[int], below: float) -> str:
    usual = median(known)
    if found >= below * usual:
        return ""
    return (
        f"expected at least {below:.0%} of the {usual:,.0f} {what} that are usual, found {found:,}"
    )


def _denser(known: Sequence[Figures], new: Figures, limits: Limits, enough: int) -> str:
    """Much of it is new, and does not compress as what was new before did."""
    part = new.part
    usual = [one.part for one in known if one.part is not None]
    if part is None or len(usual) < enough or not limits.stored_above:
        return ""
    much = new.new >= limits.stored_part * max(new.bytes, 1)
    if not much or part < limits.stored_above or part < WORSE * median(usual):
        return ""
    return (
        f"expected new content to take about {median(usual):.0%} of its size as usual, found {part:.0%}"
        f" of {new.new:,} bytes in {new.changed:,} files: it may be encrypted"
    )
