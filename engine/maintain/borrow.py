"""Borrowing: a store made from a location alone in a scratch directory, to read points from, and gone afterwards.

It is made as by adopting, but for what only a store needs that is written to: live trees, and what is known to be at
the location whole. Nothing is written at the location. The directory (0700) is locked as long as its maker lives; who
makes the next one beside it removes those whose makers died.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from engine import home, limits, supply
from engine.chunks import Context
from engine.copies import outbox, ownring
from engine.copies.bare import Bare, open_bare
from engine.copies.link import Link
from engine.copies.rings import machine_key, own_ring
from engine.copies.rows import LocationRow
from engine.errors import Corrupt, LocationUnavailable, StoreFull, from_os
from engine.home import OpenStore
from engine.keys import Key, Opener, Secret, bearing
from engine.maintain.adopt import NOT_TAKEN_OVER
from engine.maintain.refill import AdoptReport, Refill
from engine.progress import Report
from engine.seam import REAL, Os

NAME = "origin"
"""What the location is called in a borrowed store."""

_PREFIX = "holdfast-borrowed-"
_STORE = "store"
_TRIES = 10  # others may take a directory for a dead one's before it is locked


@dataclass(frozen=True)
class Known:
    """What a store knows of its own location, so that no other, and no older state, is taken for it."""

    row: LocationRow
    ring: tuple[int, bytes] = (0, b"")

    def compare(self, bare: Bare) -> None:
        """Raises Corrupt when the location is not what it was."""
        shown, row = bare.location.shown, self.row
        if bare.vault.location.hex() != row.location:
            raise Corrupt(
                shown, expected=f"location {row.location}", found=bare.vault.location.hex(),
                do="look whether the URL still leads to the same place",
            )  # fmt: skip
        if row.sealed and bare.number < row.ring:
            raise Corrupt(
                f"key ring of {shown}", expected=f"number {row.ring} or more", found=str(bare.number),
                do="find out who put an older ring there",
            )  # fmt: skip
        bearing(bare.vault, row.ring_mark, f"key ring of {shown}")
        if bare.seq < row.seq:
            raise Corrupt(
                f"journal of {shown}", expected=f"entry {row.seq}, which this store knows",
                found=f"{bare.seq} as the last that can be read", do="find out who removed entries",
            )  # fmt: skip


@dataclass
class Scratch:
    """The directory of a borrowed store. ``fd`` has it locked; ``given_away``: to another process, which inherited that
    and removes it."""

    folder: str
    fd: int
    given_away: bool = False


class Lent(NamedTuple):
    """An open store to be read, what was found at the location, and where it is."""

    store: OpenStore
    found: AdoptReport
    scratch: Scratch


@contextmanager
def of_store(
    context: Context, name: str, *, scratch: str | None, report: Report
) -> Iterator[Lent]:  # fmt: skip
    """As ``borrowed``, from a location of a store, with what opens it there. Raises NotFound as well."""
    with context.index.read() as txn:
        row = outbox.location(txn, name)
    secret = machine_key(context, name) if row.sealed else None
    ring = (row.ring, own_ring(context, name)) if row.ring_here else (0, b"")
    with borrowed(
        row.url, secret, credentials=row.credentials, scratch=scratch, report=report,
        known=Known(row, ring), seal=[Key.new(context.system)] if context.seal else (), system=context.system,
    ) as found:  # fmt: skip
        yield found


@contextmanager
def borrowed(
    url: str, secret: Opener | None, *, credentials: str, scratch: str | None, report: Report,
    known: Known | None = None, seal: Sequence[Secret] = (), system: Os = REAL,
) -> Iterator[Lent]:  # fmt: skip
    """An open store that only reads, made from what lies at a location, to be closed in the block; and what was found.

    ``scratch``: the directory to make it below; ``seal``: as of ``home.init``.

    Raises PermissionDenied for a wrong secret, NotFound, Corrupt,
    FormatTooNew, InvalidRequest, StoreFull, and what the location raises.
    """
    with _scratch(scratch or _usual(), system) as mine:
        folder = mine.folder
        path = os.path.join(folder, _STORE)
        ring = known.ring if known is not None else (0, b"")
        bare = open_bare(url, secret, credentials, system=system, report=report, ring=ring)
        try:
            if known is not None:
                known.compare(bare)
            result = AdoptReport(bare.location.shown, bare.vault.fingerprint, done=list(bare.notes))
            result.left_out = len(bare.notes)
            limit = known.row.read_bandwidth if known is not None else ""
            row = LocationRow(
                0, url, bare.vault.location.hex(), system.random(16).hex(), bare.vault.sealed, credentials,
                seq=bare.seq, last=bare.digest.hex(), paused=NOT_TAKEN_OVER, ring=bare.number,
                ring_mark=bare.vault.mark, ring_here=bare.key is not None, read_bandwidth=limit,
            )  # fmt: skip
            _fill(path, row, bare, result, report, seal, system)
        except OSError as error:
            raise from_os(error, f"scratch directory {folder}") from None
        finally:
            bare.location.close()
        store = OpenStore(path, system=system, borrowed=result.location)
        try:
            yield Lent(store, result, mine)
        finally:
            if store.context.seal is not None:
                supply.forget(store.context.store_id, store.context.seal.master.data)


def _fill(
    path: str, row: LocationRow, bare: Bare, result: AdoptReport, report: Report, seal: Sequence[Secret],
    system: Os,
) -> None:  # fmt: skip
    _room(path, bare, system)
    home.init(path, identity=(bare.state.store, bare.vault.id_key), seal=seal, system=system)
    with home.opened(path, system=system) as store:
        with store.context.index.write() as txn:
            outbox.add(txn, NAME, row)
        if bare.key is not None:
            ownring.keep(store.context, NAME, bare.ring, bare.key)
        link = Link(store.context, NAME, bare.location, bare.vault)
        Refill(store, link, bare, result, report).run_for_reading()


def _room(path: str, bare: Bare, system: Os) -> None:
    need = limits.BORROW_ROOM + limits.BORROW_ROW * sum(
        row.records for row in bare.state.packs.values()
    )
    folder = os.path.dirname(path)
    free, _ = system.space(folder)
    if free < need:
        raise StoreFull(
            f"scratch directory {os.path.dirname(folder)}", expected=f"{need >> 20} MiB free",
            found=f"{free >> 20} MiB", do="free space there, or choose another with --scratch or TMPDIR",
        )  # fmt: skip


# --- the directory ------------------------------------------------------------------------------------------


def _usual() -> str:
    """Where there is a disk: /tmp may be memory."""
    return os.environ.get("TMPDIR") or (
        "/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir()
    )


@contextmanager
def _scratch(below: str, system: Os) -> Iterator[Scratch]:
    """A new directory for this process alone, gone at the end; those that the dead left beside it go before."""
    below = home.named(below)
    try:
        _tidy(below)
        mine = _locked(below, system)
    except OSError as error:
        raise from_os(error, f"scratch directory {below}") from None
    try:
        yield mine
    finally:
        if not mine.given_away:
            shutil.rmtree(mine.folder, ignore_errors=True)
        os.close(mine.fd)


def _locked(below: str, system: Os) -> Scratch:
    for _ in range(_TRIES):
        folder = tempfile.mkdtemp(prefix=_PREFIX, dir=below)
        with suppress(FileNotFoundError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            if system.try_lock(fd) and os.fstat(fd).st_nlink:
                return Scratch(folder, fd)
            os.close(fd)  # somebody is about to remove it
    raise LocationUnavailable(
        f"scratch directory {below}", expected="a directory that stays", found="each gone at once",
        do="look who removes what is in it",
    )  # fmt: skip


def _tidy(below: str) -> None:
    """Remove what those left who were killed: directories of ours that nobody has locked."""
    with os.scandir(below) as entries:
        found = [one.path for one in entries if one.name.startswith(_PREFIX)]
    for path in found:
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                mine = os.fstat(fd)
                ours = mine.st_uid == os.geteuid() and not stat.S_IMODE(mine.st_mode) & 0o077
                if ours and REAL.try_lock(fd):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)
