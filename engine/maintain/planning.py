"""What reclaiming comes to: its terms, its report, and what it would do now."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine import limits
from engine.copies.link import Link
from engine.home import OpenStore
from engine.keys import FRAME_OVERHEAD
from engine.locations.contract import join
from engine.maintain.costs import FREE, Prices
from engine.maintain.needed import Found, Needed
from engine.maintain.rewrite import groups
from engine.progress import Report

SECOND = 1_000_000_000


@dataclass(frozen=True)
class Terms:
    """How to reclaim. ``grace_s``: between the entry that says that packs are gone and their removal; ``budget_s``: no
    step is begun after it, but for finding what is needed; ``bytes``: to fetch and to put at the most, 0 for any;
    ``prices``: by default estimates, and nothing for a directory."""

    grace_s: float = limits.RECLAIM_GRACE
    budget_s: float | None = None
    bytes: int = 0
    prices: Prices | None = None


@dataclass
class Reclaim:
    """What can be freed at a location, or was.

    ``packs``, ``bytes``: that go, or went; ``later…``: that the journal says are gone, and that stay for the grace or
    until their retention ends; ``rewritten``: packs, for ``added`` bytes of new ones; ``copies``: chunks that are not
    needed; ``waiting``: packs that the next collection here has to let go first; ``locked``: packs that are
    not needed, but retained by the server; ``left``: packs that cannot be
    rewritten, as they are damaged, or changed meanwhile; ``unknown``: packs there that nothing here knew of;
    ``kept``, ``needed``: bytes that lie there, and that are needed of them, before; ``requests``: by kind; ``cost`` of
    those and of bytes fetched, ``saves`` in a month: by ``Prices``; ``entries``: of the journal, removed.
    """

    location: str
    packs: int = 0
    bytes: int = 0
    later_packs: int = 0
    later_bytes: int = 0
    rewritten: int = 0
    added: int = 0
    copies: int = 0
    waiting: int = 0
    locked: int = 0
    left: int = 0
    unknown: int = 0
    kept: int = 0
    needed: int = 0
    downloaded: int = 0
    uploaded: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    cost: float = 0.0
    saves: float = 0.0
    entries: int = 0
    done: bool = False

    def count(self, counts: dict[str, int], prices: Prices, freed: int) -> None:
        """Requests and bytes as ``Throttle.counts`` has them; bytes that are not kept any more."""
        self.downloaded, self.uploaded = counts.get("bytes_down", 0), counts.get("bytes_up", 0)
        self.requests = {
            kind: number
            for kind, number in sorted(counts.items())
            if "bytes" not in kind and number
        }
        self.cost, self.saves = prices.cost(counts), prices.kept(freed)


def plan(store: OpenStore, link: Link, terms: Terms, *, report: Report) -> Reclaim:
    """What ``reclaim`` would do now, once no budget and no grace cuts it off. Requests are an estimate.

    Raises Corrupt when a node that is needed cannot be read.
    """
    looked = Needed(store, link, report)
    with store.context.index.read() as txn:
        looked.mark(txn)
        found = looked.look(txn)
    result = told(link, found)
    going = list(found.empty())
    together = groups(found)
    old = [number for group in together for number in group]
    added = sum(found.live[number] for number in old)
    result.packs, result.rewritten, result.added = len(going) + len(old), len(old), added
    result.bytes = sum(found.packs[number].size for number in [*going, *old])
    result.count(
        _expected(link, found, going, together), prices_of(link, terms), result.bytes - added
    )
    return result


def _expected(
    link: Link, found: Found, going: list[int], together: list[list[int]]
) -> dict[str, int]:
    """Requests and bytes of all that is to be done."""
    old = [number for group in together for number in group]
    size = limits.PUT_PART
    counts = {"list": 1 + len(found.packs) // limits.LIST_PAGE, "get": 2, "head": 2, "put": 1}
    for group in together:
        live = sum(found.live[number] for number in group)
        parts = -(-live // size)
        counts["put"] += 1 if parts <= 1 else 2
        counts["part"] = counts.get("part", 0) + (parts if parts > 1 else 0)
        counts["bytes_up"] = counts.get("bytes_up", 0) + live
        fetched = sum(found.live[number] - found.here[number] for number in group)
        trailers = sum(found.packs[number].trailer_len for number in group)
        counts["bytes_down"] = counts.get("bytes_down", 0) + live + fetched + trailers
        counts["get"] += 2 + len(group)  # the new pack, the entry, trailers
        counts["create"] = counts.get("create", 0) + 1
        for number in group:
            counts["get"] += _gets(found, number)
    if going:
        counts["create"] = counts.get("create", 0) + 1
    counts["delete"] = -(-(len(going) + len(old)) // limits.LIST_PAGE) + 1
    return counts


def _gets(found: Found, number: int) -> int:
    """Requests for the needed records of a pack, if they lie evenly in it."""
    row, fetched = found.packs[number], found.live[number] - found.here[number]
    if fetched <= 0:
        return 0
    records = max(1, row.records * fetched // row.size)
    step = row.trailer // records
    length = min(step, fetched // records + FRAME_OVERHEAD)
    return len(join([(at * step, length) for at in range(records)]))


def told(link: Link, found: Found) -> Reclaim:
    """What is there, and what is not needed of it."""
    return Reclaim(
        link.name, copies=len(found.dead), waiting=found.waiting(), locked=found.retained(),
        needed=sum(found.live.values()), kept=sum(row.size for row in found.packs.values()),
    )  # fmt: skip


def prices_of(link: Link, terms: Terms) -> Prices:
    """Those of the terms; by default estimates, and nothing for a directory."""
    if terms.prices is not None:
        return terms.prices
    return FREE if link.location.shown.startswith("file:") else Prices()
