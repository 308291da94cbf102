"""All rigs, in the order they run. A module of a rig has ``RIGS``, a tuple of them."""

from __future__ import annotations

import importlib

from tools.torture.rig import Rig

# One line a module, in the order of the sections: crash, kill, faults, corruption, conformance, space, users.
MODULES: tuple[str, ...] = (
    "tools.torture.faults.seam",
    "tools.torture.faults.inject",
    "tools.torture.faults.full",
    "tools.torture.faults.process",
)


def rigs() -> dict[str, Rig]:
    """Every rig by its name."""
    found: dict[str, Rig] = {}
    for name in MODULES:
        for rig in importlib.import_module(name).RIGS:
            assert rig.name not in found, rig.name
            found[rig.name] = rig
    return found
