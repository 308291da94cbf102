"""A sender that is killed: what was verified is not sent again, and what was not is little."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import Store, limits
from engine.copies import rows
from engine.copies.connect import Wanted, add
from engine.index import Table
from engine.keys import Key
from tests.restore.support import Maker

PACK = 2 << 20
SIZE = 40 << 20
SENDER = f"""
import sys
from engine import Store, limits
limits.SEALED_PACK, limits.SEALED_FIRST = {PACK}, {PACK // 4}
with Store.open(sys.argv[1]) as store:
    store.copies.send("far")
"""


def known(engine: Store) -> int:
    """Bytes of packs at the first location that the index has as verified."""
    with engine._open.context.index.read() as txn:
        packs = [rows.away_row(raw) for _, raw in txn.scan(Table.AWAY)]
    return sum(pack.size for pack in packs if pack.location == 1)


def test_verified_packs_are_not_sent_again(
    engine: Store, make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "there"
    place.mkdir()
    make.file(b"large", random.Random(1).randbytes(SIZE))
    point = make.point(engine)
    add(engine._open.context, "far", Wanted(f"file://{place}", [Key.new()]))
    engine.copies.change("far", bandwidth="16M")  # so that there is a middle
    killed, before = 0, 0
    while killed < 4:
        sender = subprocess.Popen([sys.executable, "-c", SENDER, engine.path])
        until = time.monotonic() + 30
        while known(engine) < before + PACK and sender.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        sender.send_signal(signal.SIGKILL)
        sender.wait()
        assert known(engine) > before
        before = known(engine)
        killed += 1
    monkeypatch.setattr(limits, "SEALED_PACK", PACK)
    engine.copies.change("far", bandwidth="")
    [done] = engine.copies.send("far")
    assert done.point == point and engine.copies.uploads("far")[0].state == "verified"
    assert known(engine) == before + done.bytes  # the rest, and no more
    files = (Path(folder) / name for folder, _, names in os.walk(place / "packs") for name in names)
    sent = sum(path.stat().st_size for path in files)
    # A pack that was put, and of which nobody learned, lies there beside: never more than were on their way.
    assert sent <= known(engine) + killed * (limits.UPLOADS + 1) * PACK
    (tmp_path / "near").mkdir()
    add(engine._open.context, "near", Wanted(f"file://{tmp_path}/near", [Key.new()]))
    [once] = engine.copies.send("near")
    assert once.bytes > SIZE and abs(known(engine) - once.bytes) < 0.01 * SIZE
