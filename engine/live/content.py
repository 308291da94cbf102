"""File content of a live tree: writing, truncating, sealing's bookkeeping, read plans.

A span is kept in ``Content.spans`` only while memory knows more of it than the index; the extents of clean spans are
in a bounded cache.  All methods need the tree's lock.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from engine import limits
from engine.errors import HoldfastError
from engine.index import Table
from engine.live import rows
from engine.live.fragments import Data, Fragments
from engine.live.inode import Inode
from engine.live.ports import Hold
from engine.live.spans import (
    SPAN,
    Content,
    Cut,
    Extents,
    Piece,
    Span,
    clip,
    covered,
    look_through,
)
from engine.live.state import State
from engine.nodes.extents import decode_extents


class Contents:
    """The content of all files of a live tree. ``room`` wakes those who wait for seals or for room."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.dirty_bytes = 0  # held in fragments, those being sealed included
        self.new_bytes = 0  # the part of them over nothing: what quota must expect
        self.in_work = 0  # spans in seal threads
        self.unsealed: dict[int, Inode] = {}  # files with fragments, those being sealed included
        self.waiting: OrderedDict[int, tuple[Inode, float]] = (
            OrderedDict()
        )  # not in work, oldest first
        self.room = threading.Condition(state.lock)
        self._clean: OrderedDict[tuple[int, int], Extents] = OrderedDict()

    # --- writing ------------------------------------------------------------------------------------------

    def write(self, inode: Inode, offset: int, data: Data) -> Span | None:
        """Lay bytes over the file; returns a span that has become full and waits for sealing, if any."""
        content = inode.content
        if content is None:
            content = inode.content = Content()
        number = offset // SPAN
        inside = offset - number * SPAN
        end = offset + len(data)
        if inside + len(data) <= SPAN:
            full = self._put(inode, content, number, inside, data)
        else:
            full = None
            view = memoryview(data)
            while view:
                size = min(SPAN - inside, len(view))
                full = self._put(inode, content, number, inside, view[:size]) or full
                view = view[size:]
                number, inside = number + 1, 0
        if end > inode.size:
            inode.size = end
        return full

    def _put(
        self, inode: Inode, content: Content, number: int, inside: int, data: Data
    ) -> Span | None:
        span = content.spans.get(number)
        if span is None:
            span = content.spans[number] = Span(number)
        fragments = span.fragments
        if fragments is None:
            fragments = span.fragments = Fragments(self._over_nothing(inode, content, span))
            content.unsealed[number] = span
            self.unsealed[inode.ino] = inode
            if inode.ino not in self.waiting:
                self.waiting[inode.ino] = (inode, self._state.clock.monotonic())
        grown = fragments.put(inside, data)
        self.dirty_bytes += grown
        if fragments.fresh:
            content.unsealed_new += grown
            self.new_bytes += grown
        if fragments.size == SPAN and not span.queued and span.sealing is None:
            return span
        return None

    @staticmethod
    def _over_nothing(inode: Inode, content: Content, span: Span) -> bool:
        """True when the span is known, without reading the index, to have no extents yet."""
        if span.sealing is not None:
            return False
        if span.extents is not None:
            return not span.extents
        return (
            inode.alloc == 0
            or inode.born == 0
            or span.number >= content.void
            or span.number * SPAN >= inode.floor
        )

    def _drop_fragments(self, content: Content, fragments: Fragments, size: int) -> None:
        """``size`` bytes of these fragments are no longer waiting."""
        self.dirty_bytes -= size
        if fragments.fresh:
            content.unsealed_new -= size
            self.new_bytes -= size

    def _allocated(self, inode: Inode, change: int) -> None:
        inode.alloc += change
        self._state.used_bytes += change

    # --- extents ------------------------------------------------------------------------------------------

    def extents(self, inode: Inode, number: int) -> Extents:
        """The newest extents of a span, fragments not counted."""
        content = inode.content
        if content is not None:
            span = content.spans.get(number)
            if span is not None:
                if span.extents is None:
                    span.extents = self._committed(inode, content, number)
                return span.extents
        return self._committed(inode, content, number)

    def _committed(self, inode: Inode, content: Content | None, number: int) -> Extents:
        if inode.born == 0 or inode.alloc == 0 or number * SPAN >= inode.floor:
            return []
        if content is not None and (number >= content.void or number >= content.void_flight):
            return []
        key = (inode.ino, number)
        found = self._clean.get(key)
        if found is not None:
            self._clean.move_to_end(key)
            return found
        state = self._state
        if number == 0 and inode.inline is not None:
            raw: bytes | None = inode.inline
        else:
            with state.index.read() as txn:
                raw = txn.get(Table.SPANS, rows.span_key(state.mount, inode.ino, number))
        extents: Extents = [] if raw is None else decode_extents(raw)
        self.keep_clean(inode.ino, number, extents)
        return extents

    def _forget_clean(self, ino: int, first: int, end: int) -> None:
        """Spans from ``first`` on are truncated away: what the cache says of them must not come back."""
        if end - first <= len(self._clean):
            for number in range(first, end):
                self._clean.pop((ino, number), None)
        else:
            for key in [key for key in self._clean if key[0] == ino and key[1] >= first]:
                del self._clean[key]

    def keep_clean(self, ino: int, number: int, extents: Extents) -> None:
        """Remember the extents of a span that are as the index has them."""
        self._clean[ino, number] = extents
        if len(self._clean) > limits.SPAN_CACHE:
            self._clean.popitem(last=False)

    # --- sealing ------------------------------------------------------------------------------------------

    def take(self, inode: Inode, span: Span) -> tuple[Extents, Fragments] | None:
        """Hand the span's fragments to the calling seal thread; None when there is nothing to do now."""
        span.queued = False
        if span.fragments is None or span.sealing is not None or span.dropped:
            return None
        assert inode.content is not None
        old = self.extents(inode, span.number)
        span.extents = old
        span.sealing = span.fragments.freeze()
        span.fragments = None
        span.taken += 1
        self.in_work += 1
        if not any(other.fragments for other in inode.content.unsealed.values()):
            self.waiting.pop(inode.ino, None)
        return old, span.sealing

    def not_taken(self, inode: Inode, span: Span, error: HoldfastError) -> None:
        """What the index should say of the span cannot be read: those who wait are told, the fragments stay."""
        span.taken += 1
        span.done = span.taken
        span.failed = True
        inode.error = error
        self.room.notify_all()

    def sealed(
        self, inode: Inode, span: Span, extents: Extents, encoded: bytes | None, hold: Hold | None
    ) -> None:
        """The taken fragments are in chunks now: ``extents`` is the span with them merged in."""
        content = self._back(inode, span)
        if content is None:
            if hold is not None:
                self._state.limbo.append(hold)
            return
        if span.cut < SPAN:
            extents = clip(extents, span.cut)
            encoded = None
            span.cut = SPAN
        self._allocated(inode, covered(extents) - covered(span.extents or []))
        span.extents = extents
        span.encoded = encoded
        if hold is not None:
            span.holds.append(hold)
        span.failed = False
        content.sealed[span.number] = span
        if span.fragments is None:
            self._all_sealed(inode, content, span)
        self._settle_error(inode, content)
        self._state.touch(inode)

    def seal_failed(self, inode: Inode, span: Span, error: HoldfastError) -> None:
        """The taken fragments stay; newer ones are laid over them. The file remembers the error."""
        older = span.sealing
        content = self._back(inode, span)
        if content is None or older is None:
            return
        newer = span.fragments
        older.fresh = False
        older.cut(span.cut)
        span.cut = SPAN
        if newer is not None:
            self._drop_fragments(content, newer, newer.size)
            older = newer.over(older)
        self.dirty_bytes += older.size
        if older:
            span.fragments = older
            span.failed = True
            inode.error = error
            self.waiting.setdefault(inode.ino, (inode, self._state.clock.monotonic()))
        else:
            span.fragments = None
            self._all_sealed(inode, content, span)

    def _all_sealed(self, inode: Inode, content: Content, span: Span) -> None:
        """The span has no fragments in any layer."""
        content.unsealed.pop(span.number, None)
        if not content.unsealed:
            self.unsealed.pop(inode.ino, None)
            self.waiting.pop(inode.ino, None)

    def _back(self, inode: Inode, span: Span) -> Content | None:
        """Account for fragments that came back; None when the span is no longer part of the file."""
        fragments = span.sealing
        assert fragments is not None
        span.sealing = None
        span.done = span.taken
        self.in_work -= 1
        self.room.notify_all()
        content = inode.content
        if span.dropped or content is None:
            self.dirty_bytes -= fragments.size
            return None
        self._drop_fragments(content, fragments, fragments.size)
        return content

    @staticmethod
    def _settle_error(inode: Inode, content: Content) -> None:
        if inode.error is not None and not any(s.failed for s in content.unsealed.values()):
            inode.error = None

    # --- truncation, removal --------------------------------------------------------------------------------

    def truncate(self, inode: Inode, size: int) -> None:
        """Set the file's size: bytes behind it are gone, bytes before it that were never written are a hole."""
        if size >= inode.size:
            inode.size = size
            return
        content = inode.content
        if content is None:
            content = inode.content = Content()
        if size == 0:
            content.lineage = None  # written anew, perhaps after a point that was not there before
        number, inside = divmod(size, SPAN)
        first = number + 1 if inside else number
        self._allocated(inode, -self._allocated_from(inode, content, size, first))
        for span in [span for span in content.spans.values() if span.number >= first]:
            self._drop_span(inode, content, span)
        if inside:
            self._cut_span(inode, content, number, inside)
        self._forget_clean(inode.ino, first, (inode.size + SPAN - 1) // SPAN)
        content.void = min(content.void, first)
        inode.size = size
        inode.floor = min(inode.floor, size)
        self._settle_error(inode, content)
        self.room.notify_all()

    def _allocated_from(self, inode: Inode, content: Content, size: int, first: int) -> int:
        """Sealed bytes in spans from ``first`` on, all of which go. Reads their rows only if it cannot be known."""
        if inode.alloc == 0 or size == 0:
            return inode.alloc
        if inode.alloc == inode.size:  # no hole anywhere
            return max(0, inode.size - first * SPAN)
        total = 0
        for span in content.spans.values():
            if span.number >= first and span.extents is not None:
                total += covered(span.extents)
        if inode.born == 0:
            return total
        known = {span.number for span in content.spans.values() if span.extents is not None}
        bound = min(content.void, content.void_flight)
        state = self._state
        start = rows.span_key(state.mount, inode.ino, first)
        with state.index.read() as txn:
            for key, raw in txn.scan(Table.SPANS, start=start, prefix=start[:-4]):
                number = rows.split_span_key(key)
                if number >= bound or number * SPAN >= inode.floor:
                    break
                if number not in known:
                    total += covered(decode_extents(raw))
        return total

    def _cut_span(self, inode: Inode, content: Content, number: int, inside: int) -> None:
        old = self.extents(inode, number)
        new = clip(old, inside)
        span = content.spans.get(number)
        if new is not old:
            if span is None:
                span = content.spans[number] = Span(number)
            self._allocated(inode, covered(new) - covered(old))
            span.extents = new
            span.encoded = None
            content.sealed[number] = span
        if span is None:
            return
        if span.sealing is not None:
            span.cut = min(span.cut, inside)
        if span.fragments is not None:
            self._drop_fragments(content, span.fragments, span.fragments.cut(inside))
            if not span.fragments:
                span.fragments = None
                span.failed = False
                if span.sealing is None:
                    self._all_sealed(inode, content, span)

    def _drop_span(self, inode: Inode, content: Content, span: Span) -> None:
        if span.fragments is not None:
            self._drop_fragments(content, span.fragments, span.fragments.size)
            span.fragments = None
        if span.sealing is not None and span.sealing.fresh:
            content.unsealed_new -= span.sealing.size  # its bytes stay in memory until it is back
            self.new_bytes -= span.sealing.size
        span.dropped = True
        # A commit in progress may be writing rows that name these chunks: hold them until the next one.
        self._state.limbo.extend(span.holds)
        span.holds = []
        del content.spans[span.number]
        self._all_sealed(inode, content, span)
        content.sealed.pop(span.number, None)

    def remove(self, inode: Inode) -> None:
        """The file is gone for good."""
        content = inode.content
        if content is not None:
            for span in list(content.spans.values()):
                self._drop_span(inode, content, span)
            inode.content = None
            self.room.notify_all()

    # --- what a commit may say ------------------------------------------------------------------------------

    def committed_size(self, inode: Inode) -> int:
        """The size a commit may give the file now: it ends before the first unsealed byte past the old size."""
        content = inode.content
        floor = inode.floor
        if content is None or not content.unsealed or floor >= inode.size:
            return inode.size
        size = inode.size
        for span in content.unsealed.values():
            start = span.number * SPAN
            if start + SPAN <= floor or start >= size:
                continue
            for fragments in (span.fragments, span.sealing):
                if fragments is not None:
                    at = fragments.first_at(max(0, floor - start))
                    if at is not None:
                        size = min(size, start + at)
        return size

    # --- reading ------------------------------------------------------------------------------------------

    def plan(self, inode: Inode, offset: int, size: int) -> list[Piece]:
        """What the bytes offset..offset+size, cut at the end of the file, are made of."""
        end = min(offset + size, inode.size)
        pieces: list[Piece] = []
        content = inode.content
        while offset < end:
            number = offset // SPAN
            base = number * SPAN
            stop = min(end, base + SPAN)
            span = content.spans.get(number) if content is not None else None
            extents = self.extents(inode, number)
            layers: list[Fragments | Cut] = []
            if span is not None:
                if span.fragments is not None:
                    layers.append(span.fragments)
                if span.sealing is not None:
                    layers.append(Cut(span.sealing, span.cut) if span.cut < SPAN else span.sealing)
            look_through(layers, extents, offset - base, stop - base, pieces)
            offset = stop
        return pieces
