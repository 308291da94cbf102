"""Rig: the index changed at random; no row may be missing without a word, no command die, no wrong byte be given.

``check`` comes first and must not be killed, whatever LMDB would do with such a file.  If it calls the store sound,
then every row must be there: by going through the tables, by look-up of each key, by count; no page that was in use
may be on the free list; every point must be whole.  If it complains, reading may refuse, but what it gives must be
right, and the commands must end with an exit code of the error table.
"""

from __future__ import annotations

import contextlib
import io
import random
import stat
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from daemon.cli import fatal
from daemon.cli.main import main as holdfast
from engine import HoldfastError, Store
from engine.errors import TABLE, Corrupt
from engine.index import Index
from engine.points.view import PointView
from tools.torture.corrupt import made, pages
from tools.torture.corrupt.children import run
from tools.torture.corrupt.model import Member, Model
from tools.torture.corrupt.mutate import Spots, mutate
from tools.torture.corrupt.packs import (
    STORE_EVERY,
    Case,
    Verdict,
    prepared,
    put,
    settle_case,
    undo,
)
from tools.torture.rig import Job, Rig

FULL = 4000
_SLOTS = 2
_PAGE = 4096
_EXITS = {error.kind.exit for error in TABLE if error is not HoldfastError}
_COMMANDS = (
    ["read"], ["read"], ["points", "--json"], ["stats", "--json"], ["check", "--json"], ["diff"], ["restore"],
    ["rm", "disk@latest"], ["gc"],
)  # fmt: skip


class Work:
    """What children need: the sound store, and its rows and free pages."""

    def __init__(self, job: Job, number: int) -> None:
        self.model, self.places = prepared(job, number, _SLOTS)
        index = Index(str(self.places[0] / "index"))
        self.rows = pages.rows(index)
        index.close()
        undo(self.model, self.places[0], {})
        self.free = pages.free_pages(self.model.files.index)
        data = self.model.files.index
        self.spots = _spots(data, self.free)
        self.younger = 144 + _PAGE * (pages.transaction(data, 0) < pages.transaction(data, 1))
        self.fields = _fields(data, self.free, self.younger)

    def restore(self, slot: int, case: Case) -> None:
        undo(self.model, self.places[slot], case.changed)


def _heads(data: bytes, free: set[int]) -> Iterator[tuple[int, int, list[int]]]:
    """(offset, flags, offsets of its nodes) of the pages with nodes that are in use."""
    for page in range(2, len(data) // _PAGE):
        at = page * _PAGE
        _, _, flags, lower, _ = struct.unpack_from("<QHHHH", data, at)
        if page not in free and flags in (1, 2):
            places = struct.unpack_from(f"<{lower // 2 - 8}H", data, at + 16)
            yield at, flags, [at + place for place in places]


def _records(data: bytes, free: set[int]) -> Iterator[int]:
    """Where the tables' records lie."""
    for _, flags, nodes in _heads(data, free):
        for node in nodes:
            _, _, kind, key = struct.unpack_from("<HHHH", data, node)
            if flags == 2 and kind == 2:
                yield node + 8 + key


def _spots(data: bytes, free: set[int]) -> Spots:
    """Few bytes of a file do most harm: numbers of the meta pages, records of the tables, heads of pages and nodes."""
    metas = [
        (at + start, 8) for at in (0, _PAGE) for start in (16, 40, 48, 72, 80, 120, 128, 136, 144)
    ]
    records = [(at, 48) for at in _records(data, free)]
    heads = [(at + start, 4) for at, _, _ in _heads(data, free) for start in (0, 8, 12, 16, 20)]
    nodes = [(node, 8) for _, _, some in _heads(data, free) for node in some]
    return [metas, records, heads, nodes]


def _fields(data: bytes, free: set[int], younger: int) -> list[list[int]]:
    """Bytes of one kind each: rows a table has, transaction, root, end of a page's offsets, offset, child, kind."""
    records = list(_records(data, free))
    heads = list(_heads(data, free))
    return [
        [at + 32 for at in records],
        [younger],
        [at + 40 for at in records],
        [at + 12 for at, _, _ in heads],
        [at + 16 + 2 * n for at, _, nodes in heads for n in range(len(nodes))],
        [node for _, flags, nodes in heads for node in nodes if flags == 1] or [younger],
        [at + 10 for at, _, _ in heads],
    ]


def case_of(job: Job, work: Work, name: str) -> Case:
    """Every third case flips a bit of one certain kind of number in turn; the others are as chance will have them."""
    chance = job.random("case", name)
    number = int(name.partition(".")[2])
    data = work.model.files.index
    if number % 3:
        return Case(name, *mutate(chance, {made.INDEX: data}, {made.INDEX: work.spots}, _PAGE))
    fields = work.fields[number // 3 % len(work.fields)]
    at = chance.choice(fields)
    changed = bytearray(data)
    changed[at] ^= 1 << chance.randrange(2, 8) if at == work.younger else 1 << chance.randrange(8)
    return Case(name, f"flip: {made.INDEX} at {at}", {made.INDEX: bytes(changed)})


def verdict(work: Work, place: Path, case: Case, chance: random.Random) -> Verdict:
    """In a child."""
    put(place, case.changed)
    figures: Counter[str] = Counter()
    broken: list[str] = []
    complains = True
    try:
        with Store.open(str(place)) as store:
            report = store.check(read_data=True)
            complains = bool(report.problems)
    except HoldfastError:
        pass
    figures["named by check" if complains else "harmless"] += 1
    if not complains:
        broken += _whole(work, place)
        _read(work.model, place, False, broken)
    return Verdict(broken, figures)


def _whole(work: Work, place: Path) -> list[str]:
    """Check calls it sound: then nothing is missing."""
    broken = []
    data = (place / made.INDEX).read_bytes()
    if pages.is_older(work.model.files.index, data):
        return []
    index = Index(str(place / "index"))
    found = pages.rows(index)
    for table, some in work.rows.items():
        missing, other = some.keys() - found[table].keys(), found[table].keys() - some.keys()
        if missing or other:
            broken.append(
                f"check is silent, {table.name} lacks {len(missing)} rows, has {len(other)} others"
            )
        elif found[table] != some:
            broken.append(f"check is silent, {table.name} has other values")
    text = pages.look_up(index, work.rows)
    if text:
        broken.append(f"check is silent, {text}")
    index.close()
    more = pages.free_pages(data) - work.free
    if more:
        broken.append(f"check is silent, pages {sorted(more)[:5]} are free and were not")
    return broken


def _read(model: Model, place: Path, complains: bool, broken: list[str]) -> None:
    """Everything that is given is right; where check is silent, everything is given."""
    with Store.open(str(place)) as store:
        listed = {point.id for point in store.points()}
        if listed != model.points.keys():
            broken.append(
                f"the list of points differs by {sorted(listed ^ model.points.keys())[:3]}"
            )
        for point, members in model.points.items():
            try:
                view = store.glance(point)
                for path, member in members.items():
                    _one(view, path, member, broken)
            except HoldfastError as error:
                if not complains:
                    broken.append(f"point {point} cannot be read and check is silent: {error}")


def _one(view: PointView, path: bytes, member: Member, broken: list[str]) -> None:
    entry = view.find(path)
    if (
        entry.mode != member.mode
        or view.xattrs(entry) != member.xattrs
        or entry.target != member.target
    ):
        broken.append(f"{path!r} is another")
    if stat.S_ISREG(member.mode) and view.read(entry, 0, entry.size) != member.content:
        broken.append(f"{path!r} GIVES WRONG BYTES")


def asked(work: Work, place: Path, case: Case, chance: random.Random) -> Verdict:
    """In a child: every point read, then a command run on the changed store, as commands run.

    What it gives must be right, and it must end with an exit code of the table.
    """
    put(place, case.changed)
    fatal.install()
    broken: list[str] = []
    words = list(chance.choice(_COMMANDS))
    points = list(work.model.points)
    if words == ["diff"]:
        words += points[:2]
    elif words == ["restore"]:
        words += [chance.choice(points), str(place.with_suffix(f".{case.name}"))]
    elif words == ["read"]:
        with contextlib.suppress(HoldfastError):
            _read(work.model, place, True, broken)
        return Verdict(broken, Counter({"points read": len(points)}))
    sys.argv = ["holdfast", "--store", str(place), *words]
    said = io.StringIO()
    code: object = None
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            holdfast()
    except SystemExit as end:
        code = end.code
    if code not in {0, None, *_EXITS}:
        broken.append(f"holdfast {' '.join(words)} ends with {code}: {said.getvalue()[-500:]}")
    if words[0] == "points" and not code:
        missing = [point for point in points if point not in said.getvalue()]
        if missing:
            broken.append(f"holdfast points is silent about {missing}")
    return Verdict(broken, Counter({"commands run": 1}))


def attack(job: Job) -> None:
    """The rig: each case is judged, and then a command is run on it."""
    count = job.size(FULL, 8)
    for number in range(-(-count // STORE_EVERY)):
        names = [f"{number}.{n}" for n in range(min(STORE_EVERY, count - number * STORE_EVERY))]
        wanted = [name for name in names if job.wants(name)]
        if not wanted:
            continue
        work = Work(job, number)

        def judged(slot: int, case: Case, work: Work = work) -> Verdict:
            return verdict(work, work.places[slot], case, job.random("judge", case.name))

        def ordered(slot: int, case: Case, work: Work = work) -> Verdict:
            return asked(work, work.places[slot], case, job.random("command", case.name))

        for done in run(
            (case_of(job, work, name) for name in wanted), judged, work.restore, _SLOTS
        ):
            settle_case(job, done, "changes of the index")
        for done in run(
            (case_of(job, work, name) for name in wanted), ordered, work.restore, _SLOTS
        ):
            if done.code == Corrupt.kind.exit and done.result is None:
                job.count("stopped by a signal, with an exit code")
                continue
            settle_case(job, done, "")


RIGS = (
    Rig(
        "corrupt-index",
        "the index changed at random",
        attack,
        bugs=("row-check-ignored", "pages-not-counted", "older-meta-taken"),
        teeth=0.04,
        test=0.02,
    ),
)
