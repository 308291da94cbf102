"""Bugs planted on purpose: a rig that does not find them proves nothing.

Each is a function that patches the modules of the process it is called in, for good: it is called in a child process.
A rig that starts programs of its own plants with ``python -m tools.torture.planted BUG COMMAND…``.  The environment
variable HOLDFAST_PLANTED_BUG is read by that program and by the rigs' own children, never by shipped code.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import NamedTuple

VARIABLE = "HOLDFAST_PLANTED_BUG"


class Bug(NamedTuple):
    """A fault: what it is, and how it gets in."""

    name: str
    what: str
    plant: Callable[[], None]


BUGS: dict[str, Bug] = {}
# Modules that plant; each adds to BUGS when it is imported.
CATALOGUE: tuple[str, ...] = (
    "tools.torture.crash.planted_order",
    "tools.torture.crash.planted_disk",
    "tools.torture.kill.planted_bugs",
    "tools.torture.kill.planted_daemon",
    "tools.torture.faults.planted",
    "tools.torture.corrupt.planted_damage",
    "tools.torture.conform.planted",
    "tools.torture.programs.planted_programs",
    "tools.torture.space.planted",
    "tools.torture.copies.planted",
    "tools.torture.users.planted",
)


def bug(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function that plants a bug. Its docstring says what is wrong then."""

    def register(plant: Callable[[], None]) -> Callable[[], None]:
        assert name not in BUGS, name
        assert plant.__doc__, f"{name} needs a docstring"
        BUGS[name] = Bug(name, plant.__doc__.strip(), plant)
        return plant

    return register


def load() -> dict[str, Bug]:
    """All bugs, by name."""
    for name in CATALOGUE:
        importlib.import_module(name)
    return BUGS


def find(name: str) -> Bug:
    """One bug; KeyError if there is none. No more modules are imported than it takes."""
    for module in CATALOGUE:
        if name in BUGS:
            break
        importlib.import_module(module)
    return BUGS[name]


def chosen() -> str:
    """The bug that is to be planted in this run's children; empty for none."""
    return os.environ.get(VARIABLE, "")


def plant_chosen() -> None:
    """Called first by every child of a rig: plant what this run has chosen, if anything."""
    if chosen():
        find(chosen()).plant()
