"""Every call of the storage seam fails, one after the other, each in every way it can.

A case is one fault in one workload.  While it lasts, every step is told the documented error and nothing is claimed
that is not so: the store is copied as a kill would leave it, and judged.  Then the fault is over: the same process
must go on with all that was accepted, and what it leaves must be whole when it is opened anew.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tools.torture.faults.case import Cases, judged, small
from tools.torture.faults.child import Answer, answers
from tools.torture.faults.layer import KINDS, Fault, FaultyOs, parse
from tools.torture.faults.place import in_memory
from tools.torture.rig import Job, Rig

ROUNDS = 4  # seeds at full size: each call of each fails in every way

READING = ("open", "pread", "size")  # calls that reading needs

SILENT = {
    "write_behind": "an aid: what it would tell, the sync tells",
    "size": "only incidents and checks ask for it",
}
"""Calls whose failure alone need be no incident, and why."""


def work(request: Answer) -> Iterator[Answer]:
    """In the child: each case that is asked for; "" is a run without a fault, for its counts."""
    small()
    cases = Cases(Path(request["scratch"]), request["seed"])
    for name in request["cases"]:
        yield judged(name, lambda name=name: _case(cases, parse(name) if name else None))  # type: ignore[misc]


def _case(cases: Cases, fault: Fault | None) -> Answer:
    system = FaultyOs(cases.seed + 1)
    case = cases.begin(system=system)
    opening = dict(system.calls)
    if fault is not None:
        system.fault = fault._replace(number=fault.number + opening.get(fault.kind, 0))
    case.strike(readable=fault is None or fault.kind not in READING)
    counts = {kind: count - opening.get(kind, 0) for kind, count in system.calls.items()}
    told = case.told()
    copy = case.copy()
    system.over = True
    loud = fault is not None and fault.how != "short" and fault.kind not in SILENT
    case.judge(
        copy, fault.how if fault else "short", system.fired[0] if loud and system.fired else ""
    )
    case.end()
    return {"fired": len(system.fired), "told": told, "calls": counts}


def every_case(calls: dict[str, int]) -> list[Fault]:
    """Each call of each kind, each way it can fail: once, and from then on."""
    return [
        Fault(kind, number, how, lasting)
        for kind, ways in KINDS.items()
        for number in range(1, calls.get(kind, 0) + 1)
        for how in ways
        for lasting in ((False, True) if how != "short" else (False,))
    ]


def run(job: Job) -> None:
    """For some seeds: a run without a fault tells how often each call is made; then faults, at full size all."""
    seeds = [job.seed + number for number in range(job.size(ROUNDS))]
    part = min(1.0, job.scale * ROUNDS)
    for seed in seeds:
        if job.case and not job.case.startswith(f"{seed}:"):
            continue
        calls: dict[str, int] = {}
        for answer in _asked(job, seed, [""]):
            calls = answer.get("calls", calls)
        cases = every_case(calls)
        chosen = _spread(cases, round(len(cases) * part), job.random("cases", seed))
        names = [job.case.partition(":")[2]] if job.case else [str(case) for case in chosen]
        for answer in _asked(job, seed, names):
            if "case" in answer:
                job.count("faults" if answer["fired"] else "faults that were not met")
                job.count("of them told to a caller", bool(answer["told"]))


def _asked(job: Job, seed: int, cases: list[str]) -> Iterator[Answer]:
    with in_memory(job) as scratch:
        request = {"scratch": str(scratch), "seed": seed, "cases": cases}
        for answer in answers(job, __name__, request):
            if "found" in answer:
                job.fail(
                    f"{seed}:{answer['case']}", f"{answer['found']}\n{answer.get('trace', '')}"
                )
            yield answer


def _spread(cases: list[Fault], count: int, rng: random.Random) -> list[Fault]:
    """Some of all: one of each kind and way in any case, then whichever."""
    rng.shuffle(cases)
    first: dict[tuple[str, str], Fault] = {}
    for case in cases:
        first.setdefault((case.kind, case.how), case)
    chosen = list(first.values())
    rest = [case for case in cases if first[case.kind, case.how] is not case]
    return chosen + rest[: max(0, count - len(chosen))]


RIGS = (
    Rig(
        "faults-seam",
        "every call of the storage seam fails, in every way it can",
        run,
        bugs=(
            "fsync-tried-again", "short-write-ignored", "full-disk-swallowed", "failed-seal-acknowledged",
            "incidents-forgotten", "failed-segment-left-open", "failed-segment-forgotten",
        ),
        teeth=0.02,
    ),
)  # fmt: skip
