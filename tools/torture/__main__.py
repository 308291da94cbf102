"""``python -m tools.torture [RIG…]``: first the teeth, then every rig at its size; see ``--help``."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from pathlib import Path

from tools.torture import bugs, needs, registry, results
from tools.torture.apart import Work, all_of
from tools.torture.rig import Rig
from tools.torture.run import Outcome, run

ROOT = Path(__file__).resolve().parents[2]
CORES = 2


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.torture", description=__doc__)
    parser.add_argument("rigs", nargs="*", metavar="RIG", help="rigs to run; all unless named")
    parser.add_argument("--list", action="store_true", help="name the rigs and bugs, run nothing")
    parser.add_argument("--seed", type=int, help="seed of every rig; chosen unless given")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full size")
    parser.add_argument("--case", default="", help="replay this case of the seed alone")
    parser.add_argument("--bug", default="", help="plant this bug; the rig must find it")
    parser.add_argument("--hours", type=float, default=0.0, help="go on with new seeds for so long")
    parser.add_argument("--jobs", type=int, default=CORES, help="rigs at work at once")
    parser.add_argument("--no-teeth", action="store_true", help="do not plant bugs first")
    parser.add_argument(
        "--record", action="store_true", help="write what came out to tests/RESULTS.md"
    )
    parser.add_argument(
        "--scratch", help="directory to work in; the system's temporary one unless given"
    )
    parser.add_argument(
        "--outcome", help=argparse.SUPPRESS
    )  # where a run of one rig leaves what came out
    parser.add_argument("--module", help=argparse.SUPPRESS)  # the one that has that rig
    return parser.parse_args()


def show() -> None:
    """Rigs with what they need, bugs with what they are."""
    for rig in registry.rigs().values():
        reason = needs.missing(rig.needs)
        say(f"{rig.name}: {rig.what}{f' (not here: {reason})' if reason else ''}")
        for name in rig.bugs:
            say(f"    catches {name}: {bugs.load()[name].what}")


def teeth(chosen: list[Rig], options: argparse.Namespace, seed: int) -> list[str]:
    """Plant every bug of every rig; which went uncaught."""
    uncaught = []
    work = [Work(rig, seed, rig.teeth, bug) for rig in chosen for bug in rig.bugs]
    for one, outcome in all_of(work, options.jobs, options.scratch, say):
        caught = bool(outcome and outcome.found)
        took = f" ({outcome.seconds:.0f} s)" if outcome else ""
        say(f"teeth: {one.rig.name} {'caught' if caught else 'MISSED'} {one.bug}{took}")
        if not caught:
            uncaught.append(f"{one.rig.name}: {one.bug}")
    return uncaught


def rounds(chosen: list[Rig], options: argparse.Namespace, seed: int) -> list[Outcome]:
    """Every rig once, then again with the next seeds while there is time; ends at the first round with a find."""
    end = time.monotonic() + options.hours * 3600
    outcomes: list[Outcome] = []
    while True:
        work = [Work(rig, seed, options.scale) for rig in chosen]
        for one, outcome in all_of(work, options.jobs, options.scratch, say):
            outcome = outcome or Outcome(
                one.rig.name, seed, options.scale, 0, {}, (), "the rig broke"
            )
            say(outcome.line())
            outcomes.append(outcome)
        if time.monotonic() >= end or any(outcome.found for outcome in outcomes):
            return outcomes
        seed += 1


def single(rig: Rig, options: argparse.Namespace, seed: int) -> int:
    """One rig, here: exit code 0 when every promise was kept, or the planted bug was found."""
    outcome = run(rig, seed, options.scale, case=options.case, bug=options.bug, say=say,
                  parent=options.scratch)  # fmt: skip
    if options.outcome:
        outcome.save(Path(options.outcome))
    say(outcome.line())
    return int(bool(outcome.found) != bool(options.bug))


def choose(names: list[str], module: str | None) -> tuple[list[Rig], list[Rig]]:
    """(rigs that can run here, rigs that can not), of those named or of all."""
    every = registry.rigs([module] if module else registry.MODULES)
    unknown = [name for name in names if name not in every]
    if unknown:
        say(f"no rig {', '.join(unknown)}; there are {', '.join(every)}")
        sys.exit(2)
    chosen: list[Rig] = []
    absent: list[Rig] = []
    for rig in [every[name] for name in names] or list(every.values()):
        reason = needs.missing(rig.needs)
        (absent if reason else chosen).append(rig)
        if reason:
            say(f"not run here: {rig.name}: {reason}")
    return chosen, absent


def main() -> int:
    """Exit code 0 when every promise was kept and every planted bug caught."""
    options = arguments()
    if options.list:
        show()
        return 0
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    chosen, absent = choose(options.rigs, options.module)
    if len(chosen) == 1 and (options.case or options.bug or options.outcome):
        return single(chosen[0], options, seed)
    uncaught = [] if options.no_teeth else teeth(chosen, options, seed)
    outcomes = rounds(chosen, options, seed)
    if options.record:
        results.record(ROOT / "tests" / "RESULTS.md", outcomes, uncaught, absent,
                       teeth=0 if options.no_teeth else sum(len(rig.bugs) for rig in chosen))  # fmt: skip
    for line in uncaught:
        say(f"a planted bug went uncaught: {line}")
    return 1 if uncaught or any(outcome.found for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
