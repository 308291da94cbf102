"""One commit's worth of changes: gathered under the tree's lock, written in a transaction, settled afterwards.

What is gathered is copied (rows of inodes) or immutable (extent lists, values), so that the tree goes on changing
while the transaction is written.  What is in a batch counts as *in flight*: it stays in memory, and when the
transaction fails it becomes dirty again, beneath whatever changed since.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from engine import limits
from engine.errors import Busy, Corrupt
from engine.index import Table, Txn
from engine.live import rows
from engine.live.content import Contents
from engine.live.entries import Entry
from engine.live.inode import Inode
from engine.live.ports import Hold
from engine.live.purge import purge_inode
from engine.live.rows import NOWHERE, Changed, Meta
from engine.live.spans import SPAN, Extents, Span, clip, covered
from engine.live.state import State
from engine.nodes.extents import encode_extents

log = logging.getLogger("holdfast.engine.live")

_TAIL_SLACK = 4  # unchanged spans at a file's end that are looked at anew rather than listing the changed ones


class SpanRow(NamedTuple):
    """A span to be written. ``whole``: nothing of it was withheld; ``raw``: its row, None for no row."""

    span: Span
    extents: Extents
    whole: bool
    raw: bytes | None


class Saved(NamedTuple):
    """An inode to be written. ``void``: delete span rows from this number on; ``floor``: the size committed before."""

    inode: Inode
    born: int
    raw: bytes
    inline: bytes | None
    size: int
    floor: int
    void: int
    spans: list[SpanRow]
    xattrs: list[tuple[bytes, bytes | None]]
    links: dict[tuple[int, int], bool] | None


class NameChange(NamedTuple):
    """A name to be written: delete it at the old cookies, put the entry if there is one."""

    directory: int
    born: int
    name: bytes
    entry: Entry | None
    old: tuple[int, ...]


_NO_SPANS: list[SpanRow] = []
_NO_XATTRS: list[tuple[bytes, bytes | None]] = []


class Batch:
    """See the module. ``meta`` is what LIVE_META will say."""

    def __init__(self, state: State, contents: Contents, withheld: dict[int, int]) -> None:
        self._state = state
        self._contents = contents
        self._withheld = withheld
        self.seq = state.seq + 1
        self.saved: list[Saved] = []
        self.names: list[NameChange] = []
        self.directories: list[Inode] = []
        self.orphans: list[Inode] = []
        self.limbo: list[Hold] = []
        self.purge: list[int] = []
        self.purged: list[int] = []
        self.listed: list[int] = []
        self.dirty_since: float | None = None
        self.meta = Meta(0, 0, 0, 0, b"")

    # --- gathering (lock held) ------------------------------------------------------------------------------

    def gather(self, reserve: int) -> None:
        """Take everything dirty out of the state. ``reserve``: inode numbers to claim ahead."""
        state = self._state
        self.dirty_since, state.dirty_since = state.dirty_since, None
        dirty, state.dirty = state.dirty, {}
        directories, state.dirty_names, state.dirty_rows = state.dirty_names, {}, 0
        self.limbo, state.limbo = state.limbo, []
        self.purge = list(state.purge)
        for ino in [ino for ino in self._withheld if ino in state.gone]:
            del self._withheld[ino]  # removed since: its bytes are out of the count already
        for inode in dirty.values():
            inode.dirty = False
            if inode.nlink == 0:
                self._withheld.pop(inode.ino, None)
                if inode.born and not inode.orphan_row:
                    self.orphans.append(inode)
            else:
                inode.flight = True
                self.saved.append(self._save(inode))
        for directory in directories.values():
            self._gather_names(directory)
        orphans = state.orphans.values()
        self.meta = Meta(
            state.next_ino + reserve,
            self.seq,
            state.used_bytes - sum(self._withheld.values()) - sum(o.alloc for o in orphans),
            state.used_inodes - len(orphans),
            state.secret,
        )

    def _gather_names(self, directory: Inode) -> None:
        names = directory.names
        if names is None:
            return
        self.directories.append(directory)
        ino, born = directory.ino, directory.born
        entries = names.entries
        for name, old in names.changed.items():
            self.names.append(NameChange(ino, born, name, entries[name], old))
        names.flight, names.changed = names.changed, {}

    def _save(self, inode: Inode) -> Saved:
        floor = inode.floor
        xattrs, links = _NO_XATTRS, None
        if inode.xattrs_changed:
            values = inode.xattrs or {}
            xattrs = [(name, values.get(name)) for name in inode.xattrs_changed]
            inode.xattrs_changed = None
        if inode.links_changed:
            links, inode.links_changed = inode.links_changed, None
        if inode.content is None:
            inode.floor = inode.size
            raw = inode.encode(self.seq, inode.size, inode.alloc, inode.inline)
            return Saved(
                inode, inode.born, raw, inode.inline, inode.size, floor, NOWHERE, _NO_SPANS, xattrs, links,
            )  # fmt: skip
        content = inode.content
        size = self._contents.committed_size(inode)
        void, content.void, content.void_flight = content.void, NOWHERE, content.void
        spans, withheld, inline = self._save_spans(inode, size, inode.inline if void else None)
        if withheld:
            self._withheld[inode.ino] = withheld
        else:
            self._withheld.pop(inode.ino, None)
        inode.floor = size
        raw = inode.encode(self.seq, size, inode.alloc - withheld, inline)
        return Saved(inode, inode.born, raw, inline, size, floor, void, spans, xattrs, links)

    @staticmethod
    def _save_spans(
        inode: Inode, size: int, inline: bytes | None
    ) -> tuple[list[SpanRow], int, bytes | None]:
        """(rows, bytes held back because they lie past the committed size, inline extents of span 0)."""
        result = []
        withheld = 0
        assert inode.content is not None
        for number, span in inode.content.sealed.items():
            # The very list, when it is empty too: settling tells by it whether the span was changed meanwhile.
            extents = span.extents if span.extents is not None else []
            room = size - number * SPAN
            kept = extents
            if extents and room < SPAN:
                kept = clip(extents, max(0, room))
                if kept is not extents:
                    withheld += covered(extents) - covered(kept)
                    if room <= 0:
                        continue
            whole = kept is extents
            raw = span.encoded if whole else None
            if raw is None and kept:
                raw = encode_extents(kept)
                if whole:
                    span.encoded = raw
            if number == 0:
                inline = raw if raw is not None and len(raw) <= limits.INLINE_CONTENT_MAX else None
            result.append(SpanRow(span, extents, whole, raw))
        return result, withheld, inline

    # --- writing (in the transaction, lock not held) --------------------------------------------------------

    def write(self, txn: Txn) -> None:
        """Write all rows. Deletions first: what is put may take the place of what is deleted."""
        mount = self._state.mount
        self.purged, self.listed = [], []
        meta = txn.get(Table.LIVE_META, rows.meta_key(mount))
        seq = None if meta is None else rows.decode_meta(meta).seq
        if seq not in (self.seq - 1, self.seq):  # equal: a commit that failed late and yet arrived
            raise Busy(f"mount {mount}", expected=f"commit {self.seq - 1} to be the last",
                       found=str(seq), do="another process changed the mount; mount it again")  # fmt: skip
        begun = rows.decode_cut(txn.get(Table.LIVE_META, rows.cut_key(mount))).begun
        puts: list[tuple[Table, bytes, bytes]] = []
        self._write_names(txn, mount, begun, puts)
        for saved in self.saved:
            self._write_inode(txn, mount, begun, saved, puts)
        puts.extend((Table.ORPHANS, rows.inode_key(mount, o.ino), b"") for o in self.orphans)
        puts.sort(key=_place)
        for table, key, value in puts:
            txn.put(table, key, value)
        self._purge(txn, mount, begun)
        txn.put(Table.LIVE_META, rows.meta_key(mount), self.meta.encode())

    def _write_names(
        self, txn: Txn, mount: int, begun: int, puts: list[tuple[Table, bytes, bytes]]
    ) -> None:
        mark = rows.encode_seq(self.seq)
        for directory, born, name, entry, old in self.names:
            for cookie in old:
                if entry is None or entry.cookie != cookie:
                    txn.delete(Table.DIRENTS, rows.dirent_key(mount, directory, cookie))
            if entry is not None:
                key = rows.dirent_key(mount, directory, entry.cookie)
                puts.append((Table.DIRENTS, key, rows.encode_dirent(entry.ino, entry.kind, name)))
            if 0 < born <= begun:
                puts.append((Table.CHANGED_NAMES, rows.name_key(mount, directory, name), mark))

    def _write_inode(
        self, txn: Txn, mount: int, begun: int, saved: Saved, puts: list[tuple[Table, bytes, bytes]]
    ) -> None:
        ino = saved.inode.ino
        key = rows.inode_key(mount, ino)
        if saved.born and saved.void != NOWHERE:
            start = rows.span_key(mount, ino, saved.void)
            for found in list(txn.keys(Table.SPANS, start=start, prefix=key)):
                txn.delete(Table.SPANS, found)
        for span, _, _, raw in saved.spans:
            place = rows.span_key(mount, ino, span.number)
            if raw is not None and (span.number or raw is not saved.inline):
                puts.append((Table.SPANS, place, raw))
            elif saved.born:
                txn.delete(Table.SPANS, place)
        for name, value in saved.xattrs:
            prefix = rows.xattr_key(mount, ino, name, 0)[:-1]
            if saved.born:
                for found in list(txn.keys(Table.XATTRS, prefix=prefix)):
                    txn.delete(Table.XATTRS, found)
            if value is not None:
                puts.extend(
                    (Table.XATTRS, prefix + bytes((part,)), value[at : at + limits.XATTR_PART])
                    for part, at in enumerate(range(0, len(value) or 1, limits.XATTR_PART))
                )
        for (parent, cookie), there in (saved.links or {}).items():
            place = rows.link_key(mount, ino, parent, cookie)
            if there:
                puts.append((Table.PARENTS, place, b""))
            else:
                txn.delete(Table.PARENTS, place)
        puts.append((Table.INODES, key, saved.raw))
        if 0 < saved.born <= begun:
            self._mark_changed(txn, mount, key, saved, puts)

    def _mark_changed(
        self, txn: Txn, mount: int, key: bytes, saved: Saved, puts: list[tuple[Table, bytes, bytes]]
    ) -> None:
        """Tell the next snapshot: the inode, and which of its spans."""
        first = saved.void
        try:
            raw = txn.get(Table.CHANGED, key)
            if raw is not None:
                first = min(first, rows.decode_changed(raw).first)
        except Corrupt as error:  # what it said is lost, so all of the file is looked at anew
            log.error("the change mark of inode %d: %s", saved.inode.ino, error)
            first = 0
        numbers = sorted(row.span.number for row in saved.spans)
        if numbers:
            spans = (saved.size + SPAN - 1) // SPAN
            if spans - numbers[0] <= len(numbers) + _TAIL_SLACK:  # all of the file's end, nearly
                first = min(first, numbers[0])
            mark = rows.encode_seq(self.seq)
            puts.extend(
                (Table.CHANGED_SPANS, rows.span_key(mount, saved.inode.ino, number), mark)
                for number in numbers
                if number < first
            )
        puts.append((Table.CHANGED, key, Changed(self.seq, first).encode()))

    def _purge(self, txn: Txn, mount: int, begun: int) -> None:
        budget = limits.TXN_DELETES_MAX
        for ino in self.purge:
            if budget <= 0:  # what is left for later must be found after a crash
                if ino not in self._state.listed:
                    txn.put(Table.ORPHANS, rows.inode_key(mount, ino), b"")
                    self.listed.append(ino)
                continue
            deleted, done = purge_inode(txn, mount, ino, begun, budget)
            if done:
                self.purged.append(ino)
            budget -= deleted

    # --- settling (lock held) -------------------------------------------------------------------------------

    def settle(self) -> None:
        """The transaction is durable."""
        state = self._state
        state.seq = self.seq
        state.ino_limit = self.meta.next_ino
        for saved in self.saved:
            inode = saved.inode
            inode.flight = False
            inode.born = saved.born or self.seq
            inode.inline = saved.inline
            content = inode.content
            if content is not None:
                content.void_flight = NOWHERE
                for row in saved.spans:
                    self._settle_span(inode, row)
                if not content.spans and content.void == NOWHERE:
                    inode.content = None
        for inode in self.orphans:
            inode.orphan_row = True
        for directory in self.directories:
            names = directory.names
            if names is not None:
                for name in names.flight:
                    if names.entries.get(name, self) is None and name not in names.changed:
                        del names.entries[name]
                        state.cached_names -= 1
                names.flight = {}
        if self.purged:
            done = set(self.purged)
            state.gone -= done
            state.listed -= done
            state.purge = [ino for ino in state.purge if ino not in done]
        state.listed.update(self.listed)
        for hold in self.limbo:
            hold.release()
        state.shrink(2 * len(self.saved))

    def _settle_span(self, inode: Inode, row: SpanRow) -> None:
        span = row.span
        content = inode.content
        if content is None or span.dropped or span.extents is not row.extents or not row.whole:
            return
        for hold in span.holds:
            hold.release()
        span.holds = []
        content.sealed.pop(span.number, None)
        if span.fragments is None and span.sealing is None:
            del content.spans[span.number]
            self._contents.keep_clean(inode.ino, span.number, row.extents)

    def restore(self) -> None:
        """The transaction failed: what was gathered is dirty again."""
        state = self._state
        for saved in self.saved:
            inode = saved.inode
            inode.flight = False
            # It may have arrived all the same: from now on the inode has rows that must be removed with it.
            inode.born = saved.born or self.seq
            inode.floor = min(inode.floor, saved.floor)
            content = inode.content
            if content is not None:
                content.void = min(content.void, content.void_flight)
                content.void_flight = NOWHERE
            if saved.xattrs:
                inode.xattrs_changed = (inode.xattrs_changed or set()) | {
                    n for n, _ in saved.xattrs
                }
            if saved.links:
                inode.links_changed = {**saved.links, **(inode.links_changed or {})}
            if inode.ino in state.inodes:
                state.touch(inode)
        for inode in self.orphans:
            if inode.ino in state.orphans:
                state.touch(inode)
        for directory in self.directories:
            names = directory.names
            if names is not None:
                for name, old in names.flight.items():
                    later = names.changed.get(name, ())
                    entry = names.entries.get(name)
                    here = () if entry is None else (entry.cookie,)
                    names.changed[name] = tuple({*old, *later, *here})
                names.flight = {}
                state.touch_name(directory)
        state.limbo = self.limbo + state.limbo
        if self.dirty_since is not None:
            state.dirty_since = self.dirty_since


def _place(item: tuple[Table, bytes, bytes]) -> tuple[int, bytes]:
    return item[0].value, item[1]
