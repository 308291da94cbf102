"""File lineage: which file of the mount's last recovery point a live file goes on from.

The predecessor has the same path; or, for a file that is written under a passing name and renamed when it is whole
(rsync, editors, downloads), the path it will get.  It is looked for once, in a seal thread, when first needed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

from engine.errors import HoldfastError
from engine.live.ports import Ports
from engine.nodes.extents import Extent

log = logging.getLogger("holdfast.engine.live")

_RSYNC = re.compile(rb"^\.(.+)\.[A-Za-z0-9]{6}$")  # .name.XXXXXX
_SUFFIX = re.compile(rb"^(.+?)(~|\.(tmp|part|partial|new|swp|filepart|crdownload))$", re.IGNORECASE)
_DIGITS = re.compile(rb"\d+")
_EXTENSION = re.compile(rb"\.([A-Za-z][A-Za-z0-9]{0,11})$")


def candidates(path: bytes) -> Iterator[bytes]:
    """The paths a predecessor may have, best first."""
    yield path
    folder, slash, name = path.rpartition(b"/")
    for pattern in (_RSYNC, _SUFFIX):
        found = pattern.match(name)
        if found:
            yield folder + slash + found[1]


def group_of(mount: int, path: bytes) -> bytes:
    """Files of one make in one mount: the same extension, else the same name but for its digits."""
    name = path.rpartition(b"/")[2]
    found = _EXTENSION.search(name)
    kind = found[0].lower() if found else _DIGITS.sub(b"#", name)[:64]
    return b"%d:%b" % (mount, kind)


class Lineage:
    """The predecessor of one file. May be asked from several seal threads; each answer is the same."""

    def __init__(self, ports: Ports, path: bytes) -> None:
        self.path = path
        self._ports = ports
        self._looked = False
        self._entry: Any = None

    def _find(self) -> Any:
        if not self._looked:
            for path in candidates(self.path):
                try:
                    self._entry = self._ports.last_point_entry(path)
                except HoldfastError as error:  # an unreadable point must not stop a writer
                    log.warning("no predecessor for %r: %s", self.path, error)
                if self._entry is not None:
                    break
            self._looked = True
        return self._entry

    @property
    def mode(self) -> int:
        """How the predecessor was chunked; 0 when there is none."""
        entry = self._find()
        return 0 if entry is None else self._ports.entry_mode(entry)

    def span(self, number: int) -> list[Extent]:
        """The predecessor's extents of a span; none when it cannot be read."""
        entry = self._find()
        if entry is None:
            return []
        try:
            return self._ports.entry_span(entry, number)
        except HoldfastError as error:
            log.warning("predecessor of %r: %s", self.path, error)
            return []
