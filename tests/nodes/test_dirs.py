"""Directories: their shape, their bytes, updating, looking up, comparing, damage."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import Corrupt, InvalidRequest
from engine.limits import (
    DIR_DEPTH_MAX,
    DIR_LEAF_BYTES,
    DIR_NODE_MAX,
    DIR_NODE_MIN,
    NODE_MAX,
)
from engine.nodes import dirs
from engine.nodes.dirnodes import DirNode, decode_node, encode_node, ends_node
from engine.nodes.entries import RECORD_MAX, Entry, encode_entry
from tests.nodes.support import Store, cid, entries, names, regular, small_nodes, strict

Changes = dict[bytes, Entry | None]


def built(store: Store, model: Mapping[bytes, Entry]) -> bytes:
    return dirs.build(store, [model[name] for name in sorted(model)])


def numbered(count: int, step: int = 1) -> dict[bytes, Entry]:
    """Entries of the names file000000, file000001 …"""
    return {
        name: regular(name, number)
        for number in range(0, count, step)
        for name in [b"file%06d" % number]
    }


def apply(model: dict[bytes, Entry], changes: Changes) -> dict[bytes, Entry]:
    result = {**model, **changes}
    return {name: entry for name, entry in result.items() if entry is not None}


def levels(store: Store, root: bytes) -> list[list[DirNode]]:
    """The nodes of each level, the leaves first."""
    found = [[decode_node(store.nodes[root], root)]]
    while found[0][0].level:
        found.insert(
            0, [decode_node(store.nodes[child]) for node in found[0] for child in node.values]
        )
    return found


# --- bytes --------------------------------------------------------------------------------------


def test_the_bytes_are_as_the_format_says() -> None:
    one, two = regular(b"one", 1), regular(b"two", 2)
    first, second = encode_entry(one), encode_entry(two)
    leaf = encode_node(0, [b"one", b"two"], [first, second])
    lengths = bytes((len(first), 0, len(second), 0))
    assert leaf == b"D\x01\x00\x02\x00" + lengths + first + second
    inner = encode_node(1, [b"b", b"long"], [b"1" * 32, b"2" * 32])
    assert inner == b"D\x01\x01\x02\x00" + b"\x01\x04" + b"blong" + b"1" * 32 + b"2" * 32
    assert decode_node(inner).names == [b"b", b"long"]
    assert decode_node(inner).values == [b"1" * 32, b"2" * 32]


def test_nodes_end_where_the_format_says() -> None:
    ends = [(level, number) for level in (0, 1, 2) for number in range(300)
            if ends_node(level, b"file%06d" % number)]  # fmt: skip
    assert ends == GOLDEN_ENDS
    store = Store()
    assert built(store, numbered(3000)).hex() == GOLDEN_ROOT
    assert [len(level) for level in levels(store, bytes.fromhex(GOLDEN_ROOT))] == GOLDEN_LEVELS


GOLDEN_ENDS = [
    *((0, number) for number in (36, 81, 144, 158, 272)),
    *((2, number) for number in (35, 119, 245, 272, 273, 275)),
]
GOLDEN_ROOT = "33f65292bbe56fc1e051becc65c99cef9ca5d5e784c2a69579d851d7443a876d"
GOLDEN_LEVELS = [36, 2, 1]


def encoded_again(node: object) -> bytes:
    assert isinstance(node, DirNode)
    return encode_node(node.level, node.names, node.values)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("level", [0, 1, DIR_DEPTH_MAX])
def test_nodes_are_strict(level: int, count: int) -> None:
    keys = [b"name-%d" % number for number in range(count)]
    values = [encode_entry(regular(key)) if not level else cid(7) for key in keys]
    strict(decode_node, encoded_again, encode_node(level, keys, values))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "kind"),
        (b"F\1\0\1\0", "kind"),
        (b"D\2\0\1\0", "version"),
        (b"D\1\0", "bytes or more"),
        (b"D\1\x09\1\0", "level"),
        (b"D\1\1\0\0", "children"),
        (b"D\1\1\1\1" + bytes(2000), "children"),
        (b"D\1\1\1\0\1a" + bytes(31), "bytes"),
        (b"D\1\1\1\0\0" + bytes(32), "strictly sorted"),
        (b"D\1\1\2\0\1\1ba" + bytes(64), "strictly sorted"),
        (b"D\1\1\2\0\1\1aa" + bytes(64), "strictly sorted"),
        (b"D\1\1\1\0\3a/b" + bytes(32), "no /"),
        (b"D\1\1\1\0\1\0" + bytes(32), "no NUL"),
        (b"D\1\1\1\0\2.." + bytes(32), "not . or .."),
        (b"D\1\0\1\0\x51\0" + bytes(81), "directory entry"),
        (b"D\1\0\1\0\x52\0\2" + bytes(80) + b"a", "whole name"),
    ],
)
def test_each_rule_has_its_message(data: bytes, what: str) -> None:
    with pytest.raises(Corrupt, match=what):
        decode_node(data, cid(1))


def test_a_leaf_over_its_bytes_is_refused() -> None:
    keys = [b"%03d" % number for number in range(100)]
    values = [encode_entry(Entry(key, 0o120777, target=b"t" * 4000)) for key in keys]
    assert sum(map(len, values)) - len(values[-1]) >= DIR_LEAF_BYTES
    with pytest.raises(Corrupt, match="bytes"):
        decode_node(encode_node(0, keys, values))


# --- the model ----------------------------------------------------------------------------------

few = st.binary(min_size=1, max_size=2).filter(lambda name: not set(name) & set(b"/\0."))
models = st.dictionaries(few, st.integers(0, 3), max_size=150)
edits = st.dictionaries(few, st.one_of(st.none(), st.integers(0, 3)), max_size=30)


@given(models, st.lists(edits, max_size=4), st.randoms())
def test_any_history_gives_the_same_tree(
    start: dict[bytes, int], history: list[dict[bytes, int | None]], rng: random.Random
) -> None:
    with small_nodes():
        store = Store()
        model = {name: regular(name, number) for name, number in start.items()}
        root = built(store, model)
        for step in history:
            changes: Changes = {
                name: None if number is None else regular(name, number)
                for name, number in step.items()
            }
            if model:  # changes near each other, too: most names of the model are apart
                for name in rng.sample(sorted(model), min(5, len(model))):
                    changes[name] = rng.choice((None, regular(name, 9)))
            old, before = root, model
            model = apply(model, changes)
            root = dirs.update(store, store, root, changes)
            assert root == built(Store(), model)
            assert list(dirs.scan(store, root)) == [model[name] for name in sorted(model)]
            check_diff(store, old, before, root, model)
        check_reading(store, root, model, rng)
        emptied = dirs.update(store, store, root, dict.fromkeys(model))
        assert emptied == b""


def check_diff(
    store: Store, a: bytes, before: dict[bytes, Entry], b: bytes, after: dict[bytes, Entry]
) -> None:
    expected = [
        (name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    assert list(dirs.diff(store, a, b)) == expected
    assert list(dirs.diff(store, b, a)) == [(name, y, x) for name, x, y in expected]


def check_reading(store: Store, root: bytes, model: dict[bytes, Entry], rng: random.Random) -> None:
    probes = [*rng.sample(sorted(model), min(10, len(model))), b"q", b"\xff\xff\xff", b"\1"]
    for name in probes:
        assert dirs.get(store, root, name) == model.get(name)
        later = [model[key] for key in sorted(model) if key > name]
        assert list(dirs.scan(store, root, name)) == later


@given(st.lists(entries(names), max_size=30, unique_by=lambda entry: entry.name))
@example([])
def test_any_entries_come_back(some: list[Entry]) -> None:
    store = Store()
    model = {entry.name: entry for entry in some}
    root = built(store, model)
    assert list(dirs.scan(store, root)) == [model[name] for name in sorted(model)]
    for name, entry in model.items():
        assert dirs.get(store, root, name) == entry
    assert dirs.update(Store(), store, b"", dict(model)) == root


@pytest.mark.parametrize("seed", range(4))
def test_a_large_directory_has_no_history(seed: int) -> None:
    rng = random.Random(seed)
    store = Store()
    model = numbered(6000)
    root = built(store, model)
    for _ in range(4):
        changes: Changes = {}
        for _ in range(rng.choice((1, 20, 300))):
            number = rng.randrange(7000)
            name = b"file%06d" % number + rng.choice((b"", b"x"))
            changes[name] = rng.choice((None, regular(name, rng.randrange(99))))
        begin = rng.randrange(6000)
        for number in range(begin, begin + rng.choice((1, 50, 2000))):
            changes[b"file%06d" % number] = None
        before, old = model, root
        model = apply(model, changes)
        root = dirs.update(store, store, root, changes)
        assert root == built(Store(), model)
        check_diff(store, old, before, root, model)
    removed = dirs.update(store, store, root, dict.fromkeys(list(model)[3:]))
    assert removed == built(Store(), dict(list(model.items())[:3]))


# --- shape --------------------------------------------------------------------------------------


def test_leaves_hold_about_a_hundred_entries() -> None:
    store = Store()
    leaves, tops = levels(store, built(store, numbered(10_000)))[:2]
    assert 64 <= 10_000 / len(leaves) <= 128
    assert len(tops) <= 4


def check_bounds(store: Store, root: bytes, leaf_min: int = DIR_NODE_MIN) -> list[list[DirNode]]:
    found = levels(store, root)
    for level, fewest in zip(found, [leaf_min] + [DIR_NODE_MIN] * DIR_DEPTH_MAX, strict=False):
        assert all(len(node.names) >= fewest for node in level[:-1])
    for data in store.nodes.values():
        assert len(data) <= min(NODE_MAX, DIR_LEAF_BYTES + RECORD_MAX + 5 + 2 * DIR_NODE_MAX)
        assert len(decode_node(data).names) <= DIR_NODE_MAX
    return found


def test_names_after_which_no_node_ends() -> None:
    every = (b"n%07d" % number for number in range(10**6))
    keys = [name for name in every if not ends_node(0, name)][:3000]
    model = {name: regular(name) for name in keys}
    store = Store()
    root = built(store, model)
    leaves = check_bounds(store, root)[0]
    assert {len(node.names) for node in leaves[:-1]} == {DIR_NODE_MAX}
    for name in (b"a", keys[1000] + b"x", b"z"):
        more = dirs.update(store, store, root, {name: regular(name)})
        assert more == built(Store(), {**model, name: regular(name)})
        assert dirs.update(store, store, more, {name: None}) == root


def test_names_after_which_every_node_would_end() -> None:
    every = (b"n%07d" % number for number in range(10**6))
    keys = [name for name in every if ends_node(0, name)][:3000]
    model = {name: regular(name) for name in keys}
    store = Store()
    root = built(store, model)
    found = check_bounds(store, root)
    assert {len(node.names) for node in found[0][:-1]} == {DIR_NODE_MIN}
    assert len(found) <= 4
    for name in (b"a", keys[1000] + b"x", b"z"):
        more = dirs.update(store, store, root, {name: regular(name)})
        assert more == built(Store(), {**model, name: regular(name)})
    assert dirs.update(store, store, root, {keys[0]: None}) == built(
        Store(), {name: model[name] for name in keys[1:]}
    )


def test_long_links_make_leaves_of_fewer_entries() -> None:
    model = {
        name: Entry(name, 0o120777, target=b"t" * 4095)
        for number in range(200)
        for name in [b"%d" % number + b"n" * 250]
    }
    store = Store()
    root = built(store, model)
    leaves = check_bounds(store, root, DIR_LEAF_BYTES // RECORD_MAX)[0]
    assert len(leaves[0].names) < DIR_NODE_MIN
    name = sorted(model)[17]
    shorter = {name: model[name]._replace(target=b"t")}
    assert dirs.update(store, store, root, shorter) == built(Store(), {**model, **shorter})


# --- cost ---------------------------------------------------------------------------------------


def test_an_update_touches_the_path_alone() -> None:
    store = Store()
    model = numbered(20_000)
    root = built(store, model)
    old = {node.cid for node in levels(store, root)[-1]}
    depth = len(levels(store, root))
    assert depth == 3
    store.forget_counts()
    name = b"file012345"
    new = dirs.update(store, store, root, {name: regular(name, 99_999)})
    assert len(store.reads) == len(store.puts) == depth
    assert store.puts[-1] == new
    assert store.likes[new] == root
    assert old == {root}
    likes = [store.likes[node] for node in store.puts]
    assert likes == list(reversed(store.reads))  # each a version of what it replaces
    store.forget_counts()
    assert dirs.get(store, new, name) == regular(name, 99_999)
    assert len(store.reads) == depth
    store.forget_counts()
    assert len(list(dirs.diff(store, root, new))) == 1
    assert len(store.reads) == 2 * depth
    store.forget_counts()
    assert next(dirs.scan(store, new, name)).name == b"file012346"
    assert len(store.reads) == depth


def test_comparing_reads_nothing_beside_what_differs() -> None:
    store = Store()
    root = built(store, numbered(20_000))
    leaf = levels(store, root)[0][50]
    new = dirs.update(store, store, root, dict.fromkeys(leaf.names))
    store.forget_counts()
    assert [name for name, _, _ in dirs.diff(store, root, new)] == leaf.names
    assert len(store.reads) == 2 + 2 + 1  # inner nodes of both, the leaf of one
    store.forget_counts()
    assert [name for name, _, _ in dirs.diff(store, new, root)] == leaf.names
    assert len(store.reads) == 2 + 2 + 1


def test_inserting_and_removing_touch_few_nodes() -> None:
    store = Store()
    root = built(store, numbered(20_000))
    for name in (b"file012345x", b"file000000", b"a", b"z", b"file019999"):
        store.forget_counts()
        new = dirs.update(store, store, root, {name: regular(name), b"file007000": None})
        assert len(store.reads) <= 9
        store.forget_counts()
        assert len(list(dirs.diff(store, root, new))) == 2
        assert len(store.reads) <= 18


def test_what_changes_nothing_stores_nothing() -> None:
    store = Store()
    model = numbered(1000)
    root = built(store, model)
    known = set(store.nodes)
    same: Changes = {b"file000500": model[b"file000500"], b"not there": None, b"z": None}
    assert dirs.update(store, store, root, same) == root
    assert set(store.nodes) == known
    store.forget_counts()
    assert dirs.update(store, store, root, {}) == root
    assert list(dirs.diff(store, root, root)) == []
    assert not store.puts
    assert dirs.update(store, store, b"", {b"x": None}) == b""


# --- refusals -----------------------------------------------------------------------------------


def test_wrong_requests_are_refused() -> None:
    store = Store()
    with pytest.raises(InvalidRequest):
        dirs.build(store, [regular(b"b"), regular(b"a")])
    with pytest.raises(InvalidRequest):
        dirs.build(store, [regular(b"a"), regular(b"a")])
    with pytest.raises(InvalidRequest):
        dirs.update(store, store, b"", {b"a": regular(b"b")})
    with pytest.raises(Corrupt):
        dirs.get(store, b"short", b"a")


def everything(store: Store, root: bytes) -> None:
    """Use a tree in every way there is."""
    list(dirs.scan(store, root))
    dirs.get(store, root, b"file000123")
    dirs.update(store, store, root, {b"file000123": None, b"file000150": regular(b"file000150")})
    dirs.update(store, store, root, dict.fromkeys(b"file%06d" % number for number in range(190)))
    list(dirs.diff(store, root, b""))


def test_children_that_overlap_are_refused() -> None:
    store = Store()

    def leaf(*keys: bytes) -> bytes:
        return store.put_node(encode_node(0, [*keys], [encode_entry(regular(key)) for key in keys]))

    for first, second in ((b"a", b"a"), (b"a", b"b"), (b"0", b"0")):
        inner = encode_node(1, [b"b", b"d"], [leaf(first, b"b"), leaf(second, b"d")])
        root = store.put_node(inner)
        with pytest.raises(Corrupt, match="above b'b' to b'd'"):
            list(dirs.scan(store, root))
        with pytest.raises(Corrupt, match="above b'b' to b'd'"):
            dirs.get(store, root, b"d")
        with pytest.raises(Corrupt, match="above b'b' to b'd'"):
            dirs.update(store, store, root, {b"c": regular(b"c")})
        with pytest.raises(Corrupt, match="above b'b' to b'd'"):
            list(dirs.diff(store, root, b""))


def test_a_damaged_tree_is_refused_never_misread() -> None:
    with small_nodes():
        store = Store()
        root = built(store, numbered(200))
        found = levels(store, root)
        other = built(store, {name: regular(name) for name in (b"file000050", b"file000060")})
        inner = [node for level in found[1:] for node in level]
        assert len(found) > 3
        rng = random.Random(1)
        for node in inner:
            for bad in (root, other, found[0][3].values[0][:32], rng.choice(inner).values[0]):
                index = rng.randrange(len(node.values))
                if node.values[index] == bad:
                    continue
                values = [*node.values[:index], bad, *node.values[index + 1 :]]
                hostile = Store()
                hostile.nodes = dict(store.nodes)
                place = next(key for key, data in store.nodes.items()
                             if data == encode_node(node.level, node.names, node.values))  # fmt: skip
                hostile.nodes[place] = encode_node(node.level, node.names, values)
                with pytest.raises(Corrupt):
                    list(dirs.scan(hostile, root))
                with pytest.raises(Corrupt):
                    everything(hostile, root)
