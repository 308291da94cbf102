"""One storage location as this store's writer sees it: the location, its keys, and the end of the journal.

What the index knows of the journal is its last entry's number and hash. What comes after it was written by this store
before a crash, and is taken as done; or by another writer, and then this store has been replaced and stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from engine import clock, codec, limits
from engine.chunks import Context
from engine.chunks.encode import plain
from engine.copies import journal, outbox, rows
from engine.copies.journal import Body, Entry
from engine.copies.rings import LocationRings, machine_key
from engine.copies.rows import MAKING, REMOVING, UNNAMED, AwayRow
from engine.copies.sealed import PackRow
from engine.copies.taking import take
from engine.copies.turns import alone
from engine.errors import (
    Busy,
    Corrupt,
    HoldfastError,
    LocationDenied,
    LocationUnavailable,
    NotFound,
    PermissionDenied,
)
from engine.index import Table
from engine.index.rows import KIND_DATA
from engine.keys import FileSeal, Opener, Vault, bearing, unlock
from engine.locations import Location
from engine.packs.records import encode_record_head


class Link:
    """An open location of this store. ``row`` is as the index has it. Of processes, one at a time (``alone``)."""

    def __init__(
        self, context: Context, name: str, location: Location, vault: Vault, ring: int = 0,
        secret: Opener | None = None,
    ) -> None:  # fmt: skip
        """``ring``: number of the key ring that was opened, with ``secret``; None is this machine's key."""
        self._ring = ring
        self._secret = secret
        self.context = context
        self.name = name
        self.location = location
        self.vault = vault
        self._seen = False  # the last entry that is known was there
        self._tallied: dict[str, int] = {}
        with context.index.read() as txn:
            self.row = outbox.location(txn, name)

    @contextmanager
    def alone(
        self, wait_s: float = 0.0, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """See ``alone``; ``row`` is then as others have left it."""
        with alone(self.context, self.name, self.row, wait_s, stop):
            with self.context.index.read() as txn:
                self.row = outbox.location(txn, self.name)
            yield

    def tally(self) -> None:
        """Have the location's row say what was asked of it since the last time."""
        counts = self.location.counts()
        new = {kind: count - self._tallied.get(kind, 0) for kind, count in counts.items()}
        self._tallied = counts
        if not any(new.values()):
            return
        with self.context.index.write() as txn:
            row = outbox.locations(txn).get(self.name)
            if row is not None and row.id == self.row.id:
                total = {
                    kind: row.requests.get(kind, 0) + new.get(kind, 0)
                    for kind in {*row.requests, *new}
                }
                outbox.save(txn, self.name, replace(row, requests=total))

    def close(self) -> None:
        """Let go of the location. What was asked of it is written down, where that can be."""
        self.location.close()
        with suppress(HoldfastError):
            self.tally()

    # --- keys ---------------------------------------------------------------------------------------------

    def newest_vault(self) -> Vault:
        """The keys to seal with: those of the newest key ring that this store knows of, which other processes change.
        Asks the location only when there is a newer one."""
        with self.context.index.read() as txn:
            row = outbox.location(txn, self.name)
        if row.sealed and row.ring > self._ring:
            self.renew(row.ring)
        return self.vault

    def opened(self, ring: int, vault: Vault) -> None:
        """The key ring of this number was opened."""
        self._ring, self.vault = ring, vault

    def renew(self, least: int) -> bool:
        """Open the newest key ring; False: it is the one that is open, or not this store's. Raises PermissionDenied."""
        with self.context.index.read() as txn:
            row = outbox.location(txn, self.name)
        number, raw = (0, b"") if row.ring_here else LocationRings(self.location).newest()
        if number in (0, self._ring):
            return False
        secret = self._secret or machine_key(self.context, self.name)
        here, system = self.vault.location, self.context.system
        vault = unlock(raw, secret, location=here, least=least, system=system)
        self.opened(number, bearing(vault, row.ring_mark, f"key ring of {self.location.shown}"))
        return True

    def forget_older_rings(self) -> None:
        """A ring that counts no more may have slots that were taken out: it goes, also where whoever changed the ring
        died before. That it cannot go is no reason to send nothing."""
        try:
            if self.vault.sealed:
                LocationRings(self.location).remove_older(self._ring)
        except LocationDenied as error:
            self.context.incidents.note("rings_left", f"location {self.name}", str(error))

    def seal_of(self, pack: PackRow) -> FileSeal:
        """What opens the frames of a pack, also of one that was sealed after this location was opened."""
        try:
            return pack.seal(self.vault)
        except PermissionDenied:
            try:
                if not self.vault.sealed or not self.renew(self._ring):
                    raise
            except Corrupt as error:  # the ring is, and no chunk
                raise LocationUnavailable(self.location.shown, found=str(error)) from None
            return pack.seal(self.vault)

    # --- the journal --------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Take what is in the journal behind what the index knows. Raises Busy when another writer took over, Corrupt
        when the index is older than the journal."""
        epoch = None  # of the entry before
        while True:
            seq = self.row.seq + 1
            try:
                raw = journal.fetch(self.location, seq)
            except NotFound:
                self._see_last()
                return
            entry = self._decoded(seq, raw)
            if entry.prev.hex() != (self.row.last or journal.FIRST_PREV.hex()):
                raise Corrupt(
                    f"{self.location.shown}: journal entry {seq}", expected="one that follows what this store wrote",
                    found="another", do="find out who wrote to the location",
                )  # fmt: skip
            if epoch is None:
                epoch = journal.epoch_at(self.location, self.row.seq)
            epoch = journal.refuse_older(raw, epoch, seq)
            if entry.writer.hex() != self.row.writer:
                self._replaced(entry)
            self._take(entry, raw, found=True)

    def _see_last(self) -> None:
        """Whether the last entry that is known is there, and nothing far behind it: after checkpoints those before are
        gone, and one that does not know that would append where entries were. Raises Corrupt."""
        seq = self.row.seq
        if not seq or self._seen:
            return
        try:
            there = self.location.stat(journal.path_of(seq)).modified_ns
        except NotFound:
            raise self._older("the last one that is known here", "none") from None
        if not self.location.shown.startswith("file:"):  # a directory's times are this machine's
            clock.hear(self.context.index, there)
        if not self.row.object_lock:  # there none ever goes
            names = (one.name for one in self.location.list(journal.FOLDER, journal.path_of(seq)))
            found = (journal.seq_of(name.removeprefix(journal.FOLDER)) for name in names)
            behind = next((one for one in found if one), 0)
            if behind > seq + 1:  # one who began to write stays, and what he wrote first does not
                raise self._older("to be the last", f"number {behind} behind it, and none between")
        self._seen = True

    def _older(self, expected: str, found: str) -> Corrupt:
        return Corrupt(
            f"{self.location.shown}: journal entry {self.row.seq}", expected=expected, found=found,
            do="if this store was put back from an older copy, adopt the location anew; else find out who removed it",
        )  # fmt: skip

    def _decoded(self, seq: int, raw: bytes) -> Entry:
        try:
            return journal.decode(self.vault, seq, raw)
        except PermissionDenied:  # perhaps of a newer epoch
            if not self.vault.sealed or not self.renew(self._ring):
                raise
            return journal.decode(self.vault, seq, raw)

    def append(self, body: Body, since_ns: int = 0) -> int:
        """Write an entry; its number. ``since_ns``: when what it tells of happened, at the latest, whatever the clock
        says now. Raises Busy when another writer took over."""
        entry = Entry(
            self.row.seq + 1, bytes.fromhex(self.row.last) if self.row.last else journal.FIRST_PREV,
            bytes.fromhex(self.row.writer), max(self.context.system.time_ns(), since_ns), body,
        )  # fmt: skip
        raw = journal.encode(self.newest_vault(), entry)
        if not self.location.create(journal.path_of(entry.seq), raw):
            before = self.row.seq
            self.catch_up()
            if self.row.seq == before:
                raise Corrupt(
                    f"{self.location.shown}: journal entry {entry.seq}", expected="to be made or to be there",
                    found="neither", do="look whether the server keeps conditional creates",
                )  # fmt: skip
            # What is to be said was found out before that was known: said again it would break the journal.
            raise LocationUnavailable(
                f"{self.location.shown}: journal entry {entry.seq}", expected="nothing there yet",
                found="one that this store sent before, and that came late; it counts", do="it is tried again later",
            )  # fmt: skip
        self._look(entry.seq, raw)
        self._take(entry, raw)
        return entry.seq

    def nobody_since(self) -> None:
        """Raises Busy when another writer has written since what is known here, Corrupt as ``catch_up``."""
        seq = self.row.seq + 1
        try:
            raw = journal.fetch(self.location, seq)
        except NotFound:
            self._see_last()
            return
        self._mine(journal.decode(self.vault, seq, raw))

    def _mine(self, entry: Entry) -> None:
        """Raises Busy for an entry after the last that is known which is another's: nobody here knows what it says."""
        if entry.writer.hex() != self.row.writer or entry.prev.hex() != self.row.last:
            raise Busy(
                f"location {self.name!r}", expected=f"journal entry {entry.seq - 1} to be its last",
                found=f"entry {entry.seq} of writer {entry.writer.hex()}",
                do="stop who writes there, then adopt the location again",
            )  # fmt: skip

    def take_over(self) -> None:
        """Become the only writer, in place of who wrote the last entry that is known here; nothing where that is this
        store. Raises Busy when there are newer ones: this store does not know what they say; and for a location that
        is not whole here."""
        if self.row.paused in (MAKING, REMOVING):
            raise Busy(f"location {self.name!r}", expected="one that was adopted", found=self.row.paused,
                       do="'holdfast location remove' it, and adopt it anew")  # fmt: skip
        self._see_last()
        seq, known = self.row.seq, bytes.fromhex(self.row.last)
        last = journal.decode(self.vault, seq, journal.fetch(self.location, seq))
        mine = bytes.fromhex(self.row.writer)
        if last.writer == mine:  # an entry that says so once more is taken by no reader
            self.nobody_since()
            self._send_there()
            return
        entry = Entry(
            seq + 1, known, mine, self.context.system.time_ns(), journal.Begin(self.context.store_id, last.writer)
        )  # fmt: skip
        raw = journal.encode(self.vault, entry)
        if not self.location.create(journal.path_of(entry.seq), raw):
            raw = journal.fetch(self.location, entry.seq)
            entry = journal.decode(self.vault, entry.seq, raw)
            self._mine(entry)
        self._look(entry.seq, raw)
        self._send_there()
        self._take(entry, raw)

    def _send_there(self) -> None:
        with self.context.index.write() as txn:
            row = replace(outbox.location(txn, self.name), paused="", ring_here=False)
            outbox.save(txn, self.name, row)

    def _look(self, seq: int, raw: bytes) -> None:
        """See that an entry is there as it was sent: from then on the location counts as having what it names."""
        path = journal.path_of(seq)
        try:
            found = self.location.read(path, 0, len(raw))
        except (NotFound, Corrupt):
            found = b""
        if found != raw:
            raise LocationUnavailable(
                f"{self.location.shown}: {path}", expected="the entry that was made", found="another, or none",
                do="try again; if it stays so, look at the server",
            )  # fmt: skip

    def tell_removed(self) -> int:
        """Have the journal say which points were deleted here; how many."""
        with self.context.index.read() as txn:
            gone = outbox.to_tell(txn, self.row.id)
        points, last = list(gone), max(gone.values(), default=0)
        for at in range(0, len(points), limits.JOURNAL_NAMES_MAX):
            self.append(journal.Removed(tuple(points[at : at + limits.JOURNAL_NAMES_MAX])), last)
        return len(points)

    def entry_of(self, point: str) -> int | None:
        """The journal entry that names a point, None while there is none."""
        with self.context.index.read() as txn:
            row = outbox.get(txn, self.row.id, point)
        return row.entry if row is not None and row.entry else None

    def unnamed(self) -> tuple[PackRow, ...]:
        """Packs that are there and that no entry names yet."""
        with self.context.index.read() as txn:
            found = [rows.away_row(raw) for _, raw in txn.scan(Table.AWAY)]
        return tuple(
            pack_of(row) for row in found if row.location == self.row.id and row.state == UNNAMED
        )

    def to_name(self) -> tuple[PackRow, ...]:
        """Of the packs that no entry names yet those that the next one is to name. What it has no room for is named
        before, by entries of its own."""
        packs, most = self.unnamed(), limits.JOURNAL_PACKS_MAX
        while len(packs) > most:
            self.append(journal.PacksChanged(packs[:most], ()))
            packs = packs[most:]
        return packs

    def _replaced(self, entry: Entry) -> None:
        by = entry.writer.hex()
        with self.context.index.write() as txn:
            row = replace(outbox.location(txn, self.name), paused=f"replaced by writer {by}")
            outbox.save(txn, self.name, row)
        self.row = row
        error = Busy(
            f"location {self.name!r}", expected=f"this store (writer {self.row.writer}) to be its only writer",
            found=f"writer {by} took over with journal entry {entry.seq}",
            do="go on there; or, to go on here, 'holdfast adopt' the location anew, with --take-over",
        )  # fmt: skip
        self.context.incidents.note("replaced", f"location {self.name}", str(error))
        raise error

    def _take(self, entry: Entry, raw: bytes, *, found: bool = False) -> None:
        self.row = take(self.context, self.name, self.location.shown, entry, raw, found=found)

    # --- chunks of the service ----------------------------------------------------------------------------

    def record(self, data: bytes) -> tuple[bytes, bytes]:
        """(id, record) of a chunk that is of no tree."""
        assert len(data) <= limits.CHUNK_MAX
        cid = codec.chunk_id(self.context.key, data)
        encoded = plain(data)
        head = encode_record_head(
            KIND_DATA, encoded.encoding, 0, len(data), len(encoded.payload), cid
        )
        return cid, head + bytes(encoded.payload)


def pack_of(row: AwayRow) -> PackRow:
    """A pack of the index as the journal has it."""
    return PackRow(
        row.name.hex(), row.size, row.trailer, row.trailer_len, row.records, row.kind, row.epoch, row.salt
    )  # fmt: skip


def away_of(pack: PackRow, location: int, state: int) -> AwayRow:
    """A pack of the journal as the index has it."""
    return AwayRow(
        location, state, pack.kind, pack.epoch, pack.size, pack.trailer_offset, pack.trailer_length, pack.records, 0,
        pack.salt, bytes.fromhex(pack.name),
    )  # fmt: skip


@contextmanager
def put_just_now(what: str) -> Iterator[None]:
    """What is looked at within was put just now: that it is not there may pass, as the server said it was."""
    try:
        yield
    except NotFound:
        raise LocationUnavailable(
            what, expected="what was put just now", found="nothing", do="it is put again later"
        ) from None
