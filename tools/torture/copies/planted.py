"""Bugs of copies at storage locations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.copies import rows
from engine.copies.link import Link
from engine.copies.sealed import DATA, METADATA, SMALL, PackBuilder, PackRow, SealedPack, path_of
from engine.copies.upload import Uploader
from engine.index.rows import chunk_row
from engine.maintain import drop, needed
from engine.maintain.mark import Marker
from tools.torture.bugs import bug


@bug("copies-named-before-they-are-there")
def _named_before_they_are_there() -> None:
    """The journal names a point, and then its packs are put."""
    name = Uploader._name
    later: list[SealedPack] = []

    def put(self: Uploader, pack: PackBuilder) -> tuple[PackRow, bool]:
        del self
        later.append(pack.finish())
        return later[-1].row, False

    def named(self: Uploader, *arguments: Any) -> int:
        seq = name(self, *arguments)
        while later:
            sealed = later.pop()
            self._link.location.put(path_of(sealed.row.name), sealed.data)
        return seq

    Uploader._put = put  # type: ignore[method-assign]
    Uploader._name = named  # type: ignore[method-assign,assignment]


@bug("copies-needers-first")
def _needers_first() -> None:
    """Packs of nodes go before those of what the nodes refer to."""
    close = Uploader._close

    def closed(self: Uploader, kind: int) -> None:
        hidden = {one: self._lanes.pop(one) for one in (DATA, SMALL) if one in self._lanes}
        wanted, self._wanted = self._wanted, []
        close(self, kind)
        self._lanes.update(hidden)
        self._wanted = wanted

    def all_closed(self: Uploader) -> None:
        closed(self, METADATA)
        close(self, DATA)
        close(self, SMALL)

    Uploader._close_all = all_closed  # type: ignore[method-assign]


@bug("copies-put-is-believed")
def _put_is_believed() -> None:
    """Nobody looks whether a pack that was put is there."""

    def put(self: Uploader, pack: PackBuilder) -> tuple[PackRow, bool]:
        sealed = pack.finish()
        self._link.location.put(path_of(sealed.row.name), sealed.data)
        return sealed.row, False

    Uploader._put = put  # type: ignore[method-assign]


@bug("copies-reclaim-forgets-bases")
def _reclaim_forgets_bases() -> None:
    """What a needed chunk is a delta of is freed at the location."""

    class Blind(Marker):
        def _bases(self, cid: bytes) -> None:
            del cid

    needed.Marker = Blind  # type: ignore[attr-defined]


@bug("copies-removed-before-it-is-said")
def _removed_before_it_is_said() -> None:
    """Packs are removed first, and then the journal is told."""
    append = Link.append

    def appended(self: Link, body: Any, since_ns: int = 0) -> int:
        gone: Sequence[str] = getattr(body, "gone", ())
        if gone:
            self.location.remove([path_of(one) for one in gone])
        return append(self, body, since_ns)

    Link.append = appended  # type: ignore[method-assign]


@bug("copies-dropped-in-any-form")
def _dropped_in_any_form() -> None:
    """A chunk is given up here though its record there is another one: a delta of something else."""
    places = drop._There.places

    def placed(self: drop._There, batch: list[tuple[bytes, bytes]]) -> dict[bytes, rows.CopyRow]:
        here = dict(batch)
        found = places(self, batch)
        return {
            cid: copy._replace(stored=chunk_row(here[cid]).stored) for cid, copy in found.items()
        }

    drop._same = lambda copy, row, added: True
    drop._There.places = placed  # type: ignore[method-assign]


@bug("copies-fence-ignored")
def _fence_ignored() -> None:
    """Who was replaced as the location's writer goes on behind the other's entries."""
    Link._replaced = lambda self, entry: None  # type: ignore[method-assign]
