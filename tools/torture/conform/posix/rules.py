"""What a rule is, and the users it may name."""

from __future__ import annotations

from typing import Any, NamedTuple

Call = tuple[Any, ...]
"""``(name, argument…)`` of ``calls.CALLS``; paths are relative to the rule's own directory."""


class User(NamedTuple):
    """Identity of a process."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


OWNER, GROUP, STRANGER = 3001, 3001, 3004
USERS: dict[str, User] = {
    "root": User(0, 0),
    "owner": User(OWNER, GROUP),
    "member": User(3002, 3002, (GROUP,)),  # of the group by a supplementary one
    "mate": User(3003, GROUP),  # of the group by the primary one
    "other": User(STRANGER, STRANGER),
}
CLASSES = {"owner": 6, "member": 3, "mate": 3, "other": 0}  # how far the user's bits are shifted


class Rule(NamedTuple):
    """One row.

    ``setup`` is done by root, ``calls`` by ``who``; ``want`` is what the last of them answers: an errno's name (several
    with ``|`` between them), or the value, ``...`` for any.  An earlier call that fails is the answer too.  ``then``:
    calls by root afterwards, with their answers.  ``moved``: path -> which of its times ("amc") the calls move; no
    other one may.  A path that is named otherwise afterwards is written ``old>new``.  ``instead``: a documented
    difference of Holdfast: what it answers, and where that is written down.
    """

    name: str
    why: str
    who: str
    setup: tuple[Call, ...]
    calls: tuple[Call, ...]
    want: Any = ...
    then: tuple[tuple[Call, Any], ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    instead: tuple[Any, str] | None = None


def rule(
    name: str, why: str, call: Call, want: Any = ..., *more: Call, who: str = "root",
    setup: tuple[Call, ...] = (), then: tuple[tuple[Call, Any], ...] = (), moved: dict[str, str] | None = None,
    instead: tuple[Any, str] | None = None,
) -> Rule:  # fmt: skip
    """A row of one call, or of several: those in ``more`` come after it."""
    times = tuple((moved or {}).items())
    return Rule(name, why, who, setup, (call, *more), want, then, times, instead)


def needed(setup: tuple[Call, ...], call: Call, *always: str) -> tuple[Call, ...]:
    """Of a set-up only what makes, or changes, a path that the call names, or one of ``always``."""
    named = {one for one in call if isinstance(one, str)} | set(always)
    return tuple(one for one in setup if one[2 if one[0] == "symlink" else 1] in named)


def has(mode: int, who: str, bits: int) -> bool:
    """Whether the class of a user in files of ``owner``:``GROUP`` has all these bits (r 4, w 2, x 1)."""
    return who == "root" or (mode >> CLASSES[who]) & bits == bits


def only(who: str, bits: int) -> int:
    """A mode that gives these bits to the user's class and exactly the others to the other two classes."""
    mode = 0o111 * (7 - bits)
    shift = CLASSES.get(who, 0)
    return mode & ~(7 << shift) | bits << shift
