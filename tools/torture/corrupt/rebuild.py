"""Rig: the index is lost, packs are damaged, and ``repair --rebuild-index`` must bring back all that is left.

Every chunk with a whole record where one was must be found again, so every point whose record is whole is listed and
gives every byte that does not need what is lost; a point that was removed stays so while its tombstone can be read.
Live trees are their newest points again, and consistent even where a part of those is missing.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

from engine import HoldfastError, Store
from engine.index import Index, Table
from engine.index.rows import chunk_row
from tools.torture.corrupt import judge, made
from tools.torture.corrupt.children import run
from tools.torture.corrupt.model import Damage, Model
from tools.torture.corrupt.mutate import mutate
from tools.torture.corrupt.packs import Case, Stores, Verdict, put, settle_case, undo
from tools.torture.rig import Job, Rig

FULL = 1000
STORE_EVERY = 250
_SLOTS = 2


def verdict(model: Model, place: Path, case: Case, chance: random.Random) -> Verdict:
    """In a child: damage the packs and the index, make it anew, ask the store everything."""
    put(place, case.changed)
    now = {**model.files.packs, **case.changed}
    damage = Damage(model, {name: data for name, data in now.items() if data is not None})
    _spoil(place, chance)
    Store.rebuild_index(str(place))
    broken: list[str] = []
    if not case.changed:
        broken += _same_rows(model, place)
    with Store.open(str(place)) as store:
        broken += _points(model, damage, store)
        broken += judge.of_part(model, damage, store, chance)
        broken += _live(model, damage, store)
        report = store.check(read_data=True)
        for problem in report.problems:
            if problem.code in ("index", "live", "tree", "point"):
                broken.append(f"after the rebuild, {problem.thing}: {problem.text}")
        names = {p.thing.removeprefix("chunk ") for p in report.problems if p.code == "chunk"}
        broken += [f"chunk {one} is lost" for one in names - {c.hex() for c in damage.lost}]
    figures = Counter({"with all packs whole": not case.changed})
    return Verdict(broken, figures)


def _spoil(place: Path, chance: random.Random) -> None:
    """Lose the index in one of several ways."""
    kind = chance.randrange(4)
    data = place / made.INDEX
    if kind == 0:
        shutil.rmtree(place / "index")
    elif kind == 1:
        data.unlink()
    elif kind == 2:
        data.write_bytes(data.read_bytes()[: chance.randrange(20_000)])
    else:
        data.write_bytes(chance.randbytes(40_000))


def _same_rows(model: Model, place: Path) -> list[str]:
    """The new index says of every chunk what the old one said."""
    index = Index(str(place / "index"))
    with index.read() as txn:
        rows = {cid: chunk_row(raw) for cid, raw in txn.scan(Table.CHUNKS)}
    index.close()
    broken = []
    for cid, (name, offset, size) in model.places.items():
        row = rows.get(cid)
        if row is None or (row.pack, row.offset, row.stored) != (
            int(Path(name).stem),
            offset,
            size,
        ):
            broken.append(f"chunk {cid.hex()} was at {offset} of {name} and is now at {row}")
    return broken


def _points(model: Model, damage: Damage, store: Store) -> list[str]:
    listed = {info.id for info in store.points()}
    broken = [
        f"point {point} is gone, its record is whole"
        for point, cid in model.records.items()
        if point not in listed and cid not in damage.lost
    ]
    return broken + [
        f"point {point} was removed and is back"
        for point, cid in model.removed.items()
        if point in listed and cid not in damage.lost
    ]


def _live(model: Model, damage: Damage, store: Store) -> list[str]:
    """A live tree can be written to; where its newest point lost nothing, it shows what that shows."""
    broken = []
    newest = {info.mount: info.id for info in store.points()}
    for mount, point in newest.items():
        if point not in model.points:
            continue  # one whose tombstone is lost
        tree = store.open_live(mount)
        made.put(tree, 1, b"after the rebuild", b"written")
        tree.close()
        try:
            view = store.glance(store.snapshot(mount).id)
        except HoldfastError as error:
            if not damage.of_point(point):
                broken.append(f"mount {mount} cannot be snapshot: {error}")
            continue
        if not damage.of_point(point):
            for path, member in model.points[point].items():
                entry = view.find(path)
                if entry.mode != member.mode or view.xattrs(entry) != member.xattrs:
                    broken.append(f"the live tree of {mount} has another {path!r}")
                if member.content and view.read(entry, 0, entry.size) != member.content:
                    broken.append(f"the live tree of {mount} HAS WRONG BYTES in {path!r}")
    return broken


def attack(job: Job) -> None:
    """The rig."""
    count = job.size(FULL, 8)
    for number in range(-(-count // STORE_EVERY)):
        names = [f"{number}.{n}" for n in range(min(STORE_EVERY, count - number * STORE_EVERY))]
        wanted = [name for name in names if job.wants(name)]
        if not wanted:
            continue
        stores = Stores(job, number)

        def case_of(name: str, stores: Stores = stores) -> Case:
            if not int(name.partition(".")[2]) % 8:
                return Case(name, "nothing", {})
            chance = job.random("case", name)
            return Case(name, *mutate(chance, stores.model.files.packs, stores.spots))

        def work(slot: int, case: Case, stores: Stores = stores) -> Verdict:
            return verdict(stores.model, stores.places[slot], case, job.random("judge", case.name))

        def clean(slot: int, case: Case, stores: Stores = stores) -> None:
            made.write_files(stores.places[slot], stores.model.files)
            undo(stores.model, stores.places[slot], {})

        for done in run((case_of(name) for name in wanted), work, clean, _SLOTS):
            settle_case(job, done, "indexes made anew")


RIGS = (
    Rig(
        "corrupt-rebuild",
        "the index made anew from packs, damaged ones too",
        attack,
        bugs=("rebuild-forgets-tombstones", "rebuild-stops-at-damage"),
        teeth=0.03,
        test=0.03,
    ),
)
