"""What is said to the mounter: one JSON object in one datagram, and one in answer.

    {"verb": "mount", "path": P, "source": S, "options": ["ro", "max_read=N"]}   answered with the connection
    {"verb": "unmount", "path": P}        {"verb": "unmount-lazy", "path": P}
    {"verb": "readahead", "path": P, "bytes": N}

Each request carries one descriptor, the socket that its answer goes to: an unmount that takes long holds nobody else
up, and an answer never reaches who did not ask for it.  An answer has "ok"; when that is false, "kind" (a slug of the
engine's error table) and "message".
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

REQUEST_MAX = 4096
PATH_MAX = 2048  # bytes; what is left of a datagram is enough for the rest
SOURCE_MAX = 512
READAHEAD_MAX = 16 << 20
VERBS = {
    "mount": {"path", "source", "options"},
    "unmount": {"path"},
    "unmount-lazy": {"path"},
    "readahead": {"path", "bytes"},
}
_OPTION = re.compile(r"ro|max_read=[1-9][0-9]{3,7}", re.ASCII)


class Refused(Exception):
    """A request that is not granted. ``kind``: a slug of the engine's error table."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Request(NamedTuple):
    """A request whose every field has the form it must have; whether it is allowed is another question."""

    verb: str
    path: str
    source: str = ""
    options: tuple[str, ...] = ()
    bytes: int = 0


def encode(request: Request) -> bytes:
    """The datagram of a request. Raises Refused when it would be too long."""
    fields = {"verb": request.verb, **{key: getattr(request, key) for key in VERBS[request.verb]}}
    data = json.dumps(fields).encode()
    if len(data) > REQUEST_MAX:
        raise Refused("invalid_request", f"request of {len(data)} bytes, at most {REQUEST_MAX}")
    return data


def decode(data: bytes) -> Request:
    """The request in a datagram, from whomever. Raises Refused, nothing else."""
    if len(data) > REQUEST_MAX:
        raise _nonsense(f"more than {REQUEST_MAX} bytes")
    try:
        fields = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError):
        raise _nonsense("no JSON") from None
    if not isinstance(fields, dict):
        raise _nonsense("no object")
    verb = fields.pop("verb", None)
    if not isinstance(verb, str) or verb not in VERBS:
        raise _nonsense(f"another verb than {', '.join(VERBS)}")
    if set(fields) != VERBS[verb]:
        raise _nonsense(f"other fields than {', '.join(sorted(VERBS[verb]))} for {verb}")
    options = fields.get("options", [])
    if not isinstance(options, list) or not all(
        isinstance(one, str) and _OPTION.fullmatch(one) for one in options
    ):
        raise _nonsense("other options than ro, max_read=N")
    number = fields.get("bytes", 0)
    if type(number) is not int or not 0 <= number <= READAHEAD_MAX:
        raise _nonsense(f"a readahead that is not from 0 to {READAHEAD_MAX} bytes")
    path = _text(fields["path"], PATH_MAX, "path")
    if not path.startswith("/") or any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise _nonsense(f"path {path!r}, which is not absolute and plain")
    source = _text(fields["source"], SOURCE_MAX, "source") if verb == "mount" else ""
    return Request(verb, path, source, tuple(options), number)


def _text(value: object, longest: int, what: str) -> str:
    """Text without NUL that can be handed to the kernel."""
    if isinstance(value, str) and value:
        try:
            raw = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raw = b"\0"
        if len(raw) <= longest and b"\0" not in raw:
            return value
    raise _nonsense(f"a {what} that is not text of 1 to {longest} bytes without NUL")


def _nonsense(found: str) -> Refused:
    return Refused("invalid_request", f"request to the mounter: found {found}")
