"""``python -m tools.torture.faults.victim SCRATCH SEED``: cases driven from outside, by whoever traces this process.

Each line of standard input is a word: ``begin`` opens a store, ``strike [readable]`` does the workload, ``over HOW
FIRED`` judges it.  Each answer is a line of JSON.  The index's map and its readers can be made short from within:
``map PAGES``, ``readers``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import HoldfastError, limits
from engine.index import Index
from tools.torture.bugs import plant_chosen
from tools.torture.faults.case import Case, Cases, judged, small
from tools.torture.faults.child import Answer

_PAGE = 4096


def say(answer: Answer) -> None:
    print(json.dumps(answer), flush=True)


def _map_size(size: int) -> None:
    defaults = Index.__init__.__kwdefaults__
    assert defaults is not None
    defaults["map_size"] = size


class Victim:
    """One case after the other."""

    def __init__(self, scratch: Path, seed: int) -> None:
        small()
        self.cases = Cases(scratch, seed)
        self.case: Case | None = None

    def begin(self) -> None:
        """A case whose store is open, so that what is struck is what it does with it."""
        self.case = self.cases.begin()
        say({"ready": os.getpid(), "store": self.case.store})

    def strike(self, readable: bool) -> Answer:
        assert self.case is not None
        self.case.strike(readable=readable)
        return {"told": self.case.told()}

    def judge(self, how: str, fired: str) -> Answer:
        assert self.case is not None
        told = self.case.told()
        self.case.judge(self.case.copy(), how, fired)
        self.case.end()
        return {"told": told}

    def full_map(self, pages: int) -> Answer:
        """The map ends so many pages behind what is used; then it is made larger, as another process may."""
        data = self.cases.source / "index" / "data.mdb"
        _map_size((data.stat().st_size // _PAGE + pages) * _PAGE)
        case = self.case = self.cases.begin()
        _map_size(limits.MAP_SIZE)
        case.strike(readable=True)
        env: Any = case.run.store._open.context.index._env
        env.set_mapsize(limits.MAP_SIZE)
        case.run.store._open.context.index._map_size = limits.MAP_SIZE
        return {"fired": case.told(), **self.judge("full", "the map" if case.told() else "")}

    def no_readers(self, after: int) -> Answer:
        """All slots of the reader table are taken when ``after`` changes were made."""
        case = self.case = self.cases.begin()
        with _taken(case, after):
            case.strike(readable=False)
        return self.judge("busy", "the reader table" if case.told() else "")


@contextmanager
def _taken(case: Case, after: int) -> Iterator[None]:
    index = case.run.store._open.context.index
    taken: list[Any] = []
    real = case.run.attempt

    def attempt(step: str, action: Any) -> bool:
        if len(case.run.model.states) > after and not taken:
            try:
                while True:
                    taken.append(index.read())
            except HoldfastError:
                pass
        return real(step, action)

    case.run.attempt = attempt  # type: ignore[method-assign]
    try:
        yield
    finally:
        del case.run.attempt
        while taken:  # LMDB's slot is free when nothing refers to the transaction any more
            taken.pop().__exit__(None, None, None)


def main() -> None:
    """Obey until the input ends."""
    plant_chosen()
    victim = Victim(Path(sys.argv[1]), int(sys.argv[2]))
    say({"victim": os.getpid()})
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "begin":
            victim.begin()
        elif word == "strike":
            say(judged("", lambda rest=rest: victim.strike(rest == ["readable"])))  # type: ignore[misc]
        elif word == "map":
            say(judged("", lambda rest=rest: victim.full_map(int(rest[0]))))  # type: ignore[misc]
        elif word == "readers":
            say(judged("", lambda rest=rest: victim.no_readers(int(rest[0]))))  # type: ignore[misc]
        else:
            say(judged("", lambda rest=rest: victim.judge(rest[0], " ".join(rest[1:]))))  # type: ignore[misc]
    os._exit(0)


if __name__ == "__main__":
    main()
