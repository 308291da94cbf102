"""Groups of files of one make, and the dictionaries each has: chunks sampled from their new data.

64 KiB frames of database pages compress 2.36 : 1 alone and 2.60 : 1 with such a dictionary, at nearly the same rate;
small files of one kind gain far more.  A disk image holds many kinds of data: so a group keeps a few dictionaries, and
a sample of each span of new data tells which of them it takes (measured, four guests of one template with a database
each: 3 % less stored than with one).  Where none gains, one more is made, and it must earn its place.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence

from engine import codec, limits
from engine.chunks import ChunkReader, ChunkWriter, Context, Dictionary, Hold
from engine.codec import ID_LEN
from engine.errors import HoldfastError
from engine.index import Table

log = logging.getLogger("holdfast.engine.ingest")

_SAMPLE = 16 * limits.KIB  # bytes of a span that tell which dictionary it takes: 40 µs for each
_GAINS = 0.99  # it must shrink to this part of its plain frame, or none is taken
_FITS_WELL = 0.9  # … and no other is tried
_FITS = 0.97  # a sample that shrinks to this part of its plain frame is of a dictionary's kind
_WORTH = 0.97  # what the first must gain on data that is not in it
_MORE_WORTH = 0.92  # what a further one must gain: each costs some 50 KB
_PAUSE_MAX = 32  # spans of new data between two tries to make one, when none is worth it
_KEY_MAX = 400


class _Group:
    """One group: its dictionaries, the one chosen last first; spans of misfits until another is made."""

    __slots__ = ("busy", "known", "name", "pause", "wait")

    def __init__(self, name: bytes, known: list[Dictionary]) -> None:
        self.name = name
        self.known = known
        self.pause = 1
        self.wait = 0
        self.busy = False


class Groups:
    """The groups a worker has met of late; the others' dictionaries are in the store. Thread-safe."""

    def __init__(self, context: Context, writer: ChunkWriter, reader: ChunkReader) -> None:
        self._context = context
        self._writer = writer
        self._reader = reader
        self._lock = threading.Lock()
        self._groups: OrderedDict[bytes, _Group] = OrderedDict()

    def get(self, name: bytes, fresh: Sequence[codec.Bytes], hold: Hold) -> Dictionary | None:
        """The group's dictionary for ``fresh``, data about to be stored; usable until ``hold`` is released."""
        group = self._group(name[:_KEY_MAX] or b"-")
        much = sum(map(len, fresh)) >= limits.DICTIONARY_MIN
        while True:
            best, fits = self._choose(group, fresh, much)
            if best is None or self._writer.known((best.cid,), hold):
                break
            with self._lock:  # collected or damaged since
                group.known = [one for one in group.known if one is not best]
        if not much or not self._due(group, fits):
            return best
        made = None
        try:
            made = self._make(group, fresh, hold)
        finally:
            with self._lock:
                group.busy = False
                group.pause = 1 if made else min(2 * group.pause, _PAUSE_MAX)
                group.wait = group.pause
        return made or best

    def _group(self, name: bytes) -> _Group:
        with self._lock:
            group = self._groups.get(name)
            if group is None:
                group = self._groups[name] = _Group(name, self._stored(name))
                self._trim()
            self._groups.move_to_end(name)
            return group

    def _trim(self) -> None:
        kept = sum(len(group.known) for group in self._groups.values())
        while kept > limits.DICTIONARIES_KEPT or len(self._groups) > limits.GROUPS_MAX:
            _, oldest = self._groups.popitem(last=False)
            kept -= len(oldest.known)

    def _stored(self, name: bytes) -> list[Dictionary]:
        with self._context.index.read() as txn:
            row = txn.get(Table.DICTS, name) or b""
        found = []
        for at in range(0, len(row), ID_LEN):
            cid = row[at : at + ID_LEN]
            if self._reader.row(cid) is None:
                continue
            try:
                content = self._reader.read(cid)
            except HoldfastError:
                continue  # the reader has logged and marked it
            found.append(Dictionary(codec.Dictionary(content), cid, len(content)))
        return found

    def _choose(
        self, group: _Group, fresh: Sequence[codec.Bytes], much: bool
    ) -> tuple[Dictionary | None, bool]:
        """The dictionary that makes a sample smallest, and whether it gains on it."""
        with self._lock:
            known = list(group.known)
        if not known:
            return None, False
        if not fresh or (len(known) == 1 and not much):
            return known[0], True
        middle = memoryview(fresh[len(fresh) // 2])
        start = max(0, len(middle) - _SAMPLE) // 2
        sample = middle[start : start + _SAMPLE]
        plain = len(codec.compress(sample))
        best, least = None, int(plain * _GAINS)
        for one in known:
            size = len(one.digest.compress(sample))
            if size < least:
                best, least = one, size
            if size < plain * _FITS_WELL:
                break  # data of one kind comes in a row: mostly the first
        with self._lock:
            if best is not None and best in group.known and group.known[0] is not best:
                group.known.remove(best)
                group.known.insert(0, best)
        return best, least < plain * _FITS

    def _due(self, group: _Group, fits: bool) -> bool:
        """Whether the caller is to make another dictionary now."""
        with self._lock:
            if fits or group.busy:
                return False
            group.wait -= 1
            if group.wait > 0:
                return False
            group.busy = True
            return True

    def _make(self, group: _Group, fresh: Sequence[codec.Bytes], hold: Hold) -> Dictionary | None:
        """One more dictionary, of this data, if it is worth it. Raises StoreFull, LocationUnavailable."""
        content, other = _sample(fresh)
        digest = codec.Dictionary(content)
        worth = _MORE_WORTH if group.known else _WORTH
        if len(digest.compress(other)) >= len(codec.compress(other)) * worth:
            return None  # not the kind of data that gains
        cid = codec.chunk_id(self._context.key, content)
        if not self._writer.known((cid,), hold):
            self._writer.put(cid, content, hold)
        made = Dictionary(digest, cid, len(content))
        with self._lock:
            group.known = [made, *[one for one in group.known if one.cid != cid]]
            del group.known[limits.DICTIONARIES_MAX :]
            self._trim()
            row = b"".join([one.cid for one in group.known])
        self._writer.note(Table.DICTS, group.name, row)
        return made


def _sample(fresh: Sequence[codec.Bytes]) -> tuple[bytes, codec.Bytes]:
    """``DICTIONARY_SAMPLES`` pieces taken evenly from ``fresh``, and one that is in none of them, to judge by."""
    data = memoryview(codec.join(fresh))
    size, count = limits.DICTIONARY_SAMPLE, limits.DICTIONARY_SAMPLES
    step = max(size, len(data) // count)
    parts = [data[at : at + size] for at in range(0, len(data), step)][:count]
    middle = count // 2 * step + size
    return b"".join(parts), data[middle : min(middle + step - size, middle + limits.SLOT)]
