"""What the service keeps with a recovery point, as bytes that travel with its copy; pure.

A copy has chunks of ours beside the point's tree (``extras``), in an order that stays.  The first begins with ``MAGIC``
and the length of a JSON document (4 bytes, big endian); the document follows, over as many chunks as it takes.  Then
come the attachments in the document's order, each from a new chunk on (equal logs are equal chunks), an empty one has
none.  They come back from a place that anybody may have written to: ``decode`` takes nothing on trust.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from daemon.contract import Consistency
from engine import limits, strict
from engine.errors import Corrupt
from engine.nodes.point import is_point_id

MAGIC = b"HFX1"
DOCUMENT_MAX = 16 << 20  # bytes; of it files of databases take the most
CONTENT_MAX = 1 << 30  # bytes of all attachments of a point
ATTACHMENTS_MAX = 10_000
_HEAD = len(MAGIC) + 4
_PART = limits.CHUNK_MAX
_TEXT = 4096  # characters
_WHAT = "what the service kept with a point"
_SESSION = re.compile("[0-9a-f]{1,64}")
_FIELDS = ("consistency", "open_files", "kept", "others", "session", "attachments")
_OF_SESSION = ("id", "holder", "label", "begun_ns", "ended_ns")
_OF_ATTACHMENT = ("kind", "name", "size", "time_ns", "files")


@dataclass(frozen=True)
class KeptSession:
    """The session that made the point."""

    id: str
    holder: str
    label: str
    begun_ns: int
    ended_ns: int


@dataclass(frozen=True)
class KeptText:
    """A log or a hook's output. ``files``: which files belong to which database, as it says."""

    kind: Literal["log", "hook"]
    name: str
    time_ns: int
    files: dict[str, list[str]]
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Kept:
    """All of a point. ``session``: None for one that was made outside a session; ``others``: points of its mount that
    were kept when it was sent: what is said of a point later travels with the next one."""

    consistency: Consistency = "crash-consistent"
    open_files: list[str] = field(default_factory=list)
    kept: bool = False
    session: KeptSession | None = None
    attachments: list[KeptText] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def encode(kept: Kept) -> list[bytes]:
    """The chunks. Raises Corrupt for more than may be kept."""
    told = {
        "consistency": kept.consistency, "open_files": kept.open_files, "kept": kept.kept,
        "others": kept.others,
        "session": None if kept.session is None else asdict(kept.session),
        "attachments": [
            {"kind": one.kind, "name": one.name, "size": len(one.content), "time_ns": one.time_ns, "files": one.files}
            for one in kept.attachments
        ],
    }  # fmt: skip
    document = strict.dump(told)
    if len(document) > DOCUMENT_MAX:
        strict.refuse(_WHAT, f"at most {DOCUMENT_MAX} bytes of JSON", len(document))
    content = sum(len(one.content) for one in kept.attachments)
    if content > CONTENT_MAX or len(kept.attachments) > ATTACHMENTS_MAX:
        strict.refuse(_WHAT, f"{CONTENT_MAX} bytes in {ATTACHMENTS_MAX} attachments", content)
    found = list(_cut(MAGIC + len(document).to_bytes(4, "big") + document))
    for one in kept.attachments:
        found += _cut(one.content)
    return found


def _cut(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), _PART):
        yield data[at : at + _PART]


class Coming:
    """What comes back. ``kept``: all of it, attachments without their content, which ``texts`` gives.

    Raises Corrupt, and FormatTooNew for fields that are not known here; so does reading the texts.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._rest = iter(chunks)
        self._sizes: list[int] = []
        self.kept = self._read()

    def _read(self) -> Kept:
        first = next(self._rest, None)
        if first is None:
            return Kept()
        if len(first) < _HEAD or first[: len(MAGIC)] != MAGIC:
            strict.refuse(_WHAT, "its first bytes", first[:_HEAD])
        size = int.from_bytes(first[len(MAGIC) : _HEAD], "big")
        if size > DOCUMENT_MAX:
            strict.refuse(_WHAT, f"at most {DOCUMENT_MAX} bytes of JSON", size)
        document = b"".join((first[_HEAD:], *_exactly(self._rest, size - len(first) + _HEAD)))
        value = strict.parse(document, _WHAT)
        strict.Fields(value, _WHAT, _FIELDS)
        texts = []
        left = CONTENT_MAX
        for one in _list(value["attachments"], ATTACHMENTS_MAX):
            text, length = _text(one, left)
            left -= length
            texts.append(text)
            self._sizes.append(length)
        if value["consistency"] not in ("consistent", "crash-consistent"):
            strict.refuse(_WHAT, "a known consistency", value["consistency"])
        if type(value["kept"]) is not bool:
            strict.refuse(_WHAT, "kept: true or false", value["kept"])
        return Kept(
            value["consistency"], _names(value["open_files"]), value["kept"], _session(value["session"]), texts,
            _points(value["others"]),
        )  # fmt: skip

    def texts(self) -> Iterator[tuple[KeptText, Iterator[bytes]]]:
        """Each attachment with its content, which is to be read before the next is asked for."""
        for text, size in zip(self.kept.attachments, self._sizes, strict=True):
            yield text, _exactly(self._rest, size)
        if next(self._rest, None) is not None:
            strict.refuse(_WHAT, "its end", "more")


def decode(chunks: Iterable[bytes]) -> Kept:
    """The inverse; of no chunks at all what holds of a point that nothing is known of. Raises as ``Coming``."""
    coming = Coming(chunks)
    texts = [replace(text, content=b"".join(pieces)) for text, pieces in coming.texts()]
    return replace(coming.kept, attachments=texts)


def _exactly(rest: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The chunks that have so many bytes together: what they hold ends where a chunk ends."""
    missing = size
    while missing > 0:
        more = next(rest, b"")
        if not more:
            raise Corrupt(_WHAT, expected=f"{missing} more bytes", found="none")
        missing -= len(more)
        if missing < 0:
            break
        yield more
    if missing:
        strict.refuse(_WHAT, f"{size} bytes", size - missing)


def _session(value: Any) -> KeptSession | None:
    if value is None:
        return None
    fields = strict.Fields(value, f"session of {_WHAT}", _OF_SESSION)
    if not _SESSION.fullmatch(fields.text("id", _TEXT)):
        strict.refuse(_WHAT, "the id of a session", value["id"])
    return KeptSession(
        value["id"], fields.text("holder", _TEXT), fields.text("label", _TEXT),
        fields.number("begun_ns", 0, strict.I63), fields.number("ended_ns", 0, strict.I63),
    )  # fmt: skip


def _text(value: Any, most: int) -> tuple[KeptText, int]:
    """An attachment, and the length of its content."""
    fields = strict.Fields(value, f"attachment of {_WHAT}", _OF_ATTACHMENT)
    if value["kind"] not in ("log", "hook"):
        strict.refuse(_WHAT, "an attachment of kind log or hook", value["kind"])
    if not isinstance(value["files"], dict):
        strict.refuse(_WHAT, "files by database", value["files"])
    files = {_name(name): _names(paths) for name, paths in value["files"].items()}
    size = fields.number("size", 0, most)
    text = KeptText(
        value["kind"], fields.text("name", _TEXT), fields.number("time_ns", 0, strict.I63), files, b""
    )  # fmt: skip
    return text, size


def _list(value: Any, most: int = DOCUMENT_MAX) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        strict.refuse(_WHAT, f"a list of at most {most}", type(value).__name__)
    return value


def _points(value: Any) -> list[str]:
    for one in _list(value):
        if not isinstance(one, str) or not is_point_id(one):
            strict.refuse(_WHAT, "ids of points", one)
    return list(value)


def _names(value: Any) -> list[str]:
    return [_name(one) for one in _list(value)]


def _name(value: Any) -> str:
    """Bytes of a path that are no UTF-8 are surrogate escapes; half characters of another kind are refused."""
    if not isinstance(value, str):
        strict.refuse(_WHAT, "text", value)
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        strict.refuse(_WHAT, "the name of a file", value)
    return str(value)
