"""What is killed at a request: one piece of work with a location, in a process of its own (``tests.warm``)."""

from __future__ import annotations

import sys

from engine import Store
from engine.maintain.planning import Terms
from tests.copies.test_upload import SECRET


def main() -> None:
    """``send STORE``, ``reclaim STORE``, ``adopt NEW URL`` or ``take-over STORE``."""
    work, path, *url = sys.argv[1:]
    if work == "adopt":
        Store.adopt(path, url[0], SECRET, take_over=True)
        return
    with Store.open(path) as store:
        if work == "take-over":
            store.copies.take_over("origin")
        elif work == "send":
            store.copies.send("far")
        else:
            assert store.copies.reclaim("far", Terms(grace_s=0)).done
