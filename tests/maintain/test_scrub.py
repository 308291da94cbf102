"""Scrub: everything is verified, at its pace, by its schedule, from where it was; damage is found and marked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store, limits
from engine.errors import InvalidRequest
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import PACK_SEALED, U32, pack_row
from engine.maintain import scrub as scrubbing
from engine.maintain.scrub import ScrubReport
from engine.progress import Progress
from engine.seam import Os
from tests.engine.process import run
from tests.maintain.support import MortalOs, damage, noise, pack_path, put, sound, three_points

DAY = 86_400


class ClockOs(Os):
    """A clock that goes only when something sleeps, or is told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept = 0.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1_000_000_000)

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept += seconds
        self.now += seconds


@pytest.fixture
def filled(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of a dozen small packs and an open segment."""
    monkeypatch.setattr(limits, "PACK_MAX", 150_000)
    with Store.open(str(home)) as store:
        store.create_mount("m")
        three_points(store)
    return home


def scrub(
    home: Path, system: Os | None = None, *, rate: int | None = None, budget_s: float | None = None,
    every_s: float | None = None, report: Callable[[Progress], None] = lambda state: None,
) -> ScrubReport:  # fmt: skip
    system = system or ClockOs()
    with OpenStore(str(home), system=system) as opened:
        return scrubbing.scrub(
            opened, rate=rate, budget_s=budget_s, every_s=every_s, report=report,
            sleep=getattr(system, "sleep", lambda seconds: None),
        )  # fmt: skip


def packs(home: Path, *, sealed: bool = False) -> dict[int, int]:
    """Lengths of the packs, by number."""
    with OpenStore(str(home)) as opened, opened.context.index.read() as txn:
        rows = {U32.unpack(key)[0]: pack_row(raw) for key, raw in txn.scan(Table.PACKS)}
    return {n: r.length for n, r in rows.items() if not sealed or r.state == PACK_SEALED}


def test_all_of_it_is_verified_and_then_again(filled: Path) -> None:
    for _ in range(2):
        done = scrub(filled)
        assert done.finished and not done.problems and not done.suspects
        assert done.packs == len(packs(filled)) > 8
        assert (
            done.verified_bytes
            == done.store_bytes
            == done.cycle_bytes
            == sum(packs(filled).values())
        )
        with Store.open(str(filled)) as store:
            assert done.records == store.stats()["chunks"] + _nodes(store)
            assert store.stats()["scrubbed_bytes"] == done.store_bytes
            assert store.stats()["last_scrub_ns"] == ClockOs().time_ns()


def _nodes(store: Store) -> int:
    with store._open.context.index.read() as txn:
        return txn.count(Table.CHUNKS) - int(store.stats()["chunks"])


def test_the_rate_is_kept(filled: Path) -> None:
    system = ClockOs()
    done = scrub(filled, system, rate=100_000)
    assert done.finished
    assert system.slept == pytest.approx(done.verified_bytes / 100_000, rel=0.01)
    with pytest.raises(InvalidRequest, match="rate"):
        scrub(filled, rate=0)


def test_a_run_out_of_time_is_gone_on_with(filled: Path) -> None:
    total = sum(packs(filled).values())
    verified = runs = 0
    while True:
        done = scrub(filled, rate=100_000, budget_s=2)  # two packs
        verified += done.verified_bytes
        runs += 1
        assert done.cycle_bytes == verified
        if done.finished:
            break
    assert verified == total
    assert runs >= 4


def test_killed_anywhere_it_goes_on(filled: Path, tmp_path: Path) -> None:
    step, verified = 0, set()
    while True:
        home = tmp_path / f"killed-{step}"
        shutil.copytree(filled, home)

        def work(home: Path = home, step: int = step) -> None:
            system = MortalOs(step)
            system.watch_transactions()
            scrub(home, system)

        killed = run(work) != 0
        before = scrub(home, budget_s=0).cycle_bytes
        done = scrub(home)
        assert done.finished and not done.problems
        verified.add(done.store_bytes - before)
        with Store.open(str(home)) as store:
            sound(store)
        shutil.rmtree(home)
        if not killed:
            break
        step += 1
    assert len(verified) > 8, "every run began behind what the killed one had verified"


def test_a_schedule_is_kept(filled: Path) -> None:
    system = ClockOs()
    total = sum(packs(filled).values())
    shares = []
    for day in range(32):
        done = scrub(filled, system, every_s=30 * DAY)
        assert done.due_bytes is not None and done.store_bytes == total
        assert done.cycle_bytes >= done.due_bytes or done.finished
        assert done.cycle_bytes < done.due_bytes + 2 * limits.PACK_MAX
        shares.append(done.packs)
        if done.finished:
            assert day in (29, 30)
            break
        system.now += DAY
    assert sum(shares) == len(packs(filled))
    assert shares[0] == 1 and max(shares) <= 2
    # a machine that was off for three weeks: behind, and told so when there is no time to catch up
    scrub(filled, system, every_s=30 * DAY)
    system.now += 21 * DAY
    late = scrub(filled, system, every_s=30 * DAY, rate=100_000, budget_s=1)
    assert late.due_bytes is not None and late.cycle_bytes < late.due_bytes - 200_000
    system.now -= 3650 * DAY  # a clock set back asks for nothing
    early = scrub(filled, system, every_s=30 * DAY)
    assert (early.packs, early.due_bytes) == (0, 1)


def test_new_data_and_segments_appended_to_belong_to_the_cycle(filled: Path) -> None:
    assert scrub(filled).finished
    first = scrub(filled, budget_s=0)
    with Store.open(str(filled)) as store:
        tree = store.open_live("m")
        put(tree, b"more", noise(50_000, 77))
        tree.close()
    rest = scrub(filled)
    assert rest.finished
    assert first.verified_bytes + rest.verified_bytes >= sum(packs(filled).values())


@pytest.mark.parametrize("where", ["sealed", "open"])
def test_damage_is_found_marked_and_healed(filled: Path, where: str) -> None:
    sealed = packs(filled, sealed=True)
    with Store.open(str(filled)) as store:
        day = 1 if where == "sealed" else 2
        view = store.view(store.points()[day].id)
        ids = [c for _, e in view.spans(view.find(b"only")) for _, _, c, _ in e]
        rows = {cid: store._open.reader.row(cid) for cid in ids}
        wanted = where == "sealed"
        inside = [c for c, r in rows.items() if r is not None and (r.pack in sealed) == wanted]
        damage(store, filled, inside[0])
    done = scrub(filled)
    assert f"chunk {inside[0].hex()}" in [p.thing for p in done.problems]
    assert any(p.code == "pack" for p in done.problems) == (where == "sealed")
    assert done.finished and done.suspects >= 1
    assert scrub(filled, budget_s=0).suspects == done.suspects  # until it is healed
    with Store.open(str(filled)) as store:
        tree = store.open_live("m")
        put(tree, b"again", noise(300_000, 10 + day))
        tree.close()
        sound_but_packs(store)
    assert scrub(filled).suspects == 0


def sound_but_packs(store: Store) -> None:
    """The dead record of the damaged chunk is still in its pack."""
    assert [p for p in store.check(read_data=True).problems if p.code != "pack"] == []


@pytest.mark.parametrize("how", ["trailer", "footer", "header", "gone", "cut", "digest"])
def test_a_damaged_pack_is_named_and_the_others_are_verified(
    filled: Path, how: str, expect_log: Callable[[str], None]
) -> None:
    number, length = next(iter(packs(filled, sealed=True).items()))
    path = pack_path(filled, number)
    if how == "gone":
        expect_log("is suspect")  # bases of deltas, which are met before
        path.unlink()
    elif how == "cut":
        os.truncate(path, length - 1000)
    else:
        at = {
            "trailer": length + 10,
            "footer": path.stat().st_size - 20,
            "header": 5,
            "digest": length - 4,
        }[how]
        with path.open("r+b") as file:
            file.seek(at)
            there = file.read(1)[0]
            file.seek(at)
            file.write(bytes([there ^ 0xA5]))  # never what is there, as one byte in 256 is
    done = scrub(filled)
    assert any(p.thing == f"pack {number}" for p in done.problems)
    assert bool(done.suspects) == (how in ("gone", "cut", "digest"))
    assert done.finished and done.packs == len(packs(filled))
    with Store.open(str(filled)) as store:
        assert store.check(read_data=True).problems


def test_beside_a_collection_nothing_is_taken_for_damaged(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.packs.files._OPEN_FILES", 1)
    with Store.open(str(filled)) as store:
        for point in store.points()[:2]:
            store.remove_point(point.id)
    collected = []

    def report(state: Progress) -> None:
        if not collected:
            with Store.open(str(filled)) as store:
                collected.append(store.collect())

    done = scrub(filled, report=report)
    assert collected[0].packs_removed >= 3
    assert done.problems == []
    assert done.finished
    after = packs(filled)
    with OpenStore(str(filled)) as opened, opened.context.index.read() as txn:
        rows = {U32.unpack(key)[0]: pack_row(raw) for key, raw in txn.scan(Table.PACKS)}
    assert all(rows[number].scrubbed == 1 for number in after), (
        "what was moved was verified where it went"
    )
