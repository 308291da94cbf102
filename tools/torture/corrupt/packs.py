"""Rig: bytes and files of packs changed at random; every loss must be named exactly, no wrong byte given."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from engine import Store
from tools.torture.corrupt import judge, made
from tools.torture.corrupt.children import Done, run
from tools.torture.corrupt.model import Damage, Model
from tools.torture.corrupt.mutate import Changed, Spots, mutate
from tools.torture.rig import Job, Rig

FULL = 6000
STORE_EVERY = 400  # cases on one store, then comes another
_SLOTS = 2


class Case(NamedTuple):
    """One change of one store."""

    name: str
    what: str
    changed: Changed


class Verdict(NamedTuple):
    """What a child found: broken promises, and what it looked at."""

    broken: list[str]
    figures: Counter[str]


class Stores:
    """A model and copies of its store to change, one a child at work."""

    def __init__(self, job: Job, number: int) -> None:
        self.model, self.places = prepared(job, number, _SLOTS)
        self.spots: dict[str, Spots] = {}
        for name, data in self.model.files.packs.items():
            heads = [(p.offset, 92) for p in self.model.places.values() if p.file == name]
            self.spots[name] = [heads, [(0, 64), (len(data) - 88, 88)]]

    def restore(self, slot: int, case: Case) -> None:
        """Undo a case, and what the child wrote to the index."""
        undo(self.model, self.places[slot], case.changed)


def prepared(job: Job, number: int, count: int) -> tuple[Model, list[Path]]:
    """The model of the seed's store of that number, and so many copies of the store."""
    origin = job.scratch / f"store{number}"
    points = made.make(origin, job.random("store", number))
    model = Model(origin, points)
    places = [job.scratch / f"slot{slot}" for slot in range(count)]
    for place in places:
        made.write_files(place, model.files)
    return model, places


def undo(model: Model, place: Path, changed: Changed) -> None:
    """Put the files of a case back, and the index, which a check writes to."""
    for name in changed:
        data = model.files.index if name == made.INDEX else model.files.packs[name]
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    (place / made.INDEX).write_bytes(model.files.index)
    for lock in [*(place / "workers").iterdir(), place / "index" / "lock.mdb"]:
        lock.unlink(missing_ok=True)


def put(place: Path, changed: Changed) -> None:
    """Change a store's files."""
    for name, data in changed.items():
        if data is None:
            (place / name).unlink()
        else:
            (place / name).write_bytes(data)


def verdict(model: Model, place: Path, case: Case, chance: random.Random) -> Verdict:
    """In a child: change the store, then ask it everything."""
    put(place, case.changed)
    now = {**model.files.packs, **case.changed}
    damage = Damage(model, {name: data for name, data in now.items() if data is not None})
    broken: list[str] = []
    point = chance.choice(list(model.points))

    def checked() -> None:
        with Store.open(str(place)) as store:
            broken.extend(judge.of_check(model, damage, store.check(read_data=True)))

    def read() -> None:
        with Store.open(str(place)) as store:
            broken.extend(judge.of_reading(model, damage, store, chance))

    def restored() -> None:
        with Store.open(str(place)) as store:
            target = place.with_suffix(".out")
            broken.extend(judge.of_restore(model, damage, store, point, target))

    steps = [checked, read, *([restored] if chance.random() < 0.4 else [])]
    chance.shuffle(steps)
    for step in steps:
        step()
    figures = Counter({"changes that touch live data": bool(damage.hurt)})
    figures["points that lost something"] += sum(bool(damage.of_point(one)) for one in model.points)
    figures["points restored"] += restored in steps
    return Verdict(broken, figures)


def attack(job: Job) -> None:
    """The rig."""
    count = job.size(FULL, 8)
    for number in range(-(-count // STORE_EVERY)):
        names = [f"{number}.{n}" for n in range(min(STORE_EVERY, count - number * STORE_EVERY))]
        wanted = [name for name in names if job.wants(name)]
        if not wanted:
            continue
        stores = Stores(job, number)
        model = stores.model
        cases = (
            Case(name, *mutate(job.random("case", name), model.files.packs, stores.spots))
            for name in wanted
        )

        def work(slot: int, case: Case, stores: Stores = stores) -> Verdict:
            chance = job.random("judge", case.name)
            return verdict(stores.model, stores.places[slot], case, chance)

        for done in run(cases, work, stores.restore, _SLOTS):
            settle_case(job, done, "changes of packs")


def settle_case(job: Job, done: Done[Case, Verdict], counted: str) -> None:
    """Count what a child has found, or fail."""
    case = done.task
    if done.failed:
        raise RuntimeError(f"case {case.name} ({case.what}): {done.failed}")
    if done.refused:
        job.fail(case.name, f"{case.what}: an error where none may be\n{done.refused}")
    if done.result is None:
        job.fail(
            case.name, f"{case.what}: the process died, signal {done.died}, exit code {done.code}"
        )
    if done.result.broken:
        text = "\n  ".join(done.result.broken[:8])
        job.fail(case.name, f"{case.what}: {len(done.result.broken)} promises broken\n  {text}")
    if counted:
        job.count(counted)
    for what, number in done.result.figures.items():
        job.count(what, number)


RIGS = (
    Rig(
        "corrupt-packs",
        "bytes and files of packs changed at random",
        attack,
        bugs=(
            "read-without-hash",
            "check-skips-deltas",
            "check-skips-segments",
            "check-forgets-names",
        ),
        teeth=0.01,
        test=0.02,
    ),
)
