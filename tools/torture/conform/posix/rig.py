"""The rig ``conform-posix``: every rule of the table on a mount, and on ext4 as the control."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tools.torture.conform.places import Broken, Mounted, control
from tools.torture.conform.posix import access, files, names, paths, times
from tools.torture.conform.posix.calls import carry_out
from tools.torture.conform.posix.rules import USERS, Rule
from tools.torture.conform.posix.users import Agent
from tools.torture.rig import Job, Rig

BATCH = 400  # rules prepared, then carried out, then examined together
# What depends on who keeps pages and times: asked again of a mount whose kernel gathers no writes.
OTHER_MODE = (times.rules, files.rules, access.set_ids)
TICKS = 0.012  # s: three ticks of the kernel's coarse clock
FIELDS = (("a", "st_atime_ns"), ("m", "st_mtime_ns"), ("c", "st_ctime_ns"))


def table() -> list[Rule]:
    """Every rule, each name once."""
    found = [rule for module in (access, paths, names, times, files) for rule in module.rules()]
    assert len({rule.name for rule in found}) == len(found), "a rule's name stands twice"
    return found


def fits(answer: Any, want: Any) -> bool:
    """Whether an answer is what the rule wants."""
    refused = isinstance(answer, str) and answer in errno.errorcode.values()
    if want is ...:
        return not refused
    if isinstance(want, str):
        return answer in want.split("|")
    return bool(answer == want)


class Examiner:
    """Carries rules out in one place. ``other`` is a file on another file system."""

    def __init__(self, base: Path, other: Path, agents: dict[str, Agent], *, ours: bool) -> None:
        self._base = base
        self._top = str(base)
        self._other = str(other)
        self._agents = agents
        self._ours = ours
        self._number = 0

    def examine(self, rules: Sequence[Rule]) -> dict[str, str]:
        """What is wrong, by the names of the rules."""
        wrong: dict[str, str] = {}
        for start in range(0, len(rules), BATCH):
            wrong.update(self._batch(rules[start : start + BATCH]))
        return wrong

    def _batch(self, rules: Sequence[Rule]) -> dict[str, str]:
        places = [self._prepare(rule) for rule in rules]
        before = [
            {spec: os.lstat(os.path.join(place, spec.partition(">")[0])) for spec, _ in rule.moved}
            for rule, place in zip(rules, places, strict=True)
        ]
        time.sleep(TICKS)
        answers: dict[str, Any] = {}
        for who, agent in self._agents.items():
            mine = [(r, place) for r, place in zip(rules, places, strict=True) if r.who == who]
            work = [(place, self._meant(r.calls)) for r, place in mine]
            for (r, _), answer in zip(mine, agent.do(work), strict=True):
                answers[r.name] = answer
        wrong = {}
        for rule, place, old in zip(rules, places, before, strict=True):
            complaint = self._judge(rule, place, answers[rule.name], old)
            if complaint:
                wrong[rule.name] = f"{complaint} ({rule.why})"
        return wrong

    def _meant(self, calls: Iterable[tuple[Any, ...]]) -> tuple[tuple[Any, ...], ...]:
        """Calls with the places that depend on the file system filled in."""
        return tuple(
            tuple(
                one.replace("%other%", self._other).replace("%top%", self._top)
                if isinstance(one, str) else one
                for one in call
            )
            for call in calls
        )  # fmt: skip

    def _prepare(self, rule: Rule) -> str:
        self._number += 1
        place = f"{self._top}/{self._number:05}"
        os.mkdir(place, 0o755)
        os.chdir(place)
        for call in rule.setup:
            answer = carry_out((call,))
            if not fits(answer, ...):
                raise Broken(f"{place}: {rule.name}: preparing {call}: {answer}")
        os.chdir("/")
        return place

    def _judge(self, rule: Rule, place: str, answer: Any, before: dict[str, os.stat_result]) -> str:
        want = rule.want
        if rule.instead is not None and self._ours:
            want = rule.instead[0]
        said = f"{rule.who}: {' '.join(map(_short, rule.calls))}"
        if not fits(answer, want):
            return f"{said}: {_short(answer)} instead of {_short(want)}"
        os.chdir(place)
        try:
            for call, value in rule.then:
                found = carry_out((call,))
                if not fits(found, value):
                    return (
                        f"{said}: then {_short(call)} is {_short(found)} instead of {_short(value)}"
                    )
            for spec, moved in rule.moved:
                now = os.lstat(spec.rpartition(">")[2])
                for letter, field in FIELDS:
                    old, new = getattr(before[spec], field), getattr(now, field)
                    if (old != new) != (letter in moved):
                        how = "moved" if old != new else "stayed"
                        return f"{said}: the {letter}time of {spec} {how}: {old} {new}"
        finally:
            os.chdir("/")
        return ""


def _short(thing: Any) -> str:
    text = "success" if thing is ... else repr(thing)
    return text if len(text) < 200 else f"{text[:120]} … {text[-40:]}"


def run(job: Job) -> None:
    """The whole table; of a smaller size every so many-th rule."""
    rules = [rule for rule in table() if job.wants(rule.name)]
    if not job.case and job.scale < 1:
        rules = rules[:: max(1, round(1 / job.scale))]
    other_mode = {rule.name for part in OTHER_MODE for rule in part()}
    agents = {name: Agent(user) for name, user in USERS.items()}
    mask = os.umask(0)
    try:
        with control(job.scratch / "c") as there, Mounted(job.scratch / "h") as mounted:
            for path in (job.scratch, job.scratch / "c", job.scratch / "h", there, mounted.path):
                os.chmod(path, 0o755)
            (there / "other").touch()
            (mounted.path / "other").touch()
            began = time.monotonic()
            wrong = Examiner(there, mounted.path / "other", agents, ours=False).examine(rules)
            if wrong:
                raise Broken(
                    "rules that ext4 breaks: " + "\n".join(f"{k}: {v}" for k, v in wrong.items())
                )
            middle = time.monotonic()
            found = Examiner(mounted.path, there / "other", agents, ours=True).examine(rules)
            job.count("rules of POSIX", len(rules))
            job.note(f"ext4 {middle - began:.1f} s, mount {time.monotonic() - middle:.1f} s")
            for name, complaint in found.items():
                more = (
                    f"; {len(found) - 1} more: {', '.join(list(found)[1:6])}"
                    if len(found) > 1
                    else ""
                )
                job.fail(name, f"{name}: {complaint}{more}")
            mounted.remount("--write-through")
            os.chmod(mounted.path, 0o755)
            (mounted.path / "second").mkdir()
            again = [rule for rule in table() if rule.name in other_mode and job.wants(rule.name)]
            examiner = Examiner(mounted.path / "second", there / "other", agents, ours=True)
            found = examiner.examine(again)
            job.count("rules with --write-through", len(again))
            for name, complaint in found.items():
                job.fail(name, f"with --write-through: {name}: {complaint}")
            mounted.verify()
    finally:
        os.umask(mask)
        for agent in agents.values():
            agent.end()


RIGS = (
    Rig(
        "conform-posix",
        "a table of what POSIX says of every call, as several users",
        run,
        needs=("fuse", "root", "loop"),
        test=1.0,
        bugs=(
            "conform-rename-ctime",
            "conform-no-sticky",
            "kernel checks nothing",
            "conform-set-id-kept",
            "conform-mkdir-count",
            "conform-times-kept",
        ),
        teeth=0.15,
    ),
)
