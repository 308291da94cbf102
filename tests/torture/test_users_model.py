"""The oracle of the access matrix, on cases anybody would decide the same way."""

from __future__ import annotations

import pytest

from tools.torture.users import model
from tools.torture.users.agents import NOBODY, ROOT, Who
from tools.torture.users.model import ALICE, BOB, CALLS, CAROL, Judge, Node, Scene

OPEN = Node(0, 0, 0o777)


def verdict(
    call: str, who: Who, d: Node, f: Node, way: str = model.DIRECT, squash: bool = False
) -> bool:
    chosen = next(one for one in CALLS if one.name == call)
    return Judge(NOBODY if squash else None).allowed(Scene("1", who, chosen, way, d, f, OPEN))


@pytest.mark.parametrize(
    ("call", "who", "mode", "expected"),
    [
        ("read", ALICE, 0o400, True),
        ("read", BOB, 0o640, False),
        ("read", CAROL, 0o640, True),
        ("read", CAROL, 0o604, False),  # the group's bits decide, though others may
        ("write", ALICE, 0o066, False),
        ("chmod", BOB, 0o666, False),
        ("chown", ALICE, 0o666, False),
        ("touch", BOB, 0o666, True),
        ("set times", BOB, 0o666, False),
        ("read", ROOT, 0o000, True),
    ],
)  # fmt: skip
def test_files(call: str, who: Who, mode: int, expected: bool) -> None:
    assert verdict(call, who, OPEN, Node(ALICE.uid, ALICE.gid, mode)) == expected


def test_ways() -> None:
    closed, file = Node(ALICE.uid, ALICE.gid, 0o700), Node(ALICE.uid, ALICE.gid, 0o644)
    assert not verdict("read", BOB, closed, file)
    assert not verdict("read", BOB, closed, file, model.UP)
    assert verdict("read", BOB, closed, file, model.FILE_HANDLE)  # the file itself is open to all


def test_names() -> None:
    sticky, file = Node(0, 0, 0o1777), Node(ALICE.uid, ALICE.gid, 0o666)
    assert verdict("unlink", BOB, OPEN, file) and not verdict("unlink", BOB, sticky, file)
    assert verdict("unlink", ALICE, sticky, file) and verdict("rename over", ROOT, sticky, file)
    assert verdict("device", ROOT, OPEN, file) and not verdict("device", BOB, OPEN, file)


def test_a_squashed_root_is_nobody() -> None:
    file = Node(0, 0, 0o600)
    for call in ("read", "write", "chmod", "chown", "set trusted", "device", "link out"):
        assert verdict(call, ROOT, OPEN, file) and not verdict(call, ROOT, OPEN, file, squash=True)
    assert verdict("chmod", ROOT, OPEN, Node(NOBODY.uid, NOBODY.gid, 0), squash=True)
