"""The mutable tree of a mount: names, attributes and content in memory over index rows, one transaction a commit.

Loaded name by name: most commands need its rows only, and wait for every module that is loaded for nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.live.create import create_tree
    from engine.live.inode import Attr, Ctx
    from engine.live.ports import Ports
    from engine.live.space import Quota
    from engine.live.state import Clock
    from engine.live.tree import ROOT, LiveTree
    from engine.live.verify import problems

_HOMES = {
    "ROOT": "tree", "Attr": "inode", "Clock": "state", "Ctx": "inode", "LiveTree": "tree", "Ports": "ports",
    "Quota": "space", "create_tree": "create", "problems": "verify",
}  # fmt: skip

__all__ = ["ROOT", "Attr", "Clock", "Ctx", "LiveTree", "Ports", "Quota", "create_tree", "problems"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{home}"), name)
