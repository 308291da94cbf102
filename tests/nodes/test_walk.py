"""What nodes refer to: all of it, and nothing else."""

from __future__ import annotations

import random

import pytest

from engine.errors import Corrupt
from engine.limits import FILE_MAX
from engine.nodes import dirs, files, walk, xattrs
from engine.nodes.entries import Entry
from engine.nodes.point import Point, Tombstone, encode_point, encode_tombstone
from engine.nodes.ports import Ref
from tests.nodes.support import Store, cid, damaged, regular, slots

ID = "01j6zq3gsk000000000000000a"


def tree(store: Store) -> bytes:
    """A point record of a tree with a node of every kind in it."""
    sub = dirs.build(store, [regular(b"f%04d" % number, number) for number in range(400)])
    extra = xattrs.pack(store, {b"user.%d" % one: b"x" * 60_000 for one in range(4)})
    big = files.build(store, FILE_MAX, [(number, slots(number)) for number in (0, 9, 5000)])
    root = dirs.build(
        store,
        [
            Entry(b"big", 0o100644, size=FILE_MAX, root=big, xattrs=extra),
            Entry(b"fifo", 0o010644, xattrs=b"\0ab"),
            Entry(b"hole", 0o100644, size=5),
            Entry(b"link", 0o120777, target=b"\1\1" + b"t" * 32),  # a target is no reference
            regular(b"small", 12_345),
            Entry(b"sub", 0o040755, root=sub),
            Entry(b"void", 0o040755),
        ],
    )
    top = Entry(b"", 0o040755, root=root, xattrs=xattrs.pack(store, {b"user.a": b"y" * 300}))
    return store.put_node(encode_point(Point(ID, "m", 1, 1, 0, top)))


def reached(store: Store, start: bytes) -> tuple[set[bytes], set[bytes]]:
    """(nodes, data chunks) found by walking from a node."""
    nodes, data, rest = set(), set(), [start]
    while rest:
        node = rest.pop()
        if node in nodes:
            continue
        nodes.add(node)
        for kind, chunk in walk.children(store.nodes[node], node):
            if kind is Ref.NODE:
                rest.append(chunk)
            else:
                data.add(chunk)
    return nodes, data


def test_everything_is_reached() -> None:
    store = Store()
    nodes, data = reached(store, tree(store))
    assert nodes == set(store.nodes)
    assert data == (
        {cid(number) for number in range(400)}
        | {cid(12_345)}
        | {extent[2] for number in (0, 9, 5000) for extent in slots(number)}
    )


def test_a_tombstone_refers_to_nothing() -> None:
    assert list(walk.children(encode_tombstone(Tombstone(ID, 3)))) == []
    with pytest.raises(Corrupt):
        list(walk.children(encode_tombstone(Tombstone(ID, 3)) + b"x"))


def test_a_chunk_that_is_named_twice_is_found() -> None:
    store = Store()
    same = [(0, 5, cid(1), 0), (10, 5, cid(2), 0), (20, 5, cid(1), 0)]
    leaf = files.build(store, FILE_MAX, [(1, same)])[2:]
    assert list(walk.children(store.nodes[leaf])) == [(Ref.DATA, cid(1)), (Ref.DATA, cid(2))]


def test_hostile_nodes_are_refused() -> None:
    store = Store()
    tree(store)
    rng = random.Random(5)
    for node, data in store.nodes.items():
        cuts = {*range(min(len(data), 200)), *range(max(0, len(data) - 50), len(data))}
        for bad in [data[:size] for size in sorted(cuts)] + [data + b"\0"]:
            # An xattr node is a part of a stream, of any length: only the whole can be judged.
            if data[:1] != b"X" or len(bad) < 3:
                with pytest.raises(Corrupt):
                    list(walk.children(bad, node))
        for _ in range(100):
            survives(damaged(data, rng))
            survives(data[:3] + rng.randbytes(rng.randrange(80)))
    for kind in range(256):
        survives(bytes((kind, 1)) + rng.randbytes(40))
    with pytest.raises(Corrupt, match="kind"):
        list(walk.children(b"Z\1" + bytes(40)))


def survives(data: bytes) -> None:
    """Damage is either refused as Corrupt or leaves references of the right size."""
    try:
        found = list(walk.children(data))
    except Corrupt:
        return
    assert all(len(chunk) == 32 for _, chunk in found)
