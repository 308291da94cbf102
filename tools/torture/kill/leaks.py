"""What may be left when nobody uses a store any more, and what while some do: nothing that belongs to the dead."""

from __future__ import annotations

import os
import time
from pathlib import Path

from engine import Store
from engine.index import Table, gcstate
from engine.index.gcstate import Phase
from engine.index.rows import PACK_DOOMED, PACK_OPEN, U64, pack_row
from tools.torture.kill.commands import mounts, processes

_PATIENCE = 10.0  # s for helpers of a dead restore to see that nobody asks them any more
SEGMENTS = (
    12  # more than processes that wrote at once, two kinds each: older ones were to be gone on with
)


def while_served(home: Path, alive: dict[str, int]) -> str:
    """What is left of the dead beside the living: mounts, processes, sockets. ``alive``: mount -> worker."""
    store = home / "store"
    places = sorted(mounts(home))
    if places != sorted(str(home / name) for name in alive):
        return f"mounted are {places}, served {sorted(alive)}"
    left = others(home, set(alive.values()))
    if left:
        return f"processes left: {left}"
    sockets = {name for name in os.listdir(store / "run") if name.endswith(".sock")}
    if sockets != {f"{name}.sock" for name in alive}:
        return f"control sockets left: {sorted(sockets)}"
    return ""


def others(home: Path, known: set[int]) -> dict[int, str]:
    """Processes of a store that are not these, and stay."""
    end = time.monotonic() + _PATIENCE
    while True:
        left = {pid: words for pid, words in processes(home).items() if pid not in known}
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)


def at_rest(home: Path) -> str:
    """What is left of the dead after everything ended and a collection ran; empty when nothing is."""
    found = while_served(home, {})
    if found:
        return found
    store = home / "store"
    for folder in ("workers", "quarantine"):
        names = os.listdir(store / folder)
        if names:
            return f"left in {folder}: {sorted(names)}"
    names = [name for name in os.listdir(store) if ".tmp-" in name or name == "index.new"]
    if names:
        return f"temporary files left: {names}"
    with Store.open(str(store)) as opened:
        return _in_index(opened, store)


def _in_index(opened: Store, store: Path) -> str:
    index = opened._open.context.index
    readers = [line.split()[0] for line in index._env.readers().splitlines()[1:]]
    dead = [pid for pid in readers if pid.isdecimal() and not os.path.exists(f"/proc/{pid}")]
    if dead:
        return f"reader slots of dead processes {dead}"
    with index.read() as txn:
        for table in (Table.WORKERS, Table.PINS):
            if txn.count(table):
                return f"{txn.count(table)} rows left in {table.name}"
        owner = txn.get(Table.META, b"gc_worker")
        if owner is not None or gcstate.load(txn).phase != Phase.IDLE:
            return f"a collection of worker {owner and U64.unpack(owner)[0]} is left"
        served = [mount.name for mount in opened.mounts() if mount.worker]
        if served:
            return f"mounts still claimed: {served}"
        packs = [pack_row(raw) for _, raw in txn.scan(Table.PACKS)]
    if any(row.state == PACK_DOOMED for row in packs):
        return "doomed packs are left"
    unsealed = [row for row in packs if row.state == PACK_OPEN]
    files = os.listdir(store / "segments")
    if len(files) > SEGMENTS:
        return f"{len(files)} segments, {len(unsealed)} of them of the dead: they were to be gone on with"  # fmt: skip
    rows = sum(1 for row in packs if row.state in (1, 2))
    if rows != len(files):
        return f"{rows} rows of segments, {len(files)} files"
    return ""
