"""The record of full runs: ``tests/RESULTS.md``, newest run first."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from tools.torture.rig import Rig
from tools.torture.run import Outcome

HEAD = """# What the torture rigs have found

Written by `make torture`; newest run first. Each line replays from its seed:
`python -m tools.torture RIG --seed SEED --scale SCALE`.
"""


def _row(outcome: Outcome) -> str:
    counted = ", ".join(f"{number:,} {what}" for what, number in outcome.figures.items())
    text = "; ".join(filter(None, (counted, *outcome.notes)))
    text = text.replace("|", "/").replace("\n", "<br>")
    verdict = outcome.found.splitlines()[0] if outcome.found else "kept"
    return (
        f"| {outcome.rig} | {outcome.seed} | {outcome.scale:g} | {text} | {outcome.seconds:.0f} s"
        f" | {verdict} |"
    )


def section(
    outcomes: Iterable[Outcome],
    uncaught: Iterable[str],
    absent: Iterable[Rig],
    now: datetime.datetime,
    teeth: int = 0,
) -> str:
    """The page's part about one run."""
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release().partition('-')[0]}"
    lines = [f"## {now:%Y-%m-%d %H:%M} UTC, {machine}", ""]
    lines += ["| rig | seed | scale | did | took | promises |", "|---|---|---|---|---|---|"]
    lines += [_row(outcome) for outcome in outcomes]
    if teeth:
        lines.append(f"\nBefore that, {teeth} times a rig was given a planted bug to find.")
    lines += [f"\nPlanted bug that went uncaught: {line}" for line in uncaught]
    lines += [f"\nNot run on this machine: {rig.name}" for rig in absent]
    return "\n".join(lines) + "\n"


def record(
    path: Path,
    outcomes: Iterable[Outcome],
    uncaught: Iterable[str],
    absent: Iterable[Rig],
    *,
    teeth: int,
) -> None:
    """Put the section of this run before those of earlier ones."""
    text = path.read_text() if path.exists() else HEAD
    head, mark, rest = text.partition("\n## ")
    new = section(outcomes, uncaught, absent, datetime.datetime.now(datetime.UTC), teeth)
    path.write_text(f"{head.rstrip()}\n\n{new}" + (f"\n## {rest}" if mark else ""))
