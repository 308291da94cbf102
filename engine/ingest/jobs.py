"""What a seal is asked to do: dirty fragments of one span, and the context that makes them cheap to store."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.chunks.hold import Hold
from engine.ingest.splice import Extent

Fragment = tuple[int, bytes | bytearray | memoryview]


class Mode(enum.IntEnum):
    """How a file is cut into chunks; kept with the file's entry in manifests."""

    UNKNOWN = 0
    FIXED = 1  # aligned slots: files written in place (data files, disk images)
    STREAM = 2  # content-defined pieces: tar, sets, dumps, anything that shifts


@dataclass
class SealJob:
    """Fragments of one span of one file, newest data, sorted, not overlapping; offsets inside the span.

    ``extents`` is set when the job was done together with others.
    ``hold`` is set by the sealer and is the caller's: release it when the new extents are committed.
    ``group`` names files of one make (they share a dictionary).
    ``old``: extents the span has now.  ``predecessor``: span number -> extents of the previous version of the file.
    """

    span_no: int
    old: list[Extent]
    fragments: list[Fragment]
    mode: Mode = Mode.STREAM
    predecessor: Callable[[int], list[Extent]] | None = None
    group: bytes = b""
    hold: Hold | None = field(default=None, repr=False)
    extents: list[Extent] | None = field(default=None, repr=False)
