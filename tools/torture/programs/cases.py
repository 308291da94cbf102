"""A case is one program at its work; a table of them is run on one mount, then on what a recovery point gives back."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools.demolib.console import DemoError
from tools.demolib.witness import Tree, compare, note
from tools.torture import bugs, needs
from tools.torture.programs.stage import Argument, Refused, Stage, run
from tools.torture.rig import Job

TROUBLE = (Refused, DemoError, OSError)
"""What a program, or the mount under it, may come up with: a find, whatever it is."""
EVERY_NAMESPACE = ("user.", "trusted.", "security.", "system.")


@dataclass
class Scene:
    """One case being run: its directory in the mount, one outside, chance of its own, and what it wants kept."""

    stage: Stage
    name: str
    rounds: Callable[[int], int]
    kept: list[tuple[str, Callable[[Path], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.live = self.stage.live / self.name
        self.local = self.stage.place / "local" / self.name
        for folder in (self.live, self.local):
            folder.mkdir(parents=True)

    def random(self, *labels: object) -> random.Random:
        """Chance that does not depend on which other cases are run."""
        return self.stage.job.random(self.name, *labels)

    def run(self, *argv: Argument, cwd: Path | None = None, ok: Sequence[int] = (0,), **more: str) -> str:  # fmt: skip
        """Run a program; what it printed. ``more``: environment variables."""
        return run(argv, cwd=cwd or self.local, ok=ok, variables=more)

    def feed(self, stdin: bytes, *argv: Argument, cwd: Path | None = None) -> str:
        """Run a program on this input; what it printed."""
        return run(argv, cwd=cwd or self.local, stdin=stdin)

    def fail(self, text: str) -> None:
        """A promise was broken."""
        self.stage.job.fail(self.name, f"{self.name}: {text}")

    def want(self, kept: bool, text: str) -> None:
        """Fail unless it is so."""
        if not kept:
            self.fail(text)

    def same(self, expected: Tree, folder: Path, *without: str) -> None:
        """Fail unless the files below ``folder`` are these; fields named in ``without`` do not count."""
        lines = compare(plain(expected, without), plain(notes(folder), without))
        if lines:
            rest = f"\n    and {len(lines) - 8} more" if len(lines) > 8 else ""
            self.fail(f"{folder}: {len(lines)} differences\n    " + "\n    ".join(lines[:8]) + rest)

    def meanwhile(self, work: Callable[[], object]) -> Path:
        """Make a recovery point while ``work`` is done in a thread; this case's directory as the point has it."""
        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(work)
            point = self.stage.snapshot(f"while {self.name}")
            if not doing.done():
                self.stage.job.count("points cut in the middle of work")
            doing.result()
        return self.stage.restore(point, self.name)

    def keep(self, folder: Path, expected: Tree | None = None) -> None:
        """What is in this folder now must be in the next recovery point, and still be here after a remount."""
        tree = notes(folder) if expected is None else expected
        self.keep_so(folder, lambda found: self.same(tree, found))

    def keep_so(self, folder: Path, judge: Callable[[Path], None]) -> None:
        """``judge`` looks at this folder as a recovery point gives it back, and as it is after a remount."""
        self.kept.append((folder.relative_to(self.stage.live).as_posix(), judge))


@dataclass(frozen=True)
class Case:
    """``commands`` must be there, and what ``needs`` names (``tools.torture.needs``)."""

    name: str
    run: Callable[[Scene], None]
    commands: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def missing(self) -> str:
        """Why it cannot be run here; empty when it can."""
        absent = [command for command in self.commands if shutil.which(command) is None]
        return f"no {', '.join(absent)}" if absent else needs.missing(self.needs)


def void(_: object) -> None:
    """A judge that has said what it has to say by not failing."""


def notes(folder: Path) -> Tree:
    """Everything below a folder, with all its extended attributes."""
    return note(folder, namespaces=EVERY_NAMESPACE)


def plain(tree: Tree, without: Sequence[str]) -> Tree:
    """The tree without some facts, for programs that do not carry them."""
    if not without:
        return tree
    nothing = {
        "mtime_ns": 0, "xattrs": (), "twin": b"", "mode": 0, "uid": 0, "gid": 0, "rdev": 0,
        "allocated": 0,
    }  # fmt: skip
    blank = {name: nothing[name] for name in without}
    return {path: replace(entry, **blank) for path, entry in tree.items()}  # type: ignore[arg-type]


def perform(job: Job, table: Sequence[Case], aims: dict[str, str]) -> list[Case]:
    """Which cases to run now: the one that is replayed, or aimed at by a planted bug, or all that can be."""
    chosen = []
    for case in table:
        if not job.wants(case.name) or aims.get(bugs.chosen(), case.name) != case.name:
            continue
        reason = case.missing()
        if reason:
            job.note(f"{case.name} not run: {reason}")
        else:
            chosen.append(case)
    return chosen


def play(job: Job, stage: Stage, cases: Sequence[Case]) -> None:
    """Run cases on the mount; then judge what they keep as a recovery point has it and after a remount."""
    scenes = []
    for case in cases:
        scene = Scene(stage, case.name, job.size)
        try:
            case.run(scene)
        except TROUBLE as error:
            scene.fail(str(error))
        job.say(f"  {case.name}")
        job.count("cases")
        scenes.append(scene)
    judge(stage, scenes)


def judge(stage: Stage, scenes: Sequence[Scene]) -> None:
    """The oracle of a whole table."""
    keeping = [scene for scene in scenes if scene.kept]
    try:
        if keeping:
            restored = stage.restore(stage.snapshot("all"))
            look(keeping, restored)
            shutil.rmtree(restored)
            stage.umount()
            stage.mount()
            look(keeping, stage.live)
        stage.umount()
    except Refused as error:
        stage.job.fail("", str(error))
    stage.check()


def look(scenes: Sequence[Scene], root: Path) -> None:
    """Judge what every case kept, below ``root``."""
    for scene in scenes:
        for folder, verdict in scene.kept:
            try:
                verdict(root / folder)
            except TROUBLE as error:
                scene.fail(f"{root / folder}: {error}")
