"""Trees deeper than a program's stack, and than any path: nothing that looks at them gives up or takes for ever."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from engine import Store
from engine.live import ROOT
from tests.maintain.support import CTX

DEPTH = 4_200  # over limits.DEPTH_MAX, and over any recursion limit


def grow(store: Store) -> None:
    tree = store.open_live("m")
    above = ROOT
    for _ in range(DEPTH):
        above = tree.mkdir(above, b"d", 0o755, CTX).ino
    file = tree.create(above, b"file", 0o644, CTX).ino
    tree.opened(file, os.O_RDWR)
    tree.write(file, 0, os.urandom(5000))
    tree.released(file)
    tree.close()


def test_a_deep_tree_is_checked_compared_and_restored(store: Store, home: Path) -> None:
    empty = store.snapshot("m")
    grow(store)
    point = store.snapshot("m")
    began = time.process_time()
    assert store.check(read_data=True).problems == []
    added = list(store.diff(empty.id, point.id))
    assert len(added) == DEPTH + 1 and added[-1].path.count(b"/") == DEPTH
    out = f"{home}.out"
    try:
        report = store.restore(point.id, b"", os.fsencode(out))
    finally:
        subprocess.run(["rm", "-rf", out], check=True)  # too deep for shutil
    assert report.files == DEPTH + 1 and not report.damaged
    assert time.process_time() - began < 15, "each step of the way is gone once, not once per level"


def test_damage_at_the_end_of_a_deep_tree_is_named(store: Store, home: Path) -> None:
    grow(store)
    point = store.snapshot("m")
    for pack in [*home.glob("segments/*"), *home.glob("packs/*/*")]:
        data = bytearray(pack.read_bytes())
        if data[28] == 1:  # data, not nodes
            data[-100] ^= 1
            pack.write_bytes(data)
    found = [p for p in store.check(read_data=True).problems if p.code == "file"]
    assert len(found) == 1 and found[0].thing.startswith(f"point {point.id}: d/d/d")
