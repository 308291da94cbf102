"""A power cut at every write of the disk beneath the file system beneath a store.

A worker runs a ``Story`` on a store in a fresh file system on a recorded disk (``recorder``), telling of its steps in
the disk's own log.  Every place of the log is then a cut: the disks it may have left (``disklog``) are built in memory
one after the other and mounted, which replays the journal, and the store in them is opened and judged.  Of some, the
recovery and the first steps after it are recorded and cut in turn.

A seed gives the same steps and the same choices, but which blocks the kernel writes when differs from run to run: a
case names its cut by what had been told (words, and then writes and flushes), so that it is found again near there.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tools.torture import bugs
from tools.torture.crash import loopfs
from tools.torture.crash.disklog import (
    Disk,
    Entry,
    Kind,
    Pages,
    Variant,
    decode,
    digest,
    load,
    save,
)
from tools.torture.crash.local import (
    UNSOUND,
    in_child,
    judge,
    look,
    make,
    memory,
    unfinished,
    worker,
)
from tools.torture.crash.recorder import recorder
from tools.torture.crash.story import Found, Scale, Story
from tools.torture.rig import Job, Rig
from tools.torture.run import scratch

MADE = b"made"
STATES = 3600  # chosen at full size, of ext4; about a sixth are the same as another
STORY_STATES = 750  # of one story, so many
AGAIN = 24  # recoveries that are cut themselves, at full size
AGAIN_STATES = 16  # of each
STEPS = 150  # of a story: about six writes each
LOST = (
    0.02  # share of the disks that may be beyond mounting: a torn superblock is no fault of a store
)

Tell = Callable[[bytes], None]


class Recorded(NamedTuple):
    """A disk before, all that was done to it, and what the one who did it returned."""

    pages: Pages
    log: list[Entry]
    result: object


def record(place: Path, kind: str, image: Path, act: Callable[[str, Tell], object]) -> Recorded:
    """Mount the disk and have a child ``act`` on the store's path; its words are in the log."""
    log, mounted = place / "log", place / "recorded"
    mounted.mkdir(exist_ok=True)
    with (
        recorder(place / "recorder", image, log) as (disk, notes),
        loopfs.attached(disk) as device,
        loopfs.mounted(device, mounted, kind),
    ):
        fd = os.open(notes, os.O_WRONLY)

        def tell(word: bytes) -> None:
            assert os.write(fd, word) == len(word)

        def acted() -> object:
            return act(str(mounted / "store"), tell)

        try:
            result = in_child(acted, _worker_died)
        finally:
            os.close(fd)
    recorded = Recorded(load(image), list(decode(log.read_bytes())), result)
    log.unlink()
    if not any(entry.kind == Kind.FLUSH for entry in recorded.log):
        raise RuntimeError(
            "no flush reaches the recorder: nothing it says of lost writes would be so"
        )
    return recorded


def _worker_died(how: str) -> object:
    raise RuntimeError(f"the worker: {how}")


@dataclass
class Bench:
    """Where disks are mounted and judged, one after the other."""

    device: str
    file: Path
    place: Path
    kind: str
    seen: set[bytes] = field(default_factory=set)
    lost: int = 0

    def judged(self, pages: Pages, told: int, look: Callable[[str], str]) -> str | None:
        """What ``look`` says of the store in this disk; None when it was judged before or cannot be mounted."""
        name = digest(pages) + told.to_bytes(4, "little")
        if name in self.seen:
            return None
        self.seen.add(name)
        save(pages, self.file)
        try:
            loopfs.mount(self.device, self.place, self.kind)
        except OSError:
            self.lost += 1
            return None
        try:
            return look(str(self.place / "store"))
        finally:
            loopfs.unmount(self.place)

    def disks(self) -> int:
        """How many different ones there were."""
        return len({name[:32] for name in self.seen})


@contextmanager
def bench(place: Path, kind: str) -> Iterator[Bench]:
    """A place to judge disks."""
    file, mounted = place / "bench", place / "mounted"
    mounted.mkdir()
    loopfs.make_image(kind, file)
    with loopfs.attached(file) as device:
        yield Bench(device, file, mounted, kind)


# --- cuts -------------------------------------------------------------------------------------------------------


def states(
    log: list[Entry], rng: random.Random, most: int, *, every: bool = False
) -> list[tuple[int, Variant]]:
    """Cuts to be judged, in order: before every write and flush, and at the end, where there may be something new.

    Behind every write all, none and a chosen part of the loose writes arrive (``every``: every part); if that is too
    many, a random part of the cuts is taken.
    """
    found = []
    loose = False
    for at, entry in enumerate([*log, Entry(Kind.FLUSH)]):
        if entry.kind == Kind.NOTE:
            continue
        found.append((at, Variant.KEPT))
        if loose:
            found.append((at, Variant.DROPPED))
            parts = (Variant.SOME, Variant.LATER, Variant.TORN)
            found += [(at, variant) for variant in (parts if every else (rng.choice(parts),))]
        loose = entry.kind == Kind.WRITE
    return sorted(rng.sample(found, most)) if len(found) > most else found


class Walk:
    """Going through a log once: the disk and the story at each cut."""

    def __init__(self, recorded: Recorded, story: Story, *, made: bool) -> None:
        self._log, self._story, self._at = recorded.log, story, 0
        self.disk = Disk(recorded.pages)
        self.told = self.since = 0  # words, and what was written and flushed since the last
        self.made = made

    def to(self, cut: int) -> None:
        """Go on to this cut."""
        for entry in self._log[self._at : cut]:
            self.disk.take(entry)
            self.since += 1
            if entry.kind == Kind.NOTE:
                self.told, self.since = self.told + 1, 0
                if entry.data == MADE:
                    self.made = True
                else:
                    self._story.word(entry.data)
        self._at = cut

    def misfit(self, found: Found) -> str:
        """Why this can not be what is found if the cut was here."""
        return self._story.expected().misfit(found)

    def wrong(self, path: str) -> str:
        """What is wrong with the store there if the cut was here."""
        if not self.made:
            return unfinished(path)
        return judge(path, self._story.expected())[0]


# --- the rig ------------------------------------------------------------------------------------------------------


def story_of(job: Job, number: int) -> Story:
    return Story(job.random("story", number), Scale())


def run(kind: str, full: int, job: Job) -> None:
    """Judge about so many cuts."""
    budget = job.size(full)
    stories = max(1, round(budget / STORY_STATES))
    with scratch(memory()) as place, bench(place, kind) as judges:
        loopfs.make_image(kind, place / "image")
        for number in range(stories):
            recorded = record(
                place, kind, place / "image", partial(_first, story_of(job, number))
            )  # fmt: skip
            job.count("writes recorded", sum(e.kind == Kind.WRITE for e in recorded.log))
            job.count("flushes", sum(e.kind == Kind.FLUSH for e in recorded.log))
            walk = Walk(recorded, story_of(job, number), made=False)
            _judge(job, judges, walk, recorded.log, budget // stories, f"{number}")
            for cut in range(round(job.scale * AGAIN * full / STATES / stories)):
                _again(job, place, judges, recorded, number, cut)
        job.count("different disks", judges.disks())
        if judges.lost:
            job.count("disks beyond mounting", judges.lost)
        if judges.lost > 3 + LOST * len(judges.seen):
            raise RuntimeError(f"{judges.lost} of {len(judges.seen)} file systems were lost")


def _first(story: Story, path: str, tell: Tell) -> None:
    bugs.plant_chosen()
    make(path)
    tell(MADE)
    worker(path, story, tell, STEPS)


def _judge(job: Job, judges: Bench, walk: Walk, log: list[Entry], most: int, label: str) -> None:
    every = bool(job.case)
    chosen = states(log, job.random("cuts", label), 1 << 30 if every else most, every=every)
    for cut, variant in chosen:
        walk.to(cut)
        case = f"{label}/{walk.told}+{walk.since}/{variant.name.lower()}"
        if not job.wants(case):
            continue
        pages = walk.disk.left(variant, job.random("left", case))
        wrong = judges.judged(pages, walk.told, walk.wrong)
        if wrong:
            job.fail(
                case,
                f"{judges.kind}, cut before entry {cut}, loose writes {variant.name.lower()}: {wrong}",
            )
        if wrong is not None:
            job.count("cuts judged")


def _again(
    job: Job, place: Path, judges: Bench, recorded: Recorded, number: int, count: int
) -> None:
    """Recover from a random cut, go on for a few steps, and cut that."""
    label = f"{number}/again {count}"
    if not job.wants(label) and not job.case.startswith(f"{label}/"):
        return
    rng = job.random("again", number, count)
    walk = Walk(recorded, story_of(job, number), made=False)
    made = recorded.log.index(Entry(Kind.NOTE, 0, MADE))
    writes = [at for at, entry in enumerate(recorded.log) if entry.kind == Kind.WRITE]
    cut = rng.choice([at for at in writes if at > made]) + 1
    walk.to(cut)
    image = place / "image-again"
    loopfs.make_image(judges.kind, image)
    save(walk.disk.left(rng.choice(list(Variant)), rng), image)
    seed = rng.random()
    try:
        second = record(place, judges.kind, image, partial(_second, seed))
    except OSError:
        judges.lost += 1
        return
    found = second.result
    wrong = walk.misfit(found) if isinstance(found, Found) else str(found)
    if wrong:
        job.fail(label, f"{judges.kind}: recovery at entry {cut}: {wrong}")
    assert isinstance(found, Found)
    next_walk = Walk(second, Story(random.Random(seed), Scale(), found), made=True)
    _judge(job, judges, next_walk, second.log, AGAIN_STATES, label)
    job.count("recoveries cut")


def _second(seed: float, path: str, tell: Tell) -> Found | str:
    bugs.plant_chosen()
    try:
        found = look(path)
    except UNSOUND as error:
        return f"{type(error).__name__}: {error}"
    worker(path, Story(random.Random(seed), Scale(), found), tell, 8)
    return found


WHAT = "a power cut at every write beneath {}, unflushed writes dropped, reordered, torn; recovery cut as well"
NEEDS = ("loop", "fuse")

RIGS = (
    Rig(
        "crash-block-ext4", WHAT.format("ext4"), partial(run, "ext4", STATES), NEEDS,
        bugs=(
            "data-sync-skipped", "disk-write-behind-for-sync", "disk-only-directory-synced",
            "commit-before-data", "index-sync-off", "index-metasync-off",
            "file-sync-skipped",
        ),
        test=0.012,
    ),
    # A few of these: their images are ten times as large, and their journals older than ours.
    Rig("crash-block-xfs", WHAT.format("xfs"), partial(run, "xfs", 300), (*NEEDS, "xfs"), test=0.02),
    Rig("crash-block-btrfs", WHAT.format("btrfs"), partial(run, "btrfs", 300), (*NEEDS, "btrfs"), test=0.02),
)  # fmt: skip
