"""The mutable tree of a mount: names, attributes and content in memory over index rows, one transaction a commit."""

from engine.live.create import create_tree
from engine.live.inode import Attr, Ctx
from engine.live.ports import Ports
from engine.live.space import Quota
from engine.live.state import Clock
from engine.live.tree import ROOT, LiveTree
from engine.live.verify import problems

__all__ = ["ROOT", "Attr", "Clock", "Ctx", "LiveTree", "Ports", "Quota", "create_tree", "problems"]
