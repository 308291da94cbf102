"""All rigs, in the order they run. A module of a rig has ``RIGS``, a tuple of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from tools.torture.rig import Rig

# One line a module, in the order of the sections: crash, kill, faults, corruption, conformance, space, users.
MODULES: tuple[str, ...] = (
    "tools.torture.crash.points",
    "tools.torture.crash.order",
    "tools.torture.crash.block",
    "tools.torture.crash.shutdown",
    "tools.torture.crash.kernel",
    "tools.torture.kill.mounts",
    "tools.torture.kill.daemons",
    "tools.torture.kill.concurrent",
    "tools.torture.kill.races",
    "tools.torture.faults.seam",
    "tools.torture.faults.inject",
    "tools.torture.faults.full",
    "tools.torture.faults.process",
    "tools.torture.corrupt.packs",
    "tools.torture.corrupt.index",
    "tools.torture.corrupt.rebuild",
    "tools.torture.corrupt.heal",
    "tools.torture.corrupt.fuzz",
    "tools.torture.conform.modelrig",
    "tools.torture.conform.exercise",
    "tools.torture.conform.crowd",
    "tools.torture.conform.external",
    "tools.torture.conform.posix.rig",
    "tools.torture.programs.rigs",
    "tools.torture.space.graphs",
    "tools.torture.space.soak",
    "tools.torture.space.load",
    "tools.torture.copies.lives",
    "tools.torture.users.access",
    "tools.torture.users.points",
    "tools.torture.users.quota",
    "tools.torture.users.neighbours",
)


def rigs(modules: Iterable[str] = MODULES) -> dict[str, Rig]:
    """Every rig of these modules by its name."""
    found: dict[str, Rig] = {}
    for name in modules:
        for rig in importlib.import_module(name).RIGS:
            assert rig.name not in found, rig.name
            found[rig.name] = rig
    return found


def home(rig: Rig) -> str:
    """The module that has it: a process that runs one rig imports no other's."""
    return next(name for name in MODULES if rig in importlib.import_module(name).RIGS)
