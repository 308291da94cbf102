"""Manifest nodes: the immutable, content-addressed description of trees. FORMAT.md has every byte.

``files`` (extents by span), ``dirs`` (entries by name), ``xattrs``, ``point`` (the record that names a tree) and
``walk`` (what a node refers to). Everything here is a pure function over two small ports, so it may be called
from any thread: the same content gives the same bytes, and so the same id, whatever its history was.
"""

from engine.nodes.entries import Entry
from engine.nodes.extents import Extent
from engine.nodes.ports import NodeKind, NodeReader, NodeWriter

__all__ = ["Entry", "Extent", "NodeKind", "NodeReader", "NodeWriter"]
