"""Many threads in one tree over the real engine: nothing is lost, nothing waits for ever."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine import limits
from engine.live import LiveTree
from tests.live.rig import CTX, EngineRig, content, names


def run_all(workers: list[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


def work(tree: LiveTree, number: int, wanted: dict[bytes, bytes]) -> None:
    """A person at work in a directory of their own; ``wanted`` gets what is in it at the end."""
    chance = random.Random(number)
    home = tree.mkdir(1, b"home-%d" % number, 0o755, CTX).ino
    mine: dict[bytes, tuple[int, bytearray]] = {}
    for step in range(150):
        action = chance.random()
        if action < 0.4 or not mine:
            name = b"f%d" % step
            ino = tree.create(home, name, 0o600, CTX).ino
            data = bytearray(chance.randbytes(chance.choice([10, 8192, 300_000, 2_500_000])))
            tree.opened(ino, 2)
            tree.write(ino, 0, bytes(data))
            tree.released(ino)
            mine[name] = (ino, data)
            if tree.over_limit():
                tree.wait_room()
            continue
        name = chance.choice(sorted(mine))
        ino, data = mine[name]
        if action < 0.6:
            at = chance.randrange(len(data))
            piece = chance.randbytes(min(4096, len(data) - at))
            data[at : at + len(piece)] = piece
            tree.write(ino, at, piece)
        elif action < 0.7:
            tree.fsync(ino)
        elif action < 0.8:
            new = b"r%d" % step
            tree.rename(home, name, home, new)
            mine[new] = mine.pop(name)
        elif action < 0.9:
            tree.unlink(home, name)
            tree.forgotten(ino)
            del mine[name]
        else:
            at = chance.randrange(len(data))
            assert tree.read(ino, at, 5000) == data[at : at + 5000]
    tree.barrier()
    wanted.update({b"%d/%b" % (number, name): bytes(data) for name, (_, data) in mine.items()})


def test_writers_readers_and_fsyncs_beside_each_other(
    rigs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COMMIT_ROWS", 40)
    monkeypatch.setattr(limits, "DIRTY_MAX", 6 * limits.MIB)
    monkeypatch.setattr(limits, "DIRTY_SEAL", 2 * limits.MIB)
    rig = rigs(lambda: EngineRig(tmp_path, seal_threads=2))
    tree = rig.tree
    wanted: dict[bytes, bytes] = {}
    stop = threading.Event()

    def ticker() -> None:
        while not stop.wait(0.02):
            rig.time.wait(1.0)
            tree.tick()

    with ThreadPoolExecutor(1) as background:
        background.submit(ticker)
        try:
            run_all([lambda n=n: work(tree, n, wanted) for n in range(4)])
        finally:
            stop.set()
    assert tree._contents.dirty_bytes == 0
    tree = rig.crash()
    found = {
        b"%d/%b" % (number, name): content(tree, ino)
        for number in range(4)
        for name, ino in names(tree, tree.lookup(1, b"home-%d" % number).ino).items()
    }
    assert found == wanted
