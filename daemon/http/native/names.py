"""File names in answers, and which part of a file is asked for."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote

from daemon.http.problem import Refused
from engine.errors import InvalidRequest

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_PLAIN = re.compile(r"[^A-Za-z0-9._-]")


def disposition(name: str) -> str:
    """Content-Disposition for a name of any bytes (RFC 8187): never the raw name, and never one with a path."""
    text = name.rpartition("/")[2].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    simple = _PLAIN.sub("_", text)[:200].lstrip(".") or "download"
    return f"attachment; filename=\"{simple}\"; filename*=UTF-8''{quote(text[:200], safe='')}"


class Part(NamedTuple):
    """Bytes of a file: ``length`` of them from ``offset`` on."""

    offset: int
    length: int


def part_of(wanted: str, size: int) -> Part | None:
    """What a Range header asks for; None for all of it, as for what is no range of bytes or several.

    Raises Refused when nothing of it is there.
    """
    found = _RANGE.fullmatch(wanted.strip())
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        offset, end = max(0, size - int(found[2])), size
    else:
        offset = int(found[1])
        end = size if found[2] == "" else min(size, int(found[2]) + 1)
        if found[2] != "" and int(found[2]) < offset:
            return None
    if offset >= end:
        raise Refused(
            416, InvalidRequest(f"range {wanted!r}", expected=f"one inside {size} bytes"),
            {"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    return Part(offset, end - offset)
