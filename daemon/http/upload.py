"""One file out of a multipart/form-data body, read as it comes: bounded, never a path.

The body is parsed in a thread, piece by piece, into an unnamed temporary file; what a client calls the file is a
label, cut down to harmless characters.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from typing import IO, TYPE_CHECKING

import python_multipart
import trio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from daemon.http import problem
from daemon.http.problem import Refused
from engine.errors import InvalidRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD_MAX = 4096  # bytes of a field that is no file: paths and names
FIELDS_MAX = 16  # parts of a body: the interface has three
ENVELOPE = 64 << 10  # bytes of a body beside the file: boundaries, headers, fields
_NAME_MAX = 100
_IN_MEMORY = 1 << 20  # bytes kept in memory before there is a file on disk
_READ = 1 << 20
_UNWANTED = re.compile(r"[^A-Za-z0-9._-]+")


def safe_name(name: str) -> str:
    """What a client calls its file, as a label: its last part, in harmless characters, never empty nor hidden."""
    last = re.split(r"[/\\]", name)[-1]
    return _UNWANTED.sub("_", last).lstrip("._-")[:_NAME_MAX] or "log"


class Upload:
    """The parts of one body. Use as a context manager; feed it in one thread at a time."""

    def __init__(self, content_type: str, wanted: str, limit: int) -> None:
        """``wanted``: the field that is the file; ``limit``: its greatest size. Raises InvalidRequest."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequest(
                "upload", expected="multipart/form-data with a boundary", found=repr(content_type[:100])
            )  # fmt: skip
        self.name = ""
        self.size = 0
        self.fields: dict[str, str] = {}
        self._wanted, self._limit = wanted, limit
        self._complete = False
        self._parts = 0
        self._part, self._in_file, self._value = "", False, bytearray()
        self._header, self._text, self._disposition = bytearray(), bytearray(), b""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._text.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }
        try:
            self._parser = python_multipart.MultipartParser(boundary, callbacks)
        except (FormParserError, ValueError):
            raise InvalidRequest("upload", found="a boundary that cannot be one") from None
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    async def read(self, next_piece: Callable[[], Awaitable[bytes | None]]) -> None:
        """Take the whole body, None at its end. Raises InvalidRequest when it is broken, Refused over the limit."""
        total = 0
        while (piece := await next_piece()) is not None:
            total += len(piece)
            if total > self._limit + ENVELOPE:
                raise self._too_large()
            if piece:
                await trio.to_thread.run_sync(self._feed, piece)
        if not self._complete:
            raise InvalidRequest(
                "upload", expected=f"a whole file in the field {self._wanted!r}", found="none",
                do=f"send it as curl --form {self._wanted}=@PATH does",
            )  # fmt: skip

    def pieces(self) -> Iterator[bytes]:
        """The file's content."""
        self._file.seek(0)
        while piece := self._file.read(_READ):
            yield piece

    def _feed(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except FormParserError:
            raise InvalidRequest(
                "upload", expected="multipart/form-data", found="other bytes"
            ) from None

    def _too_large(self) -> Refused:
        return problem.too_large(self._limit)

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > FIELDS_MAX:
            raise InvalidRequest("upload", expected=f"at most {FIELDS_MAX} parts", found="more")
        self._part, self._in_file, self._value, self._disposition = "", False, bytearray(), b""
        self._header.clear()
        self._text.clear()

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._text)
        self._header.clear()
        self._text.clear()

    def _headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part = options.get(b"name", b"").decode("utf-8", "replace")
        named = options.get(b"filename")
        if self._part == self._wanted and named is not None:
            if self.name:
                raise InvalidRequest("upload", expected="one file", found="several")
            self.name, self._in_file = safe_name(named.decode("utf-8", "replace")), True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.size += end - start
            if self.size > self._limit:
                raise self._too_large()
            self._file.write(data[start:end])
        elif len(self._value) + end - start > FIELD_MAX:
            raise InvalidRequest(
                "upload", expected=f"fields of at most {FIELD_MAX} bytes", found="a longer one"
            )
        else:
            self._value += data[start:end]

    def _end(self) -> None:
        if self._in_file:
            self._complete = True
        elif self._part:
            self.fields[self._part] = self._value.decode("utf-8", "replace")
