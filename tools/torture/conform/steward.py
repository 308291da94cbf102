"""``python -m tools.torture.conform.steward STORE``: makes a store, its points, and checks it, as it is told.

Each line of its input is a JSON list, the request and its arguments; each line of its output ``[ok, answer]``.
"""

from __future__ import annotations

import json
import sys

import fsmount
from engine import Store
from engine.errors import HoldfastError
from tools.torture.bugs import plant_chosen
from tools.torture.conform.places import NAME


def make(path: str) -> None:
    """A new store with one mount."""
    Store.init(path)
    with Store.open(path) as store:
        store.create_mount(NAME)


def snapshot(path: str) -> str:
    """A point of the live tree as it is now, mounted, as ``holdfast snapshot`` makes it."""
    with Store.open(path) as store, fsmount.client(path, NAME) as client:
        client.request("freeze")

        def thaw() -> None:
            client.request("thaw")

        return store.snapshot(NAME, thaw=thaw).id


def check(path: str) -> list[str]:
    """What is wrong with the store."""
    with Store.open(path) as store:
        return [str(problem) for problem in store.check(read_data=True).problems]


def restore(path: str, point: str, target: str) -> list[str]:
    """Restore a whole point; what could not be."""
    with Store.open(path) as store:
        report = store.restore(point, b"", target.encode())
        return [str(notice) for notice in (*report.damaged, *report.skipped)]


REQUESTS = {"make": make, "snapshot": snapshot, "check": check, "restore": restore}


def main() -> None:
    """Serve until the input ends."""
    plant_chosen()
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        try:
            answer = [True, REQUESTS[what](sys.argv[1], *arguments)]  # type: ignore[operator]
        except HoldfastError as error:
            answer = [False, str(error)]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
