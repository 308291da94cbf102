"""What the service keeps with a recovery point, as bytes that travel with its copy; pure.

A copy has chunks of ours beside the point's tree (``extras``), in an order that stays.  The first begins with ``MAGIC``
and the length of a JSON document (4 bytes, big endian); the document follows, over as many chunks as it takes.  Then
come the attachments in the document's order, each from a new chunk on (equal logs are equal chunks), an empty one has
none.  They come back from a place that anybody may have written to: ``decode`` takes nothing on trust.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from daemon.contract import Consistency
from engine import limits, strict
from engine.errors import Corrupt

MAGIC = b"HFX1"
DOCUMENT_MAX = 16 << 20  # bytes; of it files of databases take the most
CONTENT_MAX = 1 << 30  # bytes of all attachments of a point
_HEAD = len(MAGIC) + 4
_PART = limits.CHUNK_MAX
_TEXT = 4096  # characters
_WHAT = "what the service kept with a point"
_FIELDS = ("consistency", "open_files", "kept", "session", "attachments")
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
    """All of a point. ``session``: None for one that was made outside a session."""

    consistency: Consistency = "crash-consistent"
    open_files: list[str] = field(default_factory=list)
    kept: bool = False
    session: KeptSession | None = None
    attachments: list[KeptText] = field(default_factory=list)


def encode(kept: Kept) -> list[bytes]:
    """The chunks. Raises Corrupt for more than may be kept."""
    told = {
        "consistency": kept.consistency, "open_files": kept.open_files, "kept": kept.kept,
        "session": None if kept.session is None else asdict(kept.session),
        "attachments": [
            {"kind": one.kind, "name": one.name, "size": len(one.content), "time_ns": one.time_ns, "files": one.files}
            for one in kept.attachments
        ],
    }  # fmt: skip
    document = strict.dump(told)
    if len(document) > DOCUMENT_MAX:
        strict.refuse(_WHAT, f"at most {DOCUMENT_MAX} bytes of JSON", len(document))
    found = list(_cut(MAGIC + len(document).to_bytes(4, "big") + document))
    for one in kept.attachments:
        found += _cut(one.content)
    return found


def _cut(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), _PART):
        yield data[at : at + _PART]


def decode(chunks: Iterable[bytes]) -> Kept:
    """The inverse; of no chunks at all what holds of a point that nothing is known of. Raises Corrupt, and
    FormatTooNew for fields that are not known here."""
    rest = iter(chunks)
    first = next(rest, None)
    if first is None:
        return Kept()
    if len(first) < _HEAD or first[: len(MAGIC)] != MAGIC:
        strict.refuse(_WHAT, "its first bytes", first[:_HEAD])
    size = int.from_bytes(first[len(MAGIC) : _HEAD], "big")
    if size > DOCUMENT_MAX:
        strict.refuse(_WHAT, f"at most {DOCUMENT_MAX} bytes of JSON", size)
    document = _joined(first[_HEAD:], rest, size)
    value = strict.parse(document, _WHAT)
    strict.Fields(value, _WHAT, _FIELDS)
    left = CONTENT_MAX
    texts = []
    for one in _list(value["attachments"]):
        text = _text(one, rest, left)
        left -= len(text.content)
        texts.append(text)
    if next(rest, None) is not None:
        strict.refuse(_WHAT, "its end", "more")
    if value["consistency"] not in ("consistent", "crash-consistent"):
        strict.refuse(_WHAT, "a known consistency", value["consistency"])
    if type(value["kept"]) is not bool:
        strict.refuse(_WHAT, "kept: true or false", value["kept"])
    return Kept(
        value["consistency"], _names(value["open_files"]), value["kept"], _session(value["session"]), texts
    )  # fmt: skip


def _joined(begin: bytes, rest: Iterator[bytes], size: int) -> bytes:
    """``size`` bytes that end where a chunk ends."""
    found = [begin]
    missing = size - len(begin)
    while missing > 0:
        more = next(rest, b"")
        if not more:
            raise Corrupt(_WHAT, expected=f"{missing} more bytes", found="none")
        found.append(more)
        missing -= len(more)
    if missing:
        strict.refuse(_WHAT, f"{size} bytes", size - missing)
    return b"".join(found)


def _session(value: Any) -> KeptSession | None:
    if value is None:
        return None
    fields = strict.Fields(value, f"session of {_WHAT}", _OF_SESSION)
    return KeptSession(
        fields.text("id", _TEXT), fields.text("holder", _TEXT), fields.text("label", _TEXT),
        fields.number("begun_ns", 0, strict.I63), fields.number("ended_ns", 0, strict.I63),
    )  # fmt: skip


def _text(value: Any, rest: Iterator[bytes], most: int) -> KeptText:
    fields = strict.Fields(value, f"attachment of {_WHAT}", _OF_ATTACHMENT)
    if value["kind"] not in ("log", "hook"):
        strict.refuse(_WHAT, "an attachment of kind log or hook", value["kind"])
    if not isinstance(value["files"], dict):
        strict.refuse(_WHAT, "files by database", value["files"])
    files = {_name(name): _names(paths) for name, paths in value["files"].items()}
    size = fields.number("size", 0, most)
    return KeptText(
        value["kind"], fields.text("name", _TEXT), fields.number("time_ns", 0, strict.I63), files,
        _joined(b"", rest, size),
    )  # fmt: skip


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        strict.refuse(_WHAT, "a list", value)
    return value


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
