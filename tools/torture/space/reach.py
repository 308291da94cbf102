"""What a store must hold, worked out without the engine's marking: by the decoders of ``tools/rescue.py``.

From the index come only the points' records, the rows of the live trees, and where each chunk's record lies; nodes are
read from the packs and decoded as the rescue program does it.
"""

from __future__ import annotations

import stat
from pathlib import Path

import blake3

from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import KIND_TOMBSTONE, chunk_row
from engine.live import rows
from tools import rescue


class _Watched(rescue.Packs):
    """Notes what is asked for; bases that are read along are not."""

    def __init__(self, store: Path) -> None:
        self.met: set[bytes] = set()
        self._inside = True  # while the points' records are looked for
        super().__init__(store)
        self._inside = False

    def read(self, cid: bytes, level: int = 0) -> bytes:
        if self._inside:
            return super().read(cid, level)
        self.met.add(cid)
        self._inside = True
        try:
            return super().read(cid)
        finally:
            self._inside = False


class Reach:
    """What points and live trees reach, and what has a row."""

    def __init__(self, opened: OpenStore) -> None:
        self._home = Path(opened.path)
        self._packs = _Watched(self._home)
        self._seen: set[bytes] = set()
        with opened.context.index.read() as txn:
            self.rows = {cid: chunk_row(raw) for cid, raw in txn.scan(Table.CHUNKS)}
            for _, record in txn.scan(Table.POINTS):
                self._packs.met.add(blake3.blake3(record, key=opened.context.key).digest())
                fields = rescue.POINT.unpack_from(record)
                self._entry(rescue.Entry(record[rescue.POINT.size + sum(fields[9:13]) :]))
            for _, root in txn.scan(Table.ROOTS):
                self._directory(root) if len(root) == 32 else self._file(root)
            for _, raw in txn.scan(Table.SPANS):
                self._packs.met.update(cid for _, _, cid, _ in rescue.extents(raw))
            for _, raw in txn.scan(Table.INODES):
                inode = rows.decode_inode(raw)
                if inode.flags & rows.F_INLINE:
                    self._packs.met.update(cid for _, _, cid, _ in rescue.extents(inode.tail))
        self.needed = self._with_bases()

    def _entry(self, entry: rescue.Entry) -> None:
        rescue.xattrs(self._packs, entry.xattrs)
        if stat.S_ISDIR(entry.mode):
            self._directory(entry.rest)
        elif stat.S_ISREG(entry.mode):
            self._file(entry.rest)

    def _directory(self, root: bytes) -> None:
        if root and root not in self._seen:
            self._seen.add(root)
            for child in rescue.members(self._packs, root):
                self._entry(child)

    def _file(self, root: bytes) -> None:
        for _, parts in rescue.spans(self._packs, root):
            self._packs.met.update(cid for _, _, cid, _ in parts)

    def _with_bases(self) -> set[bytes]:
        """Bases as the records at the rows' places name them."""
        todo, found = list(self._packs.met), set(self._packs.met)
        while todo:
            row = self.rows.get(todo.pop())
            if row is None:
                continue
            for base in self._bases(row.pack, row.offset):
                if base not in found:
                    found.add(base)
                    todo.append(base)
        return found

    def _bases(self, pack: int, offset: int) -> list[bytes]:
        path = self._home / "packs" / f"{pack // 1024:05d}" / f"{pack:08d}.pack"
        with (path if path.exists() else self._home / "segments" / f"{pack:08d}.seg").open(
            "rb"
        ) as file:
            file.seek(offset)
            count = rescue.RECORD.unpack(file.read(48))[3]
            file.seek(offset + 52)
            return [rescue.BASE.unpack(file.read(40))[0] for _ in range(count)]

    def complaint(self) -> str:
        """What is wrong right after a collection that was finished: something needed is gone, or something is left."""
        missing = self.needed - self.rows.keys()
        if missing:
            return (
                f"{len(missing)} needed chunks have no row, {next(iter(missing)).hex()} among them"
            )
        # Tombstones are kept by themselves, as long as packs tell of their points.
        left = {c for c in self.rows.keys() - self.needed if self.rows[c].kind != KIND_TOMBSTONE}
        return f"{len(left)} chunks nothing needs are left" if left else ""
