"""Contents of files: their shape, their bytes, updating, cutting, comparing, damage."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Corrupt, InvalidRequest
from engine.limits import FILE_LEAF_SPANS, FILE_MAX, INLINE_CONTENT_MAX, SLOT, SPAN
from engine.nodes import files
from engine.nodes.extents import Extent, encode_extents
from engine.nodes.filenodes import (
    Node,
    decode_inner,
    decode_leaf,
    decode_root,
    encode_inner,
    encode_leaf,
    encode_root,
    inline_root,
    inner_child,
)
from tests.nodes.support import Store, cid, slots, strict

LEAF = FILE_LEAF_SPANS
LAST = FILE_MAX // SPAN - 1
ONE: list[Extent] = [(0, 100, b"a" * 32, 0)]
Model = dict[int, list[Extent]]


def built(store: Store, model: Mapping[int, list[Extent]], size: int = FILE_MAX) -> bytes:
    return files.build(store, size, [(number, model[number]) for number in sorted(model)])


def cut(model: Model, size: int) -> Model:
    """The model of a file that was cut to a size."""
    result: Model = {}
    for number, extents in model.items():
        room = size - number * SPAN
        left = [
            (offset, min(length, room - offset), chunk, start)
            for offset, length, chunk, start in extents
            if offset < room
        ]
        if left:
            result[number] = left
    return result


# --- bytes --------------------------------------------------------------------------------------


def test_the_bytes_are_as_the_format_says() -> None:
    encoded = encode_extents(ONE)
    assert len(encoded) == 37
    assert encode_root(Node(2, b"c" * 32)) == b"\1\2" + b"c" * 32
    assert inline_root(encoded) == b"\0" + encoded
    leaf = encode_leaf([b"", encoded, b"", encoded])
    assert leaf == b"S\x01\x0a" + b"\x25\0\x25\0" + encoded + encoded
    inner = encode_inner(3, {255: b"z" * 32, 0: b"a" * 32, 9: b"b" * 32})
    bitmap = b"\x01\x02" + bytes(29) + b"\x80"
    assert inner == b"F\x01\x03" + bitmap + b"a" * 32 + b"b" * 32 + b"z" * 32


def test_trees_are_as_the_format_says() -> None:
    store = Store()
    assert built(store, {}) == b""
    assert built(store, {0: ONE}) == b"\0" + encode_extents(ONE)
    assert not store.nodes
    leaf = encode_leaf([b"", encode_extents(ONE), b"", b""])
    root = built(store, {1: ONE})
    assert root[:2] == b"\1\0"
    assert store.nodes[root[2:]] == leaf
    root = built(store, {5: ONE, LEAF * 300 + 1: ONE})
    assert root[:2] == b"\1\2"
    zero, one = decode_inner(store.nodes[root[2:]], 2).values()
    assert decode_inner(store.nodes[zero], 1).keys() == {1}
    assert decode_inner(store.nodes[one], 1).keys() == {300 - 256}
    assert set(decode_inner(store.nodes[one], 1).values()) == set(
        decode_inner(store.nodes[zero], 1).values()
    )
    many = {number: slots(number) for number in range(1500)}
    assert built(store, many).hex() == GOLDEN_ROOT


GOLDEN_ROOT = "01022c3c319dc36780bca829638d434cf14fb2a4321c6ea044c14adf2203b7a3ec2d"


def test_inline_content_has_a_limit() -> None:
    three = slots(0, 3)
    assert len(encode_extents(three)) <= INLINE_CONTENT_MAX
    store = Store()
    assert built(store, {0: three}) == b"\0" + encode_extents(three)
    assert built(store, {0: slots(0, 4)})[:2] == b"\1\0"
    assert list(files.spans(store, built(store, {0: three}))) == [(0, three)]


encoded_spans = [encode_extents(slots(number)) for number in range(LEAF)]


@pytest.mark.parametrize(
    "spans",
    [
        [encode_extents(ONE), *[b""] * (LEAF - 1)],
        [*[b""] * (LEAF - 1), encode_extents(ONE)],
        encoded_spans,
    ],
)
def test_leaves_are_strict(spans: list[bytes]) -> None:
    strict(decode_leaf, encode_leaf, encode_leaf(spans))


@pytest.mark.parametrize("count", [1, 2, 40, 256])
def test_inner_nodes_are_strict(count: int) -> None:
    children = {255 - place: cid(place) for place in range(count)}
    data = encode_inner(2, children)
    strict(
        lambda raw: decode_inner(raw, 2), lambda value: encode_inner(2, value), data
    )  # fmt: skip
    for place in range(256):
        assert inner_child(data, 2, place) == children.get(place)
    for level in (0, 1, 3, 4):
        with pytest.raises(Corrupt, match="level"):
            decode_inner(data, level)
    with pytest.raises(Corrupt, match="child"):
        decode_inner(b"F\1\2" + bytes(32), 2)
    with pytest.raises(Corrupt, match="level"):
        decode_inner(b"F\1\4" + data[3:], 4)


def test_roots_are_strict() -> None:
    def encode(value: object) -> bytes:
        assert isinstance(value, Node | bytes)
        if isinstance(value, Node):
            return encode_root(value)
        return inline_root(value) if value else b""

    strict(decode_root, encode, encode_root(Node(3, cid(1))), delimited=False)
    for bad in (b"\0", b"\0\1\0\0", b"\0" + bytes(129), b"\1", b"\1\4" + cid(1), b"\2\0" + cid(1)):
        with pytest.raises(Corrupt, match="content root"):
            decode_root(bad)


# --- the model ----------------------------------------------------------------------------------

# Numbers on both sides of every border of leaves and levels.
_BORDERS = (0, 1, LEAF, LEAF * 256, LEAF * 256**2, LAST)
numbers = st.builds(
    lambda border, off: min(max(border + off, 0), LAST),
    st.sampled_from(_BORDERS),
    st.integers(-5, 5),
)
extents_of_span: st.SearchStrategy[list[Extent]] = st.one_of(
    st.just([]),
    st.just(ONE),
    st.integers(0, 9).map(lambda first: slots(first, 32)),
    st.integers(0, 9).map(lambda first: slots(first, 2)),
    st.just([(SPAN - 50, 50, cid(3), 7)]),
)
models = st.dictionaries(numbers, extents_of_span, max_size=12)
changes_of = st.dictionaries(numbers, st.one_of(st.none(), extents_of_span), max_size=8)
sizes = st.one_of(
    st.just(FILE_MAX),
    st.integers(0, FILE_MAX),
    st.builds(
        lambda number, off: max(0, number * SPAN + off),
        numbers,
        st.sampled_from((-1, 0, 1, 50, 3 * SLOT)),
    ),
)


@given(models, sizes, st.lists(st.tuples(changes_of, sizes, st.booleans()), max_size=4))
def test_any_history_gives_the_same_tree(
    start: Model,
    size: int,
    history: list[tuple[dict[int, list[Extent] | None], int, bool]],
) -> None:
    store = Store()
    model = cut(start, size)
    root = built(store, start, size)
    assert root == built(Store(), model, size)
    for changes, new_size, tell in history:
        before, old = model, root
        model = cut({**cut(model, new_size), **{n: e or [] for n, e in changes.items()}}, new_size)
        known = size if tell else None
        root = files.update(store, store, root, new_size, changes, known)
        size = new_size
        assert root == built(Store(), model, size)
        assert list(files.spans(store, root)) == sorted(model.items())
        for number in (*model, *changes, *_BORDERS, LAST + 1, 256**4, -1):
            assert files.span(store, root, number) == model.get(number, [])
        for first in _BORDERS:
            later = [(number, some) for number, some in sorted(model.items()) if number >= first]
            assert list(files.spans(store, root, first)) == later
        expected = [
            (number, before.get(number, []), model.get(number, []))
            for number in sorted(before.keys() | model.keys())
            if before.get(number) != model.get(number)
        ]
        assert list(files.diff(store, old, root)) == expected
        assert list(files.diff(store, root, old)) == [(n, y, x) for n, x, y in expected]
    assert files.update(store, store, root, 0, {}) == b""
    assert files.update(store, store, root, size, dict.fromkeys(model)) == b""


# --- cost ---------------------------------------------------------------------------------------


def test_holes_cost_nothing() -> None:
    store = Store()
    root = built(store, {0: slots(0), LAST: ONE})
    assert len(store.nodes) == 1 + 2 * 3  # the top, and a path to each of the two
    assert sum(map(len, store.nodes.values())) < 2000
    store.forget_counts()
    assert list(files.spans(store, root)) == [(0, slots(0)), (LAST, ONE)]
    assert files.update(store, store, b"", FILE_MAX, {LAST // 2: None, LAST: []}) == b""
    assert files.update(store, store, root, SPAN, {}) == built(store, {0: slots(0)})


def test_an_update_touches_the_path_alone() -> None:
    store = Store()
    model = {number: slots(number * 32) for number in range(3000)}
    size = 3000 * SPAN
    root = built(store, model, size)
    assert root[:2] == b"\1\2"
    store.forget_counts()
    new = files.update(store, store, root, size, {1234: ONE}, size)
    assert len(set(store.reads)) == len(store.puts) == 3
    assert [store.likes[node] for node in store.puts][-1] == root[2:]
    assert None not in store.likes.values()
    store.forget_counts()
    assert files.span(store, new, 1234) == ONE
    assert len(store.reads) == 3
    store.forget_counts()
    assert list(files.diff(store, root, new)) == [(1234, model[1234], ONE)]
    assert len(store.reads) == 6
    store.forget_counts()
    files.update(store, store, new, 1000 * SPAN + 7, {})
    assert len(set(store.reads)) <= 5  # the path to the cut, and what became the top
    store.forget_counts()
    files.update(store, store, new, 1024 * SPAN, {})
    assert len(set(store.reads)) <= 2  # the cut lies between nodes
    store.forget_counts()
    grown = files.update(store, store, new, FILE_MAX, {LAST: ONE}, size)
    assert grown[1] == 3
    assert store.reads == []  # the old tree becomes a part of the new one unread
    assert next(files.spans(store, grown, 2999)) == (2999, model[2999])


def test_what_changes_nothing_stores_nothing() -> None:
    store = Store()
    size = 3000 * SPAN
    root = built(store, {number: slots(number) for number in range(3000)}, size)
    store.forget_counts()
    assert files.update(store, store, root, size, {17: slots(17)}, size) == root
    assert files.update(store, store, root, size, {}) == root
    assert list(files.diff(store, root, root)) == []
    assert not store.puts


# --- refusals -----------------------------------------------------------------------------------


def test_wrong_requests_are_refused() -> None:
    store = Store()
    too_many = [(at * 1024, 1000, cid(1), 0) for at in range(2048)]
    for spans in ([(1, ONE), (0, ONE)], [(1, ONE), (1, ONE)], [(LAST + 1, ONE)], [(0, too_many)]):
        with pytest.raises(InvalidRequest):
            files.build(store, FILE_MAX, spans)
    for number in (-1, LAST + 1):
        with pytest.raises(InvalidRequest):
            files.update(store, store, b"", FILE_MAX, {number: ONE})


def everything(store: Store, root: bytes) -> None:
    """Use a tree in every way there is."""
    for _ in files.spans(store, root):
        pass
    for number in (0, 5, 1500, LAST):
        files.span(store, root, number)
    files.update(store, store, root, 1000 * SPAN + 5, {3: ONE, 1023: None})
    list(files.diff(store, root, b""))


def test_a_damaged_tree_is_refused() -> None:
    store = Store()
    root = built(store, {number: slots(number) for number in (0, 5, 900, 1500, 2100)})
    rng = random.Random(3)
    kinds = list(store.nodes.items())
    for place, data in kinds:
        for bad in (data[:-1], data + b"\0", b"", b"D" + data[1:], rng.choice(kinds)[1]):
            same_kind = bad[:1] == data[:1] == b"S" or bad[:3] == data[:3]
            if same_kind and bad in store.nodes.values():
                continue  # a node of the same level in another's place is well formed
            hostile = Store()
            hostile.nodes = {**store.nodes, place: bad}
            with pytest.raises(Corrupt):
                everything(hostile, root)


def test_spans_past_the_largest_file_are_refused() -> None:
    store = Store()
    leaf = store.put_node(encode_leaf([encode_extents(ONE), *[b""] * (LEAF - 1)]))
    one = store.put_node(encode_inner(1, {255: leaf}))
    two = store.put_node(encode_inner(2, {255: one}))
    root = encode_root(Node(3, store.put_node(encode_inner(3, {255: two}))))
    with pytest.raises(Corrupt, match="span"):
        list(files.spans(store, root))
    with pytest.raises(Corrupt, match="span"):
        list(files.diff(store, root, b""))
