"""A sender that is killed: what was verified is not sent again, and what was not is little."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from engine import Store, limits
from engine.copies import rows
from engine.copies.connect import Wanted, add
from engine.index import Table
from engine.keys import Key
from tests.locations.places import Place
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
    engine: Store,
    make: Maker,
    place: Place,
    another: Callable[[], Place],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make.file(b"large", random.Random(1).randbytes(SIZE))
    point = make.point(engine)
    add(engine._open.context, "far", Wanted(place.url, [Key.new()]))
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
    sent = place.size("packs/")
    # A pack that was put, and of which nobody learned, lies there beside: never more than were on their way.
    assert sent <= known(engine) + killed * (limits.UPLOADS + 1) * PACK
    add(engine._open.context, "near", Wanted(another().url, [Key.new()]))
    [once] = engine.copies.send("near")
    assert once.bytes > SIZE and abs(known(engine) - once.bytes) < 0.01 * SIZE
