"""The state of the collection, as every commit sees it: META row ``gc`` = (epoch u64, phase u8)."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from engine.errors import Corrupt
from engine.index.env import Txn
from engine.index.tables import Table

_STATE = struct.Struct(">QB")
_KEY = b"gc"


class Phase(enum.IntEnum):
    """Phases of a collection, in order (ARCHITECTURE.md, "Collection beside writers")."""

    IDLE = 0
    MARKING = 1
    CONDEMNED = 2


class GcState(NamedTuple):
    """Which collection, and how far it is."""

    epoch: int
    phase: Phase


def load(txn: Txn) -> GcState:
    raw = txn.get(Table.META, _KEY)
    if raw is None:
        return GcState(0, Phase.IDLE)
    try:
        epoch, phase = _STATE.unpack(raw)
        return GcState(epoch, Phase(phase))
    except (struct.error, ValueError):
        raise Corrupt("index row meta/gc", expected="a collection state", found=raw.hex()) from None


def save(txn: Txn, state: GcState) -> None:
    txn.put(Table.META, _KEY, _STATE.pack(state.epoch, state.phase))
