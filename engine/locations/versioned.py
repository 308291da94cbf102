"""A bucket that keeps versions, in which of each name the oldest version counts: ``s3://…?versions=1``.

Who writes over a name, or removes it without saying which version, changes nothing of what is seen here; what is
retained stays in sight until its retention ends.  And that only one creates a name needs no conditional create of the
server: each puts a version, and the oldest of them, in the order of the server's list, is the one that was made; who
did not make it removes his own.  That is sound where a version is in that order as soon as its put was answered, and
none comes to stand behind one that was listed: S3 promises both, and Ceph gives a number to each version of a name in
the step that lists it.  Everything costs one more request, but for what was listed before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

from engine import limits
from engine.errors import HoldfastError, NotFound, Unsupported
from engine.locations import contract
from engine.locations.contract import Features, Stat
from engine.locations.objectstore import Bucket
from engine.locations.retention import Retention, Version

if TYPE_CHECKING:
    import obstore
    from obstore.store import ObjectStore
    from typing_extensions import Buffer

Versions: TypeAlias = list[Version]


class Versioned(Bucket):
    """See the module."""

    def __init__(
        self,
        shown: str,
        patient: ObjectStore,
        once: ObjectStore,
        retention: Retention | None = None,
    ) -> None:
        super().__init__(shown, patient, once, retention)
        assert retention is not None, "only s3:// has versions"
        self._kept = retention
        self._known: dict[str, Version] = {}  # the oldest, of names that were looked at
        self._guard = threading.Lock()  # of _known

    def features(self) -> Features:
        try:
            return super().features()
        except Unsupported:
            return Features(create=False, lock=False)

    def create(self, name: str, data: Buffer) -> bool:
        view = memoryview(data).cast("B")
        mine = self._put_version(contract.checked(name), view)
        if mine in ("", "null"):
            raise Unsupported(
                self.shown, expected="a bucket that keeps versions", found="one that does not",
                do="leave out versions=1, or switch versions on",
            )  # fmt: skip
        found = self._oldest(name)
        if found.version == mine:
            return True
        with suppress(HoldfastError):  # nobody sees it anyway
            self._kept.erase([Version(name, mine, len(view), 0)])
        return False

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        contract.checked(name)
        contract.positive(offset)
        found = self._oldest(name)
        if length < 0:
            length = found.size - offset
        if length == 0:
            return b""
        if length < 0:  # it begins behind the end
            contract.whole(b"", offset - found.size, self._what(name), offset)
        return self._range(name, offset, length).to_bytes()

    def stat(self, name: str) -> Stat:
        found = self._oldest(contract.checked(name))
        return Stat(name, found.size, found.modified_ns)

    def list(self, prefix: str, after: str = "") -> Iterator[Stat]:
        for name, found in self._names(prefix, after):
            self._remember(found)
            yield Stat(name, found.size, found.modified_ns)

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            contract.checked(name)
        for name in names:
            with self._guard:
                self._known.pop(name, None)
        for at in range(0, len(names), limits.LIST_PAGE):
            some = names[at : at + limits.LIST_PAGE]
            gone = [
                one
                for name, found in zip(some, self._pool.map(self._every, some), strict=True)
                for one in found
                if one.name == name
            ]
            if gone:
                self._kept.erase(gone)

    def retain(self, name: str, until_s: int) -> None:
        found = self._oldest(contract.checked(name))
        self._kept.retain(name, until_s, self._what(name), found.version)

    # ---------------------------------------------------------------------------------------------

    def _range(self, name: str, offset: int, length: int) -> obstore.Bytes:
        found = self._oldest(name)
        if offset + length > found.size:
            contract.whole(b"", length, self._what(name), offset)
        return self._range_of(found.version, name, offset, length)

    def _oldest(self, name: str) -> Version:
        """Raises NotFound."""
        with self._guard:
            known = self._known.get(name)
        if known is not None:
            return known
        found = [one for one in self._every(name) if one.size >= 0]
        if not found:
            raise NotFound(self._what(name), found="nothing of that name")
        self._remember(found[-1])
        return found[-1]

    def _every(self, name: str) -> Versions:
        """Versions and markers of one name."""
        here = []
        for one in self._kept.versions(name):
            if one.name != name:
                break  # a longer name: the shortest comes first
            here.append(one)
        return here

    def _names(self, prefix: str, after: str) -> Iterator[tuple[str, Version]]:
        for name, group in groupby(self._kept.versions(prefix, after), lambda one: one.name):
            found = [one for one in group if one.size >= 0]
            if found and contract.is_name(name):
                yield name, found[-1]

    def _remember(self, found: Version) -> None:
        with self._guard:
            if len(self._known) >= limits.VERSIONS_KNOWN:
                self._known.clear()
            self._known[found.name] = found
