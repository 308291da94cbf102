"""What the tests of keys share: a cost that takes no time, and randomness that can be told."""

import hashlib

from engine.keys.primitives import Cost
from engine.seam import Os

CHEAP = Cost(memory_kib=8, passes=1, lanes=1)
LOCATION = bytes(range(16))
ID_KEY = bytes(range(100, 132))


class Counted(Os):
    """Random bytes that are the same in every run, and never twice the same in one."""

    def __init__(self) -> None:
        self.calls = 0

    def random(self, count: int) -> bytes:
        self.calls += 1
        return hashlib.shake_256(self.calls.to_bytes(4, "big")).digest(count)
