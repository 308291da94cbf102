"""LMDB does its own input and output: there the system itself is made to fail, by strace, call by call.

A process is traced while it works, and no more when the fault is over; it must then go on as it is.  The index's map
that is full at every page and its reader table that is full are made from within.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tools.torture.faults.child import Answer
from tools.torture.faults.place import in_memory
from tools.torture.rig import Job, Rig

SILENCE = 60.0  # s without an answer are a hang
LMDB = {
    "pwrite64": ("EIO", "ENOSPC", "EDQUOT", "EROFS", "short"),
    "pwritev": ("EIO", "ENOSPC", "short"),
    "fdatasync": ("EIO", "ENOSPC"),
}
"""Calls on the index's file, and how each can fail."""
STORE = {
    "pwrite64": ("ENOSPC",), "pwritev": ("EIO",), "fdatasync": ("EIO",), "fsync": ("EIO",),
    "ftruncate": ("EIO",), "rename": ("EIO",), "mkdir": ("ENOSPC",), "unlink": ("EIO",),
}  # fmt: skip
"""Calls on any file."""
REOPEN = ("openat", "fstat", "mmap", "pread64", "fcntl")
"""Calls by which the index is opened again after a commit that failed: these fail then, too."""
READERS = (2, 5, 9, 14, 19)  # changes after which the reader table is full
CASES = 1000  # of about 2,000 that there are
PAGES = 24  # so far behind what is used the index's map ends, at most


class Inject(NamedTuple):
    """``where``: index or store; ``then``: a call that fails as well when the index is opened again."""

    where: str
    call: str
    how: str
    number: int
    last: int
    then: str = ""

    def __str__(self) -> str:
        return "-".join(
            (self.where, self.call, self.how, str(self.number), str(self.last), self.then)
        )

    @classmethod
    def parse(cls, text: str) -> Inject:
        where, call, how, number, last, then = text.split("-")
        return cls(where, call, how, int(number), int(last), then)

    def options(self, store: str) -> list[str]:
        """Of strace."""
        what = "retval=512" if self.how == "short" else f"error={self.how}"
        found = ["-e", f"inject={self.call}:{what}:when={self.number}..{self.last}"]
        if self.then:
            found += ["-e", f"inject={self.then}:error=EIO:when=1..2"]
        if self.where == "index":
            found += ["-P", f"{store}/index/data.mdb"]
        return found


class Traced:
    """The victim, and strace when it is at it."""

    def __init__(self, job: Job, seed: int, scratch: Path) -> None:
        self._job = job
        self.case = ""
        self._errors = (job.scratch / "victim.err").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.torture.faults.victim", str(scratch), str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self._rest = b""
        self.answer()

    def tell(self, *words: object) -> Answer:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Answer:
        assert self._process.stdout is not None
        end = time.monotonic() + SILENCE
        while b"\n" not in self._rest:
            ready, _, _ = select.select(
                [self._process.stdout], [], [], max(0, end - time.monotonic())
            )
            if not ready:
                self._job.fail(self.case, f"no answer for {SILENCE:.0f} s: it hangs")
            more = os.read(self._process.stdout.fileno(), 1 << 16)
            if not more:
                self._job.fail(
                    self.case, f"the process ended ({self._process.wait()}): {self._said()}"
                )
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        answer: Answer = json.loads(line)
        if "found" in answer:
            self._job.fail(self.case, f"{answer['found']}\n{answer.get('trace', '')}")
        return answer

    def _said(self) -> str:
        return Path(self._errors.name).read_text(errors="replace")[-1500:]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()

    def traced(self, options: list[str], log: Path, readable: bool = True) -> Answer:
        """Strike while strace watches; its log is complete when this returns."""
        pid = self._process.pid
        command = ["strace", "-f", "-y", "-o", str(log), "-p", str(pid), *options]
        strace = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            assert strace.stderr is not None
            while b"attached" not in strace.stderr.readline():
                if strace.poll() is not None:
                    raise RuntimeError("strace does not attach")
            return self.tell("strike", *(["readable"] if readable else []))
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait(20)
            assert strace.stderr is not None
            strace.stderr.close()


def counted(log: Path) -> Counter[str]:
    """Calls in a log of strace."""
    return Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(errors="replace"), re.MULTILINE))


def injected(log: Path, store: str) -> int:
    """How many were made to fail on files of the store; a restore's target has files too."""
    lines = log.read_text(errors="replace").splitlines()
    return sum("(INJECTED)" in line and store in line for line in lines)


def every_case(index: Counter[str], store: Counter[str]) -> list[Inject]:
    """Each call once, a few of them in a row, and the index that cannot be opened again."""
    found = []
    for where, calls, ways in (("index", index, LMDB), ("store", store, STORE)):
        for call, hows in ways.items():
            for number in range(1, calls[call] + 1):
                for how in hows:
                    found.append(Inject(where, call, how, number, number))
                    if how != "short":
                        found.append(Inject(where, call, how, number, number + 12))
                if where == "index" and call == "pwrite64":
                    found += [Inject(where, call, "EIO", number, number, then) for then in REOPEN]
    return found


def run(job: Job) -> None:
    """Calls are counted first; then many of them fail."""
    with in_memory(job) as scratch:
        _run(job, scratch)


def _run(job: Job, scratch: Path) -> None:
    victim = Traced(job, job.seed, scratch)
    try:
        _within(job, victim)
        counts = []
        for where in ("index", "store"):
            store = victim.tell("begin")["store"]
            log = job.scratch / f"{where}.log"
            calls = LMDB if where == "index" else STORE
            options = ["-e", f"trace={','.join(calls)}"]
            victim.traced(
                [*options, *(["-P", f"{store}/index/data.mdb"] if where == "index" else [])], log
            )
            victim.tell("over", "short")
            counts.append(counted(log))
        cases = every_case(*counts)
        rng = job.random("cases")
        rng.shuffle(cases)
        first = {(case.where, case.call, case.how): case for case in cases}
        chosen = list(dict.fromkeys([*first.values(), *cases]))[: job.size(CASES, 8)]
        for case in [Inject.parse(job.case)] if job.case[:5] in ("index", "store") else chosen:
            if job.wants(case):
                _one(job, victim, case)
    finally:
        victim.end()


def _within(job: Job, victim: Traced) -> None:
    pages = sorted(job.random("pages").sample(range(1, PAGES), job.size(PAGES - 1, 2)))
    for words in [*(("map", n) for n in pages), *(("readers", n) for n in READERS[: job.size(5)])]:
        victim.case = f"{words[0]}-{words[1]}"
        if job.wants(victim.case):
            told = victim.tell(*words)["told"]
            job.count("fault within the index" if told else "room enough in the index")


def _one(job: Job, victim: Traced, case: Inject) -> None:
    victim.case = str(case)
    store = victim.tell("begin")["store"]
    log = job.scratch / "case.log"
    # A call on any file may be on the target of a restore.
    victim.traced(case.options(store), log, readable=case.where == "index" and not case.then)
    fired = injected(log, store)
    how = "EIO" if case.how == "short" else case.how  # LMDB tells a short write as EIO
    victim.tell("over", how, f"{case.call} that failed" if fired else "")
    job.count("system calls that failed", fired)
    job.count("cases")


RIGS = (
    Rig(
        "faults-inject",
        "the system calls of the index and the store fail, one by one (strace); its map and readers run out",
        run,
        needs=("strace",),
        bugs=("index-left-broken", "incidents-forgotten"),
        teeth=0.03,
        test=0.02,
    ),
)
