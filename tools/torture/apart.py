"""Many runs of rigs, each in a process of its own, as many at once as is asked for; what measures time runs alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tools.torture import registry
from tools.torture.rig import Rig
from tools.torture.run import Outcome

LIMIT = 4 * 3600  # s for one run: a rig that takes as long hangs


@dataclass(frozen=True)
class Work:
    """One run of a rig, perhaps with a bug planted."""

    rig: Rig
    seed: int
    scale: float
    bug: str = ""


def all_of(
    work: list[Work], jobs: int, scratch: str | None, say: Callable[[str], None]
) -> Iterator[tuple[Work, Outcome | None]]:
    """Outcomes as they come; None of a run that broke, whose words were then said."""
    together = [one for one in work if not (one.rig.alone and not one.bug)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max(1, jobs)) as pool:
        asked = {
            pool.submit(one_of, one, f"{folder}/{number}", scratch, say): one
            for number, one in enumerate(together)
        }
        for future in as_completed(asked):
            yield asked[future], future.result()
        for one in work:
            if one not in together:
                yield one, one_of(one, f"{folder}/alone-{one.rig.name}", scratch, say)


def one_of(
    one: Work, place: str, scratch: str | None, say: Callable[[str], None]
) -> Outcome | None:
    """One run; ``place`` is where its outcome goes. Of its own process: what a rig leaves in memory is nobody's."""
    command = [
        sys.executable, "-m", "tools.torture", one.rig.name, "--seed", str(one.seed),
        "--scale", repr(one.scale), "--no-teeth", "--outcome", place,
        "--module", registry.home(one.rig),
    ]  # fmt: skip
    command += ["--bug", one.bug] if one.bug else []
    command += ["--scratch", scratch] if scratch else []
    words = Path(f"{place}.said")  # no pipe: a process that the rig left behind would keep it open
    with words.open("wb") as said:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False, timeout=LIMIT
        )
    if Path(place).exists():
        return Outcome.load(Path(place))
    text = words.read_text(errors="replace")
    say(f"{one.rig.name} broke, exit {done.returncode}:\n{text[-3000:]}")
    return None
