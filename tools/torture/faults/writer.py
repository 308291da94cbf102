"""``python -m tools.torture.faults.writer DIR SEED SIZE``: writes and syncs files in a mount, tells how it went.

Lines: ``ack N`` after an fsync that succeeded, ``err STEP ERRNO`` for what the system refused, ``bad N`` when a file
that was acknowledged reads as something else.  A file that failed is written anew under its number until it succeeds.
"""

from __future__ import annotations

import os
import random
import sys
import time

PAUSE = 0.02  # s after an error


def content(seed: int, number: int, size: int) -> bytes:
    """What file ``number`` is to hold: up to ``size`` bytes."""
    rng = random.Random(seed * 1_000_003 + number)
    return rng.randbytes(rng.randrange(1, size))


def say(*words: object) -> None:
    print(*words, flush=True)


def put(path: str, data: bytes) -> str:
    """Write and sync; which step failed, "" when none did. Raises OSError."""
    step = "open"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            step = "write"
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            step = "fsync"
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        say("err", step, error.errno)
        return step
    return ""


def main() -> None:
    """Until killed."""
    folder, seed, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    number = 0
    while True:
        path = f"{folder}/f{number:06d}"
        while put(path, content(seed, number, size)):
            time.sleep(PAUSE)
        say("ack", number)
        number += 1
        old = chance.randrange(number)
        try:
            with open(f"{folder}/f{old:06d}", "rb") as file:
                if file.read() != content(seed, old, size):
                    say("bad", old)
        except OSError as error:
            say("err", "read", error.errno)


if __name__ == "__main__":
    main()
