"""A storage location as somebody finds it who has no store: its URL, and what opens its key ring.

Nothing that lies there is believed before it was opened with a key, and nothing is fetched whose size is beyond its
limit.  The journal is read from the last point on from which it can be: what is left out of it is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from engine import limits
from engine.copies import journal, sealed
from engine.copies.chain import Chain, State
from engine.copies.connect import opened, read_marker
from engine.copies.rings import LocationRings
from engine.copies.sealed import PackRow
from engine.errors import Corrupt, HoldfastError, InvalidRequest, NotFound, PermissionDenied
from engine.keys import Key, Opener, Vault, alone
from engine.locations import Location
from engine.packs.records import Entry
from engine.progress import Progress, Report
from engine.seam import Os

_LISTS = 3  # of the journal, at the most
_RINGS = 8  # that are tried: to open one may take as long as a guess of a passphrase

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass
class Bare:
    """An opened location. ``ring``, ``key``: its newest key ring with one slot, for this key, which is new: for those
    who go on reading (b"", None where nothing is sealed); ``number``: of the ring there.

    ``state``: what the journal adds up to; ``seq``, ``digest``: of its last entry; ``named``: the entry that names
    each point; ``checkpoints``: numbers of the entries of that kind that were read; ``notes``: what of the journal was
    left out; ``ends``: nothing lies behind the last entry; ``kept``: the ring may be older than the one there;
    ``passed``: rings of a greater number that are none.
    """

    location: Location
    vault: Vault = field(repr=False)
    ring: bytes = field(repr=False)
    key: Key | None = field(repr=False)
    number: int
    state: State = field(default_factory=State)
    seq: int = 0
    digest: bytes = journal.FIRST_PREV
    named: dict[str, int] = field(default_factory=dict)
    checkpoints: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ends: bool = True
    kept: bool = False
    passed: list[str] = field(default_factory=list)


def open_bare(
    url: str, secret: Opener | None, credentials: str, *, system: Os, report: Report, ring: tuple[int, bytes] = (0, b"")
) -> Bare:  # fmt: skip
    """Open a location and read its journal. ``secret``: None for one that is not sealed; ``ring``: what it opens (and
    the number of the one there), where that is not the newest ring there.

    Raises NotFound when nothing of Holdfast is there, PermissionDenied for a wrong secret, FormatTooNew, Corrupt,
    InvalidRequest, and what the location raises.
    """
    location = opened(url, credentials, system)
    try:
        bare = _unlocked(location, secret, ring, system)
        _read_journal(bare, report)
        bare.notes[:0] = bare.passed
        return bare
    except BaseException:
        location.close()
        raise


def _unlocked(
    location: Location, secret: Opener | None, ring: tuple[int, bytes], system: Os
) -> Bare:
    said = read_marker(location)
    if said.sealed != (secret is not None):
        _wrong_kind(location, sealed=said.sealed)
    if secret is None:
        vault = Vault(said.location, said.id_key, None)
        bare = Bare(location, vault, b"", None, 0)
    else:
        key = Key.new(system)

        def alone_in(raw: bytes) -> tuple[bytes, Vault]:
            now = system.time_ns()
            return alone(raw, secret, key, location=said.location, now_ns=now, system=system)

        passed: list[str] = []
        if ring[1]:
            number, (own, vault) = ring[0], alone_in(ring[1])
        else:
            number, (own, vault) = _sound_ring(LocationRings(location), alone_in, passed)
        bare = Bare(location, vault, own, key, number, kept=bool(ring[1]), passed=passed)
    bare.state.store = said.store  # the journal must say the same
    return bare


def _sound_ring(
    rings: LocationRings, open_: Callable[[bytes], Found], passed: list[str]
) -> tuple[int, Found]:
    """The newest ring that is one, opened; what is passed over for it is told. Who has no key, and can write there, can
    put something of a greater number in front, and have it retained."""
    wrong: Corrupt | None = None
    for number in rings.numbers()[:_RINGS]:
        try:
            return number, open_(rings.numbered(number))
        except NotFound:  # a newer one came
            continue
        except Corrupt as error:
            wrong = wrong or error
            passed.append(f"key ring {number} is passed over: {error}")
    if wrong is not None:
        raise wrong
    number, raw = rings.newest()  # it has gone meanwhile, or there is none
    return number, open_(raw)


def _wrong_kind(location: Location, *, sealed: bool) -> None:
    """Whoever writes to a bucket must not be believed that it never was sealed: a secret is for a sealed one."""
    if sealed:
        raise InvalidRequest(
            location.shown, expected="its passphrase or key", found="none", do="give it"
        )
    raise PermissionDenied(
        location.shown, expected="a sealed location, as a passphrase or key was given",
        found="a marker that says it is not sealed",
        do="find out who changed it; if it never was sealed, give no secret",
    )  # fmt: skip


# --- the journal ------------------------------------------------------------------------------------------


def _read_journal(bare: Bare, report: Report, lists: int = _LISTS) -> None:
    """The run of entries that comes last: from entry 1 or a checkpoint on, each the next of the one before.

    An entry that is gone since it was listed lay before a checkpoint: it is listed again.
    """
    location, store = bare.location, bare.state.store
    numbers = [
        journal.seq_of(one.name.removeprefix(journal.FOLDER)) or 0
        for one in location.list(journal.FOLDER)
    ]
    numbers = [number for number in numbers if number]
    chain, best = Chain(bare.vault), Chain(bare.vault)
    gap = ""

    def fetch(number: int) -> bytes:
        return journal.fetch(location, number)

    for done, (number, future) in enumerate(ahead(numbers, fetch, limits.ADOPT_THREADS)):
        report(Progress("read journal", done, len(numbers), "entries"))
        if chain.seq and number != chain.seq + 1:  # of no harm before a checkpoint
            gap = (
                gap or f"journal entries from {number} on are left out: {chain.seq + 1} is missing"
            )
            best, chain = chain, Chain(bare.vault)
        begins = not chain.seq
        try:
            entry = chain.take(number, future.result())
        except (Corrupt, NotFound, PermissionDenied) as error:
            if isinstance(error, PermissionDenied) and bare.kept:
                raise  # sealed with a key that came later; of the newest ring none can
            if isinstance(error, NotFound) and lists > 1:
                bare.notes.clear()
                bare.named.clear()
                bare.checkpoints.clear()
                _read_journal(bare, report, lists - 1)
                return
            if chain.seq:
                bare.notes.append(f"journal entry {number} is left out: {error}")
                best, chain = chain, Chain(bare.vault)
            continue
        if begins and isinstance(entry.body, journal.Checkpoint):
            try:
                best.state.refuse_forgetting(entry.body, entry)
            except Corrupt as error:
                bare.notes.append(f"journal entry {number} is left out: {error}")
                chain = Chain(bare.vault)
                continue
        _note_names(bare.named, entry)
        if isinstance(entry.body, journal.Checkpoint):
            gap = ""
            bare.checkpoints.append(number)
            bare.notes.clear()  # what could not be read before it, it says
    if not chain.seq and best.seq:
        chain = best
        bare.notes += [gap] if gap else []
    if not chain.seq:
        raise Corrupt(
            f"journal of {location.shown}", expected="entry 1, or a checkpoint, and what follows",
            found=f"{len(numbers)} entries that begin with neither", do="find out who removed entries",
        )  # fmt: skip
    if chain.state.store != store:
        raise Corrupt(
            location.shown, expected=f"store {store.hex()}, as its marker says",
            found=f"a journal of store {chain.state.store.hex()}", do="find out who changed it",
        )  # fmt: skip
    bare.state, bare.seq, bare.digest = chain.state, chain.seq, chain.digest
    bare.ends = not numbers or numbers[-1] == chain.seq


def _note_names(named: dict[str, int], entry: journal.Entry) -> None:
    match entry.body:
        case journal.PointMade(point, _):
            named[point.id] = entry.seq
        case journal.Checkpoint(_, points, _, _):
            named.update({point.id: named.get(point.id, entry.seq) for point in points})


# --- packs ------------------------------------------------------------------------------------------------


def trailers(bare: Bare) -> Iterator[tuple[PackRow, list[Entry] | HoldfastError]]:
    """What every pack that the journal names holds, checked; or why that cannot be known. Where somebody removed locked
    points also of those that are said to be gone: they may be there."""

    def fetch(row: PackRow) -> bytes:
        return bare.location.read(sealed.path_of(row.name), row.trailer_offset, row.trailer_length)

    wanted = {**(bare.state.gone if bare.state.contested else {}), **bare.state.packs}
    for row, future in ahead(wanted.values(), fetch, limits.ADOPT_THREADS):
        try:
            entries = sealed.read_trailer(row.seal(bare.vault), row.trailer_offset, future.result())
            _sound(row, entries)
        except (Corrupt, NotFound, PermissionDenied) as error:
            yield row, error
        else:
            yield row, entries


def _sound(row: PackRow, entries: list[Entry]) -> None:
    """What a reader takes of a record; its content is verified when it is read."""
    if len(entries) != row.records:
        raise Corrupt(
            f"sealed pack {row.name}", expected=f"{row.records} records", found=f"{len(entries)}"
        )
    most, plain = limits.RECORD_MAX, limits.CHUNK_MAX
    deepest, bases = limits.DELTA_DEPTH_MAX, limits.DELTA_BASES_MAX
    for one in entries:
        if one.stored > most or one.plain > plain or one.depth > deepest or len(one.bases) > bases:
            raise Corrupt(f"sealed pack {row.name}", expected="records within their limits",
                          found=f"one of {one.stored} bytes, {one.plain} plain")  # fmt: skip


def ahead(
    items: Iterable[Item], fetch: Callable[[Item], Found], most: int
) -> Iterator[tuple[Item, Future[Found]]]:
    """Each item with what is fetched of it, in order, ``most`` at once: no more are in memory."""
    with ThreadPoolExecutor(most, "holdfast-adopt") as pool:
        waiting: deque[tuple[Item, Future[Found]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(fetch, item)))
                if len(waiting) >= most:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()
