"""Which sealed packs at a location points need: those of every chunk that is reached, and of what its record there is a
delta of.

That record may be of another form than the one here: a chunk that was stored again is no delta any more. What it is a
delta of is told by its pack's trailer then.

Of a point only what another has not is looked at, where that one's packs are known: equal nodes reach equal chunks, and
those lie in the same packs. Nodes that were met are remembered as well. Memory: their ids.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from engine import limits
from engine.chunks import ChunkReader
from engine.copies import rows
from engine.copies.link import Link, pack_of
from engine.copies.rows import EXTRA, CopyRow
from engine.copies.sealed import path_of, read_trailer
from engine.errors import UNREADABLE, Corrupt, NotFound
from engine.index import Index, Table, Txn
from engine.index.rows import chunk_row
from engine.nodes import walk
from engine.nodes.ports import Ref

_TRAILERS = 64  # whose records are remembered
_PAIRED = 1024  # nodes of one place that are compared at once
_SPARE = 16


class Records:
    """What records at a location are deltas of."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._trailers: OrderedDict[int, dict[bytes, tuple[bytes, ...]]] = OrderedDict()

    def bases(self, txn: Txn, cid: bytes, copy: CopyRow) -> tuple[bytes, ...]:
        """Of the record of this chunk there, whatever form it has here. Raises Corrupt, NotFound, and what reading the
        location raises."""
        raw = txn.get(Table.CHUNKS, cid)
        if raw is not None and rows.form_of(row := chunk_row(raw)) == copy.form:
            return row.bases
        if copy.flags & EXTRA:
            return ()  # the service's own are deltas of nothing
        listed = self._listed(txn, copy.pack)
        if cid not in listed:
            raise NotFound(f"chunk {cid.hex()}", expected="in its pack at the location", found="not there",
                           do="run 'holdfast check'")  # fmt: skip
        return listed[cid]

    def _listed(self, txn: Txn, number: int) -> dict[bytes, tuple[bytes, ...]]:
        found = self._trailers.get(number)
        if found is None:
            raw = txn.get(Table.AWAY, rows.away_key(number))
            if raw is None:
                raise NotFound(
                    f"pack {number}",
                    expected="a row of it",
                    found="none",
                    do="run 'holdfast check'",
                )
            row = rows.away_row(raw)
            pack = pack_of(row)
            frame = self._link.location.read(path_of(pack.name), row.trailer, row.trailer_len)
            listed = read_trailer(self._link.seal_of(pack), row.trailer, frame)
            found = self._trailers[number] = {one.id: one.bases for one in listed}
            while len(self._trailers) > _TRAILERS:
                self._trailers.popitem(last=False)
        self._trailers.move_to_end(number)
        return found


class Needs:
    """Of one location. ``unsure``: what a record there is a delta of cannot be told: then every pack may be needed."""

    def __init__(
        self, reader: ChunkReader, index: Index, link: Link, step: Callable[[int], None]
    ) -> None:
        self._reader = reader
        self._index = index
        self._place = link.row.id
        self._records = Records(link)
        self._step = step
        self._nodes: set[bytes] = set()
        self.unsure = False

    def packs(self, top: bytes, extras: Iterable[bytes] = (), before: bytes = b"") -> set[int]:
        """Packs that a point needs, by its record, and these chunks; but those that only what was met before needs, or
        what the point ``before`` (b"" for none) reaches, may be left out. Raises Corrupt for what is not there."""
        found: set[int] = set()
        for cids in self._new(top, before):
            self._places(cids, found)
        self._places(list(extras), found)
        return found

    def _new(self, top: bytes, before: bytes) -> Iterator[list[bytes]]:
        """Each node that ``before`` does not reach, as far as it is found where it was, with chunks it refers to.

        Nothing is passed over but what a node that ``before`` reaches refers to as well; so how nodes are paired
        matters for what it costs alone.
        """
        todo = [([top], [before] if before else [])]
        while todo:
            news, olds = todo.pop()
            if len(news) > _PAIRED:
                todo.append((news[_PAIRED:], olds[_PAIRED:]))
                news, olds = news[:_PAIRED], olds[:_PAIRED]
            self._met(olds)
            news = [cid for cid in news if cid not in self._nodes]
            if not news:
                continue
            data, was = self._old(olds)
            inner: dict[bytes, dict[bytes, None]] = {}
            shared: set[bytes] = set()
            for cid in news:
                if cid in self._nodes:
                    continue
                self._met([cid])
                self._step(len(self._nodes))
                here = [cid]
                for name, kind, child in walk.named(self._reader.read_node(cid), cid):
                    if kind is Ref.NODE:
                        if child in self._nodes:
                            shared.add(child)
                        else:
                            inner.setdefault(name, {})[child] = None
                    elif child not in data:
                        here.append(child)
                yield here
            for name, some in inner.items():
                left = [cid for cid in was.get(name, ()) if cid not in shared]
                todo.append((list(some), left[: 4 * len(some) + _SPARE]))

    def _old(self, olds: Iterable[bytes]) -> tuple[set[bytes], dict[bytes, list[bytes]]]:
        """What nodes whose packs are known refer to: chunks of content, and nodes by the name they are under."""
        data: set[bytes] = set()
        nodes: dict[bytes, list[bytes]] = {}
        for cid in olds:
            try:
                found = list(walk.named(self._reader.read_node(cid), cid))
            except UNREADABLE:
                continue  # then more is looked at
            for name, kind, child in found:
                if kind is Ref.NODE:
                    nodes.setdefault(name, []).append(child)
                else:
                    data.add(child)
            self._met(child for _, kind, child in found if kind is Ref.NODE)
        return data, nodes

    def _met(self, cids: Iterable[bytes]) -> None:
        if len(self._nodes) >= limits.WALKED_NODES_MAX:
            self._nodes.clear()  # looked at again where they are met again
        self._nodes.update(cids)

    def _places(self, cids: list[bytes], found: set[int]) -> None:
        done: set[bytes] = set()
        with self._index.read() as txn:
            while cids:
                cid = cids.pop()
                if cid in done:
                    continue
                done.add(cid)
                raw = txn.get(Table.COPIES, rows.copy_key(self._place, cid))
                if raw is None:
                    raise Corrupt(f"chunk {cid.hex()}", expected="to be at the location", found="no row of it there",
                                  do="run 'holdfast check'")  # fmt: skip
                copy = rows.copy_row(raw)
                found.add(copy.pack)
                try:
                    cids += self._records.bases(txn, cid, copy)
                except (Corrupt, NotFound):  # then every pack is taken for needed
                    self.unsure = True
