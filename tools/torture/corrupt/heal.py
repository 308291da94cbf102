"""Rig: chunks are damaged, the same content is written again, and every point that shared it must be whole.

As it goes in life: a check, or restoring, notices the damage, then the next run writes what is there anyway, in the
same manner as the run before.  After that no point may miss a byte; after a collection nothing may be left for check
to complain of; and the packs alone must give the same.

What this cannot heal: a chunk is known by the hash of all of it.  A slot of a disk image of which a part was
overwritten later is only stored again by someone who writes the older content.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine import Store
from engine.index.rows import KIND_DATA
from tools.torture.corrupt import judge, made
from tools.torture.corrupt.children import run
from tools.torture.corrupt.model import Damage, Model
from tools.torture.corrupt.mutate import Changed
from tools.torture.corrupt.packs import Case, Stores, Verdict, put, settle_case, undo
from tools.torture.rig import Job, Rig

FULL = 500
STORE_EVERY = 125
_SLOTS = 2


def damaged(model: Model, chance: random.Random) -> tuple[str, Changed]:
    """Some chunks of data, hit anywhere in their records; once in a while every one of a pack."""
    chunks = [cid for cid, place in model.places.items() if _kind(model, cid) == KIND_DATA]
    chosen = chance.sample(chunks, chance.choice([1, 1, 1, 2, 3, 8, len(chunks) // 2]))
    if chance.random() < 0.2:
        pack = model.places[chosen[0]].file
        chosen = [cid for cid in chunks if model.places[cid].file == pack]
    files: dict[str, bytearray] = {}
    for cid in chosen:
        place = model.places[cid]
        data = files.setdefault(place.file, bytearray(model.files.packs[place.file]))
        at = place.offset + chance.randrange(place.size)
        size = min(chance.choice([1, 1, 100]), place.offset + place.size - at)
        old = bytes(data[at : at + size])
        data[at : at + size] = bytes(byte ^ chance.randrange(1, 256) for byte in old)
    return f"{len(chosen)} chunks", {name: bytes(data) for name, data in files.items()}


def _kind(model: Model, cid: bytes) -> int:
    place = model.places[cid]
    return model.files.packs[place.file][place.offset + 4]


def verdict(
    model: Model, place: Path, case: Case, chance: random.Random, again: Callable[[], random.Random]
) -> Verdict:
    """In a child: damage, notice, write again, look."""
    put(place, case.changed)
    now = {**model.files.packs, **case.changed}
    damage = Damage(model, {name: data for name, data in now.items() if data is not None})
    whole = Damage(model, model.files.packs)
    broken: list[str] = []
    checked = chance.random() < 0.5
    with Store.open(str(place)) as store:
        if checked:
            store.check(read_data=True)
        else:
            _restore_all(store, place.with_suffix(".out"))
    made.write_again(place, again(), "-again")
    with Store.open(str(place)) as store:
        broken += [
            f"after healing: {text}" for text in judge.of_reading(model, whole, store, chance)
        ]
        store.check(read_data=True)
    if not checked:
        # A restore does not notice what no point has, nor a base whose damaged part nobody needs; check just did.
        made.write_again(place, again(), "-once-more")
    with Store.open(str(place)) as store:
        broken += [f"after healing, check: {text}" for text in _lost(store)]
        store.repair()
        store.collect()
        left = store.check(read_data=True).problems
        broken += [f"after a collection, check: {p.thing}: {p.text}" for p in left]
        broken += [f"collected: {text}" for text in judge.of_reading(model, whole, store, chance)]
    Store.rebuild_index(str(place))
    with Store.open(str(place)) as store:
        broken += [f"from packs: {text}" for text in judge.of_reading(model, whole, store, chance)]
    figures = Counter({"chunks damaged": len(damage.hurt)})
    figures["points healed"] = sum(bool(damage.of_point(point)) for point in model.points)
    return Verdict(broken, figures)


def _lost(store: Store) -> list[str]:
    """What check says that points have lost."""
    found = store.check(read_data=True).problems
    return [f"{p.thing}: {p.text}" for p in found if p.code in ("file", "point", "tree")]


def _restore_all(store: Store, target: Path) -> None:
    """Every point restored as far as it goes: what cannot be read is noted on the way."""
    for info in store.points():
        store.restore(info.id, b"", os.fsencode(target))
        shutil.rmtree(target)


def attack(job: Job) -> None:
    """The rig."""
    count = job.size(FULL, 4)
    for number in range(-(-count // STORE_EVERY)):
        names = [f"{number}.{n}" for n in range(min(STORE_EVERY, count - number * STORE_EVERY))]
        wanted = [name for name in names if job.wants(name)]
        if not wanted:
            continue
        stores = Stores(job, number)

        def work(slot: int, case: Case, stores: Stores = stores, number: int = number) -> Verdict:
            chance, again = job.random("judge", case.name), partial(job.random, "store", number)
            return verdict(stores.model, stores.places[slot], case, chance, again)

        def clean(slot: int, case: Case, stores: Stores = stores) -> None:
            made.write_files(stores.places[slot], stores.model.files)
            undo(stores.model, stores.places[slot], {})

        cases = (Case(name, *damaged(stores.model, job.random("case", name))) for name in wanted)
        for done in run(cases, work, clean, _SLOTS):
            settle_case(job, done, "stores healed")


RIGS = (
    Rig(
        "corrupt-heal",
        "the same content written again after damage",
        attack,
        bugs=("damage-not-noted",),
        teeth=0.02,
        test=0.02,
    ),
)
