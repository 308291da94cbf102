"""Cursors: where a page of a list ended, as text that means nothing to who carries it."""

from __future__ import annotations

import base64
import json
from typing import Any

from engine.errors import InvalidRequest

LONGEST = 8_000  # characters: they travel in the first line of a request
PATH_MAX = 2_000  # bytes of a path that a cursor names; of longer ones it has the place in the list


def encode(kind: str, *values: str | int) -> str:
    """A cursor of one kind of list."""
    text = json.dumps([kind, *values], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(kind: str, cursor: str, *types: type) -> list[Any]:
    """What ``encode`` was given; empty for "". Raises InvalidRequest for what it did not give."""
    if not cursor:
        return []
    try:
        if len(cursor) > LONGEST:
            raise ValueError
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found = json.loads(raw)
        sound = isinstance(found, list) and len(found) == 1 + len(types) and found[0] == kind
        if not sound or any(type(a) is not b for a, b in zip(found[1:], types, strict=True)):
            raise ValueError
    except (ValueError, RecursionError):
        raise InvalidRequest(
            "cursor", expected="one that a page of this list ended with", found="another text"
        ) from None
    numbers = [one for one in found[1:] if isinstance(one, int)]
    if any(not -(2**63) <= one < 2**63 for one in numbers):
        raise InvalidRequest("cursor", expected="one that a page ended with", found="a vast number")
    return list(found[1:])


def encode_path(kind: str, path: bytes, place: int) -> str:
    """A cursor after a path; ``place``: how many items of the list are up to it."""
    if len(path) > PATH_MAX:
        return encode(kind, "", place)
    return encode(kind, base64.b64encode(path).decode(), place)


def decode_path(kind: str, cursor: str) -> tuple[bytes, int]:
    """(path, place), the path b"" when only the place is known; (b"", 0) for ""."""
    found = decode(kind, cursor, str, int)
    if not found:
        return b"", 0
    try:
        path = base64.b64decode(found[0], validate=True)
    except ValueError:
        path = b"/"
    if path.startswith(b"/") or found[1] < 0:
        raise InvalidRequest("cursor", expected="one that a page ended with", found="another text")
    return path, found[1]
