"""Running one rig once, with or without a planted bug, in a scratch directory that goes when it ends."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.torture import bugs
from tools.torture.rig import Found, Job, Rig


@dataclass(frozen=True)
class Outcome:
    """What one run gave. ``found`` is empty when every promise was kept."""

    rig: str
    seed: int
    scale: float
    seconds: float
    figures: dict[str, int]
    notes: tuple[str, ...]
    found: str = ""

    def save(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """What ``save`` wrote."""
        return cls(**json.loads(path.read_text()))

    def line(self) -> str:
        """One line for people."""
        counted = ", ".join(f"{number:,} {what}" for what, number in self.figures.items())
        text = "; ".join(filter(None, (counted, *self.notes)))
        verdict = f"FOUND {self.found}" if self.found else "kept"
        return f"{self.rig}: seed {self.seed}, {text}, {self.seconds:.0f} s: {verdict}"


@contextmanager
def scratch(parent: str | None = None) -> Iterator[Path]:
    """A directory of its own, gone afterwards, with everything mounted below it unmounted first."""
    path = Path(tempfile.mkdtemp(prefix="torture-", dir=parent))
    try:
        yield path
    finally:
        _unmount_below(path)
        shutil.rmtree(path, ignore_errors=True)


def _unmount_below(path: Path) -> None:
    """Deepest first; whatever is dead or in use is detached."""
    import subprocess  # only here: a run without mounts needs none

    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    places = [line.split(" ")[4].encode().decode("unicode_escape") for line in lines]
    for place in sorted((p for p in places if Path(p).is_relative_to(path)), reverse=True):
        subprocess.run(["umount", "-l", place], capture_output=True, check=False)


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Children of the rig plant this bug."""
    if not name:
        yield
        return
    bugs.find(name)
    os.environ[bugs.VARIABLE] = name
    try:
        yield
    finally:
        del os.environ[bugs.VARIABLE]


def run(
    rig: Rig,
    seed: int,
    scale: float,
    *,
    case: str = "",
    bug: str = "",
    say: Callable[[str], None] = lambda text: None,
    parent: str | None = None,
) -> Outcome:
    """Run a rig once; a broken promise is in the outcome, anything else is raised."""
    with scratch(parent) as place, planted(bug):
        job = Job(rig.name, seed, scale, place, case=case, say=say)
        found = ""
        try:
            rig.run(job)
        except Found as error:
            found = str(error)
        seconds = time.monotonic() - job.started
        return Outcome(rig.name, seed, scale, seconds, dict(job.figures), tuple(job.notes), found)
