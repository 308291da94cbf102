"""What a storage location promises, whatever it is made of.

Names are of ASCII letters, digits, ``.``, ``_`` and ``-``, in parts between ``/`` that begin with no dot (``checked``).
Every call may come from any thread, several at once, and blocks until it is done. Errors are of the engine's family:

| error | when |
|---|---|
| ``NotFound`` | nothing of that name (or no such bucket or directory: the message says which) |
| ``Corrupt`` | it is shorter than what was asked for |
| ``LocationDenied`` | credentials or permissions are refused; trying again changes nothing |
| ``LocationUnavailable`` | no answer, or one that says "not now": what may pass |
| ``Away`` | as that, and it does not pass by itself: the disk of a directory was taken away |
| ``StoreFull`` | the location has no room |
| ``Unsupported`` | the server does not do this |
| ``InvalidRequest`` | a name or a URL that makes no sense |
| ``ShuttingDown`` | ``close`` ended the wait of a wrapper |

No error, representation or log record holds anything secret, nor does what an error was caused by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

from engine import limits
from engine.errors import Corrupt, InvalidRequest

if TYPE_CHECKING:
    from typing_extensions import Buffer

Pieces: TypeAlias = list[memoryview]
Piece = TypeVar("Piece", bound="Buffer")

_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*\Z")


class Stat(NamedTuple):
    """What a location knows of one thing: name, bytes, time it was written (the location's clock)."""

    name: str
    size: int
    modified_ns: int


class Features(NamedTuple):
    """What a location can do: create only where there is nothing, in one step; retention of single objects."""

    create: bool
    lock: bool


class Location(Protocol):
    """A place for packs. ``shown`` is its URL, for people: nothing in it is secret."""

    shown: str

    def features(self) -> Features:
        """What it can do, tried out where it cannot be known: creates ``probe-RANDOM`` twice, removes it."""

    def put(self, name: str, data: Buffer) -> None:
        """Store all of ``data``, durably. Until it returns nothing of that name is seen, or all of it. Names are
        unique: what was there is replaced, and that is the caller's fault. Where the server checks digests (S3: SHA-256
        of the body, or of each part) it refuses what was damaged on its way, and that passes like no answer; of other
        servers only reading it back tells.
        """

    def create(self, name: str, data: Buffer) -> bool:
        """Store all of ``data`` where nothing is of that name; False: something is. In one step: of several who try
        exactly one is told True. After an error it may have been done (``Retry`` compares before it answers)."""

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        """Exactly ``length`` bytes from ``offset`` on, or all the rest."""

    def ranges(self, name: str, parts: Sequence[tuple[int, int]]) -> Pieces:
        """Of each (offset, length) exactly its bytes, in their order; near ones are fetched together. They are views of
        what came, nothing is copied: each keeps all of its answer in memory. For much; ``read`` is for small things."""

    def stat(self, name: str) -> Stat:
        """Size and time of one thing."""

    def list(self, prefix: str, after: str = "") -> Iterator[Stat]:
        """Everything whose name begins with ``prefix`` and is greater than ``after``, in order of names, fetched page
        by page while it is read. What is made or removed meanwhile may be in it or not."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove these; what is not there is fine. After an error some may be gone."""

    def retain(self, name: str, until_s: int) -> None:
        """Nobody can remove or change this before ``until_s`` (seconds since 1970): Object Lock in compliance mode.
        Only ever extends. Where names are kept in versions, ``remove`` only hides what is retained."""

    def tidy(self, age_s: float) -> int:
        """Remove what uploads left half done more than ``age_s`` ago; how many there were."""

    def counts(self) -> dict[str, int]:
        """What was asked of it since it was opened, where a wrapper counts: requests as a server bills them by kind
        (put, part, create, get, head, list, delete, retain), ``bytes_up`` and ``bytes_down``."""

    def close(self) -> None:
        """Let go of connections; waits of wrappers end with ``ShuttingDown``. Nothing may be asked after it."""


def checked(name: str) -> str:
    """The name, if it is one a location takes; raises InvalidRequest."""
    if len(name) > limits.OBJECT_NAME_MAX or not _NAME.match(name):
        raise InvalidRequest(
            "name at a storage location",
            expected=f"letters, digits, '.', '_', '-' in parts between '/', none beginning with '.', "
            f"{limits.OBJECT_NAME_MAX} characters at most",
            found=repr(name[: limits.OBJECT_NAME_MAX]),
        )
    return name


def is_name(name: str) -> bool:
    """Is this a name that a location takes? What else lies there is not ours."""
    return len(name) <= limits.OBJECT_NAME_MAX and _NAME.match(name) is not None


def whole(data: Piece, length: int, what: str, offset: int) -> Piece:
    """What came, if it is as long as what was asked for; raises Corrupt."""
    found = memoryview(data).nbytes
    if found != length:
        raise Corrupt(
            what,
            expected=f"{length} bytes from {offset} on",
            found=f"{found}",
            do="it is not what was put there; check the location",
        )
    return data


class Joined(NamedTuple):
    """Ranges that are fetched together: from where, how much, and which of the list they were."""

    offset: int
    length: int
    members: tuple[int, ...]


def positive(offset: int, length: int = 0) -> None:
    """Nothing begins before the start; raises InvalidRequest."""
    if offset < 0 or length < 0:
        raise InvalidRequest("range", expected="no negative number", found=f"({offset}, {length})")


def join(parts: Sequence[tuple[int, int]]) -> list[Joined]:
    """Requests for these ranges: neighbours with gaps up to ``RANGE_GAP`` together, up to ``RANGE_MAX``.

    A single range may be longer than that; empty ranges are in no request.
    """
    joined: list[Joined] = []
    order = sorted((offset, length, place) for place, (offset, length) in enumerate(parts))
    for offset, length, place in order:
        positive(offset, length)
        if not length:
            continue
        if joined:
            last = joined[-1]
            end = max(last.offset + last.length, offset + length)
            near = offset - (last.offset + last.length) <= limits.RANGE_GAP
            if near and (end - last.offset <= limits.RANGE_MAX or end == last.offset + last.length):
                joined[-1] = Joined(last.offset, end - last.offset, (*last.members, place))
                continue
        joined.append(Joined(offset, length, (place,)))
    return joined


def split(
    parts: Sequence[tuple[int, int]], joined: Sequence[Joined], answers: Sequence[Buffer]
) -> Pieces:
    """The answers to ``join``'s requests, cut into what was asked for; nothing is copied."""
    found = [memoryview(b"")] * len(parts)
    for request, answer in zip(joined, answers, strict=True):
        view = memoryview(answer).cast("B")
        for place in request.members:
            offset, length = parts[place]
            found[place] = view[offset - request.offset :][:length]
    return found
