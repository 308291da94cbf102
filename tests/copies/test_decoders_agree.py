"""Nodes of a real point, a few bytes changed: refused as damage, or read alike by the store and the rescue program."""

from __future__ import annotations

import stat
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Store
from engine.errors import Corrupt
from engine.nodes import walk
from engine.nodes.dirnodes import decode_node
from engine.nodes.entries import decode_entry
from engine.nodes.extents import decode_extents
from engine.nodes.filenodes import Node, decode_leaf, decode_root, encode_inner
from engine.nodes.point import decode_point
from engine.nodes.ports import NodeKind, Ref
from tests.copies.test_reach import top
from tests.copies.test_rescue import decoders, fill

__all__ = ["decoders"]
CID = b"i" * 32


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Of each kind of node some."""
    root = tmp_path_factory.mktemp("agree")
    Store.init(str(root / "store"))
    with Store.open(str(root / "store")) as store:
        store.create_mount("m")
        todo = [top(store, fill(store)[1])]
        found: dict[bytes, bytes] = {}
        while todo:
            cid = todo.pop()
            if cid not in found:
                found[cid] = bytes(store._open.reader.read_node(cid))
                todo += [child for kind, child in walk.children(found[cid]) if kind is Ref.NODE]
    found[b""] = encode_inner(1, {0: CID, 7: bytes(32), 255: CID})
    chosen: dict[tuple[int, int], bytes] = {}
    for data in found.values():
        chosen.setdefault((data[0], data[2] if data[0] == NodeKind.DIR else 0), data)
    assert {kind for kind, _ in chosen} == set(NodeKind) - {NodeKind.TOMBSTONE}
    return list(chosen.values())


@pytest.fixture(scope="module")
def point_id(nodes: list[bytes]) -> str:
    return next(decode_point(one).id for one in nodes if one[0] == NodeKind.POINT)


Change = tuple[str, int, int, bytes]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "put", "copy"]), st.integers(0, 1 << 16), st.integers(0, 1 << 16),
        st.binary(min_size=1, max_size=4) | st.sampled_from([b"\0", b"\xff", b"/", b"\xff\xff\xff\xff"]),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


def changed(data: bytes, changes: list[Change]) -> bytes:
    # Half of the places are among the first, where the lengths are.
    for kind, at, to, piece in changes:
        at %= min(len(data), 24) if at % 2 and data else len(data) or 1
        match kind:
            case "set":
                data = data[:at] + piece + data[at + len(piece) :]
            case "cut":
                data = data[:at] + data[at + to % 40 + 1 :]
            case "put":
                data = data[:at] + piece + data[at:]
            case "copy":
                to %= len(data) or 1
                data = data[:at] + data[to : to + 32] + data[at + 32 :]
    return data


def by_engine(data: bytes) -> Any:
    """What the store reads in a node, with all that its walk would."""
    list(walk.children(data))
    match data[0]:
        case NodeKind.DIR:
            node = decode_node(data)
            if node.level:
                return None
            entries = [decode_entry(one) for one in node.values]
            for one in entries:
                if (
                    stat.S_ISREG(one.mode)
                    and one.root
                    and not isinstance(decode_root(one.root), Node)
                ):
                    decode_extents(decode_root(one.root))  # type: ignore[arg-type]
            return [(one.name, one.mode, one.uid, one.gid, one.nlink, one.rdev, one.ino, one.size, one.mtime_ns,
                     one.atime_ns, one.xattrs, one.target + one.root) for one in entries]  # fmt: skip
        case NodeKind.SPANS:
            return [(at, decode_extents(one)) for at, one in enumerate(decode_leaf(data)) if one]
        case NodeKind.POINT:
            point = decode_point(data)
            return point.mount, point.files, point.root.root
    return None


class Place:
    """A location with one chunk."""

    def __init__(self, data: bytes, point: str) -> None:
        self.data, self.points = data, {point: CID}
        self.problems: list[object] = []

    def problem(self, text: object) -> None:
        self.problems.append(text)

    def read(self, cid: bytes) -> bytes:
        return self.data if cid == CID else b""


def by_rescue(trees: Any, data: bytes, point: str) -> Any:
    """The same by the rescue program; None where it refuses any of it."""
    place = Place(data, point)
    found: Any = None
    try:
        match data[0]:
            case NodeKind.DIR if not data[2]:
                found = [(one.name, one.mode, one.uid, one.gid, one.nlink, one.rdev, one.ino, one.size, one.mtime,
                          one.atime, one.xattrs, one.rest) for one in trees.members(place, CID)]  # fmt: skip
            case NodeKind.SPANS:
                found = list(trees.spans(place, b"\1\0" + CID))
            case NodeKind.FILE:
                list(trees.spans(place, bytes((1, min(data[2], 3))) + CID))
            case NodeKind.POINT:
                root, mount, files = trees.point_root(place, point)
                found = mount, files, root.rest
            case NodeKind.XATTRS:
                list(trees.xattrs(place, b"\1" + CID))
    except (trees.Damage, IndexError, struct.error):
        return None
    return None if place.problems else found


@settings(max_examples=400)
@given(st.integers(0, 99), CHANGES)
def test_changed_nodes_are_refused_or_read_alike(
    nodes: list[bytes], point_id: str, decoders: Any, number: int, changes: list[Change]
) -> None:
    data = changed(nodes[number % len(nodes)], changes)
    if len(data) < 3:
        return
    other = by_rescue(decoders, data, point_id)
    try:
        mine = by_engine(data)
    except Corrupt:
        return
    if mine is not None:  # of a point another id is another point to who looks for one
        assert other == mine or (other is None and data[0] == NodeKind.POINT)


def test_unchanged_nodes_are_read_alike(nodes: list[bytes], point_id: str, decoders: Any) -> None:
    for data in nodes:
        mine = by_engine(data)
        assert by_rescue(decoders, data, point_id) == mine or mine is None
