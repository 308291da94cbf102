"""One mount filled, hung or under attack; the speed of another mount of the store beside it.

A fixed job on the victim's mount is timed alone, beside an attacker on its own store, and beside one as busy on another
store, in turn, round after round.  What sharing the store costs is the second against the third: both attackers take
the same from the machine.  Both ratios are kept; the first must be 0.8 or better, by the median.  While it looks worse
more rounds are measured, so that a busy machine is not taken for a blocked store.  At test size, with few rounds and
perhaps other tests beside, the better quartile may acquit: a store that blocks has no better quartile.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from engine import limits
from tools.torture.rig import Job, Rig
from tools.torture.users.attacks import ATTACKS, Attack, Attacker
from tools.torture.users.ground import Ground, ground

KEPT = 0.8  # of their speed
HOPELESS = 0.4  # below this, after the first rounds, there is no need for more
ROUNDS = 5  # at full size; a median of fewer means little
MORE = 3  # times as many rounds at most, before the verdict
STREAM = 24  # MiB at full size
SMALL = 300  # small files at full size
MIB = limits.MIB


def victim(where: Path, size: float, seed: int) -> float:
    """The job: a stream with syncs, small files, some synced, all read again and removed. Seconds it took."""
    data = random.Random(seed).randbytes(MIB)
    began = time.perf_counter()
    with (where / "stream").open("wb", buffering=0) as file:
        for number in range(max(4, round(STREAM * size))):
            file.write(number.to_bytes(8, "big") + data[8:])
            if number % 4 == 3:
                os.fsync(file.fileno())
    for number in range(max(40, round(SMALL * size))):
        with (where / str(number)).open("wb", buffering=0) as file:
            file.write(number.to_bytes(8, "big") + data[number : number + 4088])
            if not number % 20:
                os.fsync(file.fileno())
    for name in os.listdir(where):
        with (where / name).open("rb", buffering=0) as file:
            while file.read(MIB):
                pass
        (where / name).unlink()
    return time.perf_counter() - began


class Times:
    """Seconds of the victim's job, by condition."""

    def __init__(self) -> None:
        self.alone: list[float] = []
        self.beside: list[float] = []
        self.apart: list[float] = []

    @property
    def shared(self) -> float:
        """Speed beside an attacker on the same store, to that beside one on another."""
        pairs = zip(self.apart, self.beside, strict=True)
        return statistics.median(apart / beside for apart, beside in pairs)

    @property
    def undisturbed(self) -> float:
        """The same of the better rounds alone: with few rounds on a machine that has other work, what can be told."""
        return _better(self.apart) / _better(self.beside)

    @property
    def whole(self) -> float:
        """Speed beside an attacker on the same store, to that alone: the machine's share included."""
        pairs = zip(self.alone, self.beside, strict=True)
        return statistics.median(alone / beside for alone, beside in pairs)


def _measure(job: Job, attack: Attack, place: Ground, other: Ground, where: Path) -> Times:
    with ExitStack() as stack:
        near, far = Attacker(attack, place), Attacker(attack, other)
        stack.callback(near.kill)
        stack.callback(far.kill)
        times = _rounds(job, attack, where, near, far)
        near.end()
        far.end()
    return times


def _rounds(job: Job, attack: Attack, where: Path, near: Attacker, far: Attacker) -> Times:
    times = Times()
    part = min(1.0, max(0.25, job.scale))
    rounds = max(3, job.size(ROUNDS))
    chance = job.random(attack.name)
    for number in range(rounds * MORE):
        turns = [(times.alone, None), (times.beside, near), (times.apart, far)]
        chance.shuffle(turns)
        for kept, attacker in turns:
            if attacker is not None:
                attacker.go()
            kept.append(victim(where, part, chance.getrandbits(40)))
            if attacker is not None:
                attacker.pause()
        job.count("rounds")
        ratio = _verdict(job, times)
        if number + 1 >= rounds and (ratio >= KEPT or ratio < HOPELESS):
            break
    return times


def _better(times: list[float]) -> float:
    """The lower quartile."""
    return sorted(times)[len(times) // 4]


def _verdict(job: Job, times: Times) -> float:
    """The median at full size; in a suite of tests, which may run beside others, the better of both."""
    return times.shared if job.scale >= 0.5 else max(times.shared, times.undisturbed)


def chosen(job: Job) -> list[Attack]:
    """All attacks, or at small scale the first and two others, which depend on the seed."""
    if job.case or job.scale >= 0.1:
        return [attack for attack in ATTACKS if job.wants(attack.name)]
    return [ATTACKS[0], *job.random("attacks").sample(ATTACKS[1:], 2)]


def run(job: Job) -> None:
    """Every attack in turn, on stores of their own."""
    os.chmod(job.scratch, 0o711)  # attackers are other users
    for attack in chosen(job):
        base = job.scratch / attack.name.replace(" ", "-")
        base.mkdir()
        with ground(base / "near") as place, ground(base / "far") as other:
            attack.lay(place, other, job.size(attack.full) if attack.full else 0)
            place.create("victim")
            mounted = place.mount("victim")
            victim(mounted.where, 0.25, 0)  # warm
            times = _measure(job, attack, place, other, mounted.where)
            mounted.end()
            job.count("attacks")
            text = (
                f"{attack.name} {times.shared:.2f} of a busy machine's, {times.whole:.2f} of alone"
            )
            job.note(text)
            job.say(f"{text} ({statistics.median(times.alone):.2f} s alone)")
            if _verdict(job, times) < KEPT:
                job.fail(attack.name, f"a mount beside one under attack: {text}")
            problems = place.problems()
            if problems:
                job.fail(attack.name, f"check finds {problems[:3]}")


RIGS = (
    Rig(
        "users-neighbours",
        "a mount that is filled, hung or under attack leaves the others at 0.8 of their speed",
        run,
        needs=("root", "fuse"),
        bugs=("transaction held while waiting",),
        teeth=0.01,
        test=0.02,
        alone=True,
    ),
)
