"""What must hold when a fault is over, and when the store is opened anew after it."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from engine import Store, home
from engine.errors import HoldfastError
from engine.incidents import folded, lines
from engine.index import Table
from engine.index.rows import PACK_SEALED, U32, U64, pack_row
from engine.live import ROOT
from tools.torture.faults.workload import Model, Run, Tree, noise, possible


class Broken(Exception):
    """A promise was broken; says which."""


def demand(holds: bool, text: str) -> None:
    """Raise Broken unless it holds."""
    if not holds:
        raise Broken(text)


def told(run: Run, root: str) -> set[str]:
    """Kinds of the incidents that are known: in the store, or still in memory."""
    return {one.kind for one in folded([*lines(root), *run.store.incidents.waiting()])}


def goes_on(run: Run, rng: random.Random) -> None:
    """The fault is over: without a restart everything that was accepted is there, and all works again."""
    before = len(run.refusals)
    for _ in range(2):
        run.tick()
    run.write(b"after", 0, noise(rng, 70_000))
    run.fsync(b"after")
    run.barrier()
    run.snapshot()
    run.collect()
    more = run.refusals[before:]
    demand(not more, f"after the fault: {more[:1]}")
    now_is(run)
    newest = list(run.model.points)[-1]
    demand(run.restore(newest, "newest") == run.model.now, "the point made after the fault differs")


def now_is(run: Run) -> None:
    """The live tree is what was accepted, byte for byte."""
    for name, data in run.model.now.items():
        demand(run.read(name) == data, f"{name!r} is not what was accepted: {run.refusals[-1:]}")


def after_crash(copy: str, model: Model, target: Path) -> None:
    """The store as a kill would leave it: what was acknowledged is there, all else wholly or not at all."""
    with Store.open(copy) as store:
        tree = store.open_live("m")
        try:
            found = {
                name: tree.read(attr.ino, 0, attr.size) for name, attr, _ in tree.readdir(ROOT, 0)
            }
        finally:
            tree.close()
        for name in sorted({*found, *(n for state in model.states for n in state)}):
            allowed = model.allowed(name)
            if not possible(found.get(name), allowed):
                sizes = [None if one is None else len(one) for one in allowed]
                here = None if name not in found else len(found[name])
                raise Broken(f"after a crash {name!r} has {here} bytes that never were, of {sizes}")
        _points(store, model, target)
        store.collect()
        _clean(store)
    tidy(copy)


def reopened(path: str, run: Run, target: Path) -> None:
    """Opened anew after a clean end, all is there."""
    with Store.open(path) as store:
        tree = store.open_live("m")
        try:
            names = {name for name, _, _ in tree.readdir(ROOT, 0)}
            demand(names == run.model.now.keys(), f"other names after reopening: {names}")
            for name, data in run.model.now.items():
                found = tree.read(tree.lookup(ROOT, name).ino, 0, len(data) + 1)
                demand(found == data, f"{name!r} differs after reopening")
        finally:
            tree.close()
        _points(store, run.model, target)
        store.collect()
        _clean(store)
    tidy(path)


def _points(store: Store, model: Model, target: Path) -> None:
    listed = [point.id for point in store.points("m")]
    for number, point in enumerate(dict.fromkeys([*model.points, *listed])):
        if point in model.removed:
            continue
        demand(point in listed, f"the point {point} that was acknowledged is gone")
        where = target / f"p{number}"
        report = store.restore(point, b"", os.fsencode(where))
        demand(not report.damaged, f"point {point}: {report.damaged[:1]}")
        found: Tree = {os.fsencode(p.name): p.read_bytes() for p in where.iterdir()}
        wanted = [model.points[point]] if point in model.points else model.unsure
        demand(found in wanted, f"point {point} is not the tree it was made of")
        shutil.rmtree(where)


def _clean(store: Store) -> None:
    problems = store.check(read_data=True).problems
    demand(not problems, f"check: {problems[:2]}")


def tidy(path: str) -> None:
    """Closed by all: nobody is left among the workers, and the files are those the rows tell of."""
    with home.opened(path) as opened:
        with opened.context.index.read() as txn:
            workers = [U64.unpack(key)[0] for key, _ in txn.scan(Table.WORKERS)]
            pins = txn.count(Table.PINS)
            rows = {U32.unpack(key)[0]: pack_row(raw) for key, raw in txn.scan(Table.PACKS)}
            slots = opened.context.index.reader_check()
        root = Path(path)
        demand(not workers and not pins, f"workers {workers} and {pins} pins are left")
        demand(slots == 0, f"{slots} reader slots of nobody")
        left = [p.name for p in (root / "workers").iterdir()]
        demand(not left, f"lock files of nobody: {left}")
        sealed = {int(p.stem) for p in root.glob("packs/*/*.pack")}
        open_ = {int(p.stem) for p in root.glob("segments/*.seg")}
        for number, row in rows.items():
            place = sealed if row.state == PACK_SEALED else sealed | open_
            demand(number in place, f"pack {number}: a row ({row.state}) and no file")
        demand(
            not (sealed | open_) - rows.keys(),
            f"files without a row: {(sealed | open_) - rows.keys()}",
        )


def refused_as(run: Run, allowed: set[str]) -> None:
    """Every step that failed said one of these kinds; a read of what is not stored yet may say that it is not."""
    for one in run.refusals:
        more = {"location_unavailable"} if one.step.startswith(("read", "restore")) else set()
        demand(one.slug in allowed | more, f"{one.step} was told {one.slug}: {one.text}")


def descriptors() -> set[str]:
    """What this process has open, of the store's and its own; sockets and pipes left out."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            place = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if place.startswith("/") and not place.startswith(("/dev/null", "/proc")):
            found.add(f"{name} {place}")
    return found


__all__ = ["Broken", "HoldfastError", "after_crash", "demand", "descriptors", "goes_on", "now_is", "refused_as",
           "reopened", "tidy", "told"]  # fmt: skip
