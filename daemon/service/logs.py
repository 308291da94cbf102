"""What backup tools say about files: which belong to which database. Pure, bounded, and never wrong about what it read.

Understood are logs of RMAN, by their lines ``input datafile … name=`` and ``piece handle=``, and PostgreSQL's
``backup_manifest``. Of any other text nothing is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

LINE_MAX = 8_192  # bytes of a line that is looked at; a path has at most 4,096
FILES_MAX = 100_000  # files of one log
NAME_MAX = 200  # characters of an attachment's name
MANIFEST_MAX = 32 << 20  # bytes of a manifest: one of 100,000 files has about 15 MB
POSTGRES = "postgresql"  # the name of the one cluster a manifest is of
UNNAMED = "oracle"  # of a database whose log does not name it

_DATABASE = re.compile(r"connected to target database: *([A-Za-z0-9_$#]{1,30})\b", re.IGNORECASE)
_PIECE = re.compile(r"\bpiece handle=(\S.*?)(?: tag=\S+)?(?: comment=.*)?$", re.IGNORECASE)
_COPY = re.compile(r"\boutput file name=(\S.*?)(?: tag=\S+)?(?: RECID=.*)?$", re.IGNORECASE)
_INPUT = re.compile(r"\binput datafile .*?\bname=(\S.*)$", re.IGNORECASE)


class Log:
    """Reads a log as it goes by. Used by one thread."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False  # of a line over LINE_MAX the rest
        self._first = True
        self._manifest: bytearray | None = None  # what may be one, while it may
        self._database = UNNAMED
        self._found: dict[str, dict[str, None]] = {}
        self._count = 0

    def through(self, content: Iterable[bytes]) -> Iterator[bytes]:
        """The content, unchanged; it is read on the way."""
        for some in content:
            self.feed(some)
            yield some

    def feed(self, some: bytes) -> None:
        """The next bytes."""
        if self._first and some.strip():
            self._first = False
            if some.lstrip().startswith(b"{"):
                self._manifest = bytearray()
        if self._manifest is not None:
            self._manifest += some
            if len(self._manifest) > MANIFEST_MAX:
                self._manifest = bytearray()
            return
        lines = (self._rest + some).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if not self._skipping:
                self._line(line)
            self._skipping = False
        if len(self._rest) > LINE_MAX:
            self._rest, self._skipping = b"", True

    def files(self) -> dict[str, list[str]]:
        """Database -> its files, as the log names them; empty for a text that is no such log."""
        if self._manifest is not None:
            return _of_manifest(bytes(self._manifest))
        if not self._skipping:
            self._line(self._rest)
        self._rest = b""
        return {name: list(paths) for name, paths in self._found.items()}

    def _line(self, raw: bytes) -> None:
        if len(raw) > LINE_MAX or (b"=" not in raw and b"database:" not in raw):
            return
        line = raw.decode("utf-8", "surrogateescape").rstrip()
        named = _DATABASE.search(line)
        if named:
            self._database = named[1].upper()
            return
        for form in (_PIECE, _COPY, _INPUT):
            found = form.search(line)
            if found and "\0" not in found[1] and self._count < FILES_MAX:
                self._found.setdefault(self._database, {})[found[1].strip()] = None
                self._count += 1
                return


def _of_manifest(raw: bytes) -> dict[str, list[str]]:
    """Files of PostgreSQL's backup_manifest; empty when it is none."""
    try:
        found = json.loads(raw)
        if "PostgreSQL-Backup-Manifest-Version" not in found:
            return {}
        paths = [
            one["Path"] if "Path" in one else bytes.fromhex(one["Encoded-Path"]).decode("utf-8", "surrogateescape")
            for one in found["Files"][:FILES_MAX]
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {POSTGRES: [path for path in paths if isinstance(path, str)]} if paths else {}


def in_point(named: Iterable[str], there: Iterable[str]) -> list[str]:
    """Which of the files that are in a point a log means: the one with the longest tail of the path in common.

    A log names files as its machine sees them (``/local/oracle/d/x.dbf``), a point from its own root (``d/x.dbf``); a
    name whose last part is nowhere in the point is not in it.
    """
    by_name: dict[str, list[str]] = {}
    for path in there:
        by_name.setdefault(path.rpartition("/")[2], []).append(path)
    found: dict[str, None] = {}
    for name in named:
        parts = name.replace("\\", "/").split("/")
        best = max(
            by_name.get(parts[-1], []),
            key=lambda path: (_common(parts, path.split("/")), -len(path)), default=None,
        )  # fmt: skip
        if best is not None:
            found[best] = None
    return sorted(found)


def _common(a: list[str], b: list[str]) -> int:
    count = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        count += 1
    return count


def plain_name(name: str) -> str:
    """What is kept of a file's name that somebody sent: its last part, without what cannot be shown."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(c for c in last if c.isprintable())
    return kept[-NAME_MAX:] or "log"
