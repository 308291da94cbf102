"""Every call of the storage seam fails, one after the other, each in every way it can.

A case is one fault in one workload.  While it lasts, every step is told the documented error and nothing is claimed
that is not so: the store is copied as a kill would leave it, and judged.  Then the fault is over: the same process
must go on with all that was accepted, and what it leaves must be whole when it is opened anew.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from engine import limits
from engine.chunks import segments
from engine.live import LiveTree
from tools.torture.faults import verdict
from tools.torture.faults.child import Answer, answers
from tools.torture.faults.layer import KINDS, Fault, FaultyOs, parse
from tools.torture.faults.workload import Run, fill, template
from tools.torture.rig import Job, Rig

TOLD = {
    "EIO": {"location_unavailable"}, "EMFILE": {"location_unavailable"}, "ENOSPC": {"store_full"},
    "EDQUOT": {"store_full"}, "EROFS": {"read_only"}, "short": set[str](),
}  # fmt: skip
"""The errors of the table that steps may be told, by what the system answered."""

ROUNDS = 4  # seeds at full size: each call of each fails in every way

SILENT = {
    "write_behind": "an aid: what it would tell, the sync tells",
    "size": "only incidents and checks ask for it",
}
"""Calls whose failure alone need be no incident, and why."""


def small() -> None:
    """Small packs, so that a small workload seals and compacts; no threads, so that it is the same each time."""
    limits.PACK_MAX = 192 * limits.KIB
    segments.SEAL_ON_CLOSE = 64 * limits.KIB
    defaults = LiveTree.__init__.__kwdefaults__
    assert defaults is not None
    defaults["seal_threads"] = 0


def work(request: Answer) -> Iterator[Answer]:
    """In the child: the counts of a run without a fault, then each case that is asked for."""
    logging.disable(logging.CRITICAL)
    small()
    scratch = Path(request["scratch"])
    point, content = template(str(scratch / "template"), request["seed"])
    yield {"point": point}
    for number, case in enumerate(request["cases"] or [""]):
        fault = parse(case) if case else None
        answer: Answer = {"case": case}
        place = scratch / f"case{number}"
        place.mkdir()
        try:
            answer |= _case(place, scratch / "template", point, content, fault, request["seed"])
        except verdict.Broken as error:
            answer["found"] = str(error)
        except Exception as error:  # noqa: BLE001  (whatever is no error of the family is a find)
            answer["found"] = f"{type(error).__name__} got out: {error}"
            answer["trace"] = _where(error)
        yield answer
        shutil.rmtree(place)


def _where(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error)[-8:])


def _case(
    place: Path, source: Path, point: str, content: dict[bytes, bytes], fault: Fault | None, seed: int
) -> Answer:  # fmt: skip
    store = place / "store"
    shutil.copytree(source, store)
    before = verdict.descriptors()
    system = FaultyOs(seed + 1)
    run = Run(str(store), place / "out", system)
    (place / "out").mkdir()
    run.model.states = [content]
    run.model.points[point] = content
    opening = dict(system.calls)
    system.fault = (
        fault._replace(number=fault.number + opening.get(fault.kind, 0)) if fault else None
    )
    rng = random.Random(seed)
    fill(run, rng, point)
    under_fault(run, place)
    counts = {kind: count - opening.get(kind, 0) for kind, count in system.calls.items()}
    told = sorted({one.slug for one in run.refusals})
    if fault is not None:
        verdict.refused_as(run, TOLD[fault.how])
    copy = place / "copy"
    shutil.copytree(store, copy)
    system.over = True
    if system.fired and fault is not None and fault.how != "short" and fault.kind not in SILENT:
        verdict.demand(bool(verdict.told(run, str(store))), f"no incident of {system.fired[0]}")
    verdict.after_crash(str(copy), run.model, place / "out")
    verdict.goes_on(run, rng)
    run.close()
    verdict.demand(not run.refusals or run.refusals[-1].step[:5] != "close", f"{run.refusals[-1:]}")
    left = verdict.descriptors() - before
    verdict.demand(not left, f"descriptors left open: {sorted(left)[:3]}")
    verdict.reopened(str(store), run, place / "out")
    return {"fired": len(system.fired), "told": told, "calls": counts}


def under_fault(run: Run, place: Path) -> None:
    """Reads of what is safe: each is right, or the engine says why not."""
    for name, data in list(run.model.now.items()):
        found = run.read(name)
        verdict.demand(found is None or found == data, f"read {name!r}: other bytes than accepted")
    for number, (point, tree) in enumerate(list(run.model.points.items())):
        if point not in run.model.removed:
            got = run.restore(point, f"under{number}")
            verdict.demand(got is None or got == tree, f"restore of {point}: other bytes")
            shutil.rmtree(run.target / f"under{number}", ignore_errors=True)


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
        for answer in _asked(job, seed, []):
            calls = answer.get("calls", calls)
        cases = every_case(calls)
        chosen = _spread(cases, round(len(cases) * part), job.random("cases", seed))
        names = [job.case.partition(":")[2]] if job.case else [str(case) for case in chosen]
        for answer in _asked(job, seed, names):
            if "case" in answer:
                job.count("faults" if answer["fired"] else "faults that were not met")
                job.count("of them told to a caller", bool(answer["told"]))


def _asked(job: Job, seed: int, cases: list[str]) -> Iterator[Answer]:
    scratch = job.scratch / f"{seed}-{bool(cases)}"
    scratch.mkdir()
    request = {"scratch": str(scratch), "seed": seed, "cases": cases}
    for answer in answers(job, __name__, request, silence=30):
        if "found" in answer:
            job.fail(f"{seed}:{answer['case']}", f"{answer['found']}\n{answer.get('trace', '')}")
        yield answer
    shutil.rmtree(scratch)


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
