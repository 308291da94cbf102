"""A worker over an in-memory tree in a process of its own, told over its standard input what the tree is to do.

Run as ``python -m tests.fsmount.host REQUEST``; the request is JSON: where, options, folder.
Each input line is a Python literal: ``(command, argument…)``; each output line the literal of the answer.
"""

from __future__ import annotations

import ast
import errno
import json
import logging
import os
import sys
import threading
from typing import Any

from engine.errors import Corrupt, HoldfastError, NotFound, PosixError, QuotaExceeded, StoreFull
from fsmount import background, running
from fsmount.options import Options
from fsmount.pointfs import View
from fsmount.snapdir import Named
from fsmount.subject import Subject
from tests.fsmount.mempoint import MemView
from tests.fsmount.memtree import MemTree

ERRORS = {
    "full": StoreFull("store", found="no room"),
    "quota": QuotaExceeded("mount", found="no room"),
    "corrupt": Corrupt("chunk ab12"),
    "bug": ValueError("a bug"),
    "mlink": PosixError(errno.EMLINK),
    "os": OSError(errno.ENOENT, "internal file"),
}


class MemPoints:
    """Recovery points made from the live tree as it is when asked."""

    def __init__(self, tree: MemTree) -> None:
        self.tree = tree
        self.views: dict[bytes, MemView] = {}

    def make(self, name: bytes) -> None:
        self.views[name] = MemView.of(self.tree)

    def names(self) -> list[Named]:
        return [
            Named(name, number, 1_700_000_000_000_000_000, view.root_entry)
            for number, (name, view) in enumerate(self.views.items(), 1)
        ]

    def view(self, name: bytes, location: str = "") -> View:
        try:
            return self.views[name]
        except KeyError:
            raise NotFound(f"point {name!r}") from None


def obey(tree: MemTree, points: MemPoints, command: str, *arguments: Any) -> Any:
    """Carry out one line of the test's."""
    if command == "arrived":
        return tree.arrived
    if command == "calls":
        return tree.calls.get(arguments[0], 0)
    if command == "hold":
        tree.slow[arguments[0]] = threading.Event()
    elif command == "let":
        tree.slow.pop(arguments[0]).set()
    elif command == "fail":
        tree.fail[arguments[0]] = ERRORS[arguments[1]]
    elif command == "mend":
        del tree.fail[arguments[0]]
    elif command == "inodes":
        return len(tree.inodes)
    elif command == "content":
        node = tree.inodes[tree.inodes[1].names[arguments[0]][0]]
        return bytes(node.data)
    elif command == "full":
        tree.full = arguments[0]
    elif command == "point":
        points.make(arguments[0])
    elif command == "unpoint":
        del points.views[arguments[0]]
    else:
        raise AssertionError(command)
    return None


def say(answer: Any) -> None:
    """One line to the test."""
    sys.stdout.write(f"{answer!r}\n")
    sys.stdout.flush()


def main() -> int:
    """Serve; the exit code is the error's, and a file says whether the tree was closed properly."""
    request = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO)
    tree = MemTree()
    points = MemPoints(tree)

    def listen() -> None:
        for line in sys.stdin:
            say(obey(tree, points, *ast.literal_eval(line)))

    if not request.get("deaf"):
        threading.Thread(target=listen, daemon=True).start()
    if request.get("point"):
        view = MemView.of(tree)
        subject = Subject("mem", "mem#mem@point", request["folder"], view=view)
    else:
        subject = Subject("mem", "mem#mem", request["folder"], tree=tree, points=points)

    def ready() -> None:
        if "ready_fd" in request:
            background.tell(request["ready_fd"], {"pid": os.getpid()})
        else:
            say("ready")

    try:
        running.run(subject, request["where"], Options(**request.get("options", {})), ready)
    except HoldfastError as error:
        if "ready_fd" in request:
            background.tell(request["ready_fd"], {"kind": error.kind.slug, "message": str(error)})
        logging.getLogger("holdfast").error("%s", error)
        return error.kind.exit
    if tree.closed:
        with open(os.path.join(request["folder"], "closed"), "w", encoding="ascii") as file:
            file.write(str(tree.arrived))
    return 0


if __name__ == "__main__":
    sys.exit(main())
