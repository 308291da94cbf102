"""The codec of directory entries, and of xattrs."""

from __future__ import annotations

import stat
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Corrupt, InvalidRequest
from engine.limits import (
    FILE_MAX,
    XATTR_INLINE_MAX,
    XATTR_NODE,
    XATTR_TOTAL_MAX,
    XATTR_VALUE_MAX,
)
from engine.nodes import xattrs
from engine.nodes.entries import (
    RECORD_MAX,
    Entry,
    decode_entry,
    decode_root_entry,
    encode_entry,
    encode_root_entry,
    record_parts,
)
from tests.nodes.support import Store, cid, entries, only_canonical, regular, strict

FILE = stat.S_IFREG | 0o640
DIR = stat.S_IFDIR | 0o755
LINK = stat.S_IFLNK | 0o777
CHAR = stat.S_IFCHR | 0o600
FIFO = stat.S_IFIFO | 0o600

FULL = Entry(
    name=b"n\xc3\xa4me", mode=FILE, uid=1, gid=2, nlink=3, generation=4, rdev=0, ino=5, size=6,
    allocated=7, mtime_ns=-8, ctime_ns=9, atime_ns=10, btime_ns=11, chunking=2,
    xattrs=b"\0xx", target=b"", root=b"\1\2" + b"i" * 32,
)  # fmt: skip
FULL_BYTES = bytes.fromhex(
    "05 03 02 a081 01000000 02000000 03000000 04000000 00000000"
    "0500000000000000 0600000000000000 0700000000000000"
    "f8ffffffffffffff 0900000000000000 0a00000000000000 0b00000000000000"
    "6ec3a46d65 007878 0102" + "69" * 32
)


def test_the_bytes_are_as_the_format_says() -> None:
    assert encode_entry(FULL) == FULL_BYTES
    assert decode_entry(FULL_BYTES) == FULL
    link = encode_entry(Entry(b"l", LINK, target=b"to/there"))
    assert link == struct.pack("<BBBHIIIII56x", 1, 0, 0, LINK, 0, 0, 1, 1, 0) + b"lto/there"
    device = encode_entry(Entry(b"d", CHAR, rdev=0x501))
    assert device == struct.pack("<BBBHIIIII56x", 1, 0, 0, CHAR, 0, 0, 1, 1, 0x501) + b"d"
    root = encode_root_entry(Entry(b"", DIR, root=b"r" * 32))
    assert root == struct.pack("<BBBHIIIII56x", 0, 0, 0, DIR, 0, 0, 1, 1, 0) + b"r" * 32


@given(entries())
def test_any_entry_comes_back(entry: Entry) -> None:
    record = encode_entry(entry)
    assert len(record) <= RECORD_MAX
    assert decode_entry(record) == entry
    assert record_parts(record) == (entry.mode, entry.xattrs, entry.target or entry.root)


@given(entries(st.just(b"")).filter(lambda entry: stat.S_ISDIR(entry.mode)))
def test_any_root_entry_comes_back(entry: Entry) -> None:
    assert decode_root_entry(encode_root_entry(entry)) == entry


@given(entries(), st.data())
def test_hostile_bytes_are_refused(entry: Entry, data: st.DataObject) -> None:
    record = bytearray(encode_entry(entry))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(record) - 1, 200)))
        record[at] = data.draw(st.integers(0, 255))
    cut = bytes(record[: data.draw(st.integers(0, len(record)))])
    for bad in (bytes(record), cut, bytes(record) + b"\1"):
        only_canonical(decode_entry, encode_entry, bad)
        only_canonical(decode_root_entry, encode_root_entry, bad)
        with_parts(bad)


def with_parts(record: bytes) -> None:
    """Marking sees what decoding sees, and refuses nothing that decoding takes."""
    try:
        entry = decode_entry(record)
    except Corrupt:
        try:
            record_parts(record)
        except Corrupt:
            return
        return
    assert record_parts(record) == (entry.mode, entry.xattrs, entry.target or entry.root)


@pytest.mark.parametrize("entry", [FULL, regular(b"x"), Entry(b"d", DIR, root=b"r" * 32)])
def test_records_are_strict(entry: Entry) -> None:
    # A record's length is known to the node it lies in, so it does not carry its own end.
    strict(decode_entry, encode_entry, encode_entry(entry), delimited=False)


BAD = [
    FULL._replace(name=b""),
    FULL._replace(name=b"a" * 256),
    FULL._replace(name=b"a/b"),
    FULL._replace(name=b"a\0b"),
    FULL._replace(name=b"."),
    FULL._replace(name=b".."),
    FULL._replace(mode=0o644),
    FULL._replace(mode=stat.S_IFREG | stat.S_IFDIR | stat.S_IFLNK),
    FULL._replace(mode=1 << 16 | FILE),
    FULL._replace(uid=-1),
    FULL._replace(ino=1 << 64),
    FULL._replace(mtime_ns=1 << 63),
    FULL._replace(size=FILE_MAX + 1),
    FULL._replace(size=-1),
    FULL._replace(rdev=1),
    FULL._replace(chunking=3),
    FULL._replace(xattrs=b"\0"),
    FULL._replace(xattrs=b"\0" + b"x" * 255),
    FULL._replace(xattrs=b"\1" + b"x" * 31),
    FULL._replace(xattrs=b"\1" + b"x" * 160),
    FULL._replace(xattrs=b"\2xx"),
    FULL._replace(target=b"t"),
    FULL._replace(root=b"\0"),
    FULL._replace(root=b"\0\1\0\0"[:3]),
    FULL._replace(root=b"\0" + b"x" * 129),
    FULL._replace(root=b"\1\4" + b"i" * 32),
    FULL._replace(root=b"\1\1" + b"i" * 31),
    FULL._replace(root=b"\2\1" + b"i" * 32),
    Entry(b"d", DIR, root=b"r" * 31),
    Entry(b"d", DIR, target=b"t"),
    Entry(b"d", DIR, rdev=1),
    Entry(b"l", LINK),
    Entry(b"l", LINK, target=b"t" * 4096),
    Entry(b"l", LINK, target=b"t\0"),
    Entry(b"l", LINK, target=b"t", root=b"r"),
    Entry(b"p", FIFO, rdev=1),
    Entry(b"p", FIFO, root=b"r" * 32),
    Entry(b"p", FIFO, target=b"r"),
]


@pytest.mark.parametrize("entry", BAD)
def test_what_cannot_be_decoded_is_not_encoded(entry: Entry) -> None:
    with pytest.raises(InvalidRequest):
        encode_entry(entry)


def test_only_a_nameless_directory_is_a_root() -> None:
    for entry in (Entry(b"d", DIR), Entry(b"", FILE)):
        with pytest.raises(InvalidRequest):
            encode_root_entry(entry)
    for record in (encode_entry(Entry(b"d", DIR)), struct.pack("<xxxH76x", FILE)):
        with pytest.raises(Corrupt):
            decode_root_entry(record)
    with pytest.raises(Corrupt):
        decode_entry(encode_root_entry(Entry(b"", DIR)))


# --- xattrs -------------------------------------------------------------------------------------

SMALL = {b"user.b": b"2", b"user.a": b""}
SMALL_BYTES = b"\0" + b"\x06\0\0\0\0user.a" + b"\x06\x01\0\0\0user.b2"


def test_small_xattrs_lie_in_the_entry() -> None:
    store = Store()
    assert xattrs.pack(store, {}) == b""
    assert xattrs.load(store, b"") == {}
    assert xattrs.pack(store, SMALL) == SMALL_BYTES
    assert list(xattrs.load(store, SMALL_BYTES).items()) == sorted(SMALL.items())
    edge = {b"user.a": b"x" * (XATTR_INLINE_MAX - 11)}
    assert len(xattrs.pack(store, edge)) == 1 + XATTR_INLINE_MAX
    assert not store.puts


def test_large_xattrs_lie_in_nodes() -> None:
    store = Store()
    values = {b"user.a": b"x" * (XATTR_INLINE_MAX - 10)}
    packed = xattrs.pack(store, values)
    body = b"\x06\xf4\0\0\0user.a" + b"x" * 244
    assert store.nodes == {packed[1:]: b"X\1" + body}
    assert xattrs.load(store, packed) == values


@pytest.mark.parametrize("value_len", [0, XATTR_VALUE_MAX])
def test_the_largest_set_fits(value_len: int) -> None:
    store = Store()
    if value_len:
        values = {b"user.%d" % index: b"v" * 65_529 for index in range(4)}
    else:
        values = {index.to_bytes(3, "big").replace(b"\0", b"\1") + b"xxxx": b"" for index in range(37_000)}  # fmt: skip
        values = dict(list(values.items())[: XATTR_TOTAL_MAX // 7])
    packed = xattrs.pack(store, values)
    assert xattrs.load(store, packed) == values
    assert all(len(node) <= 2 + XATTR_NODE for node in store.nodes.values())
    assert xattrs.node_ids(packed) == store.puts


@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name),
        st.one_of(st.binary(max_size=20), st.binary(max_size=2000)),
        max_size=6,
    )
)
def test_any_xattrs_come_back(values: dict[bytes, bytes]) -> None:
    store = Store()
    assert xattrs.load(store, xattrs.pack(store, values)) == values


def test_hostile_xattrs_are_refused() -> None:
    store = Store()
    strict(lambda data: xattrs.load(store, data), lambda values: xattrs.pack(store, values),
           SMALL_BYTES, delimited=False)  # fmt: skip
    large = xattrs.pack(store, {b"user.a": b"x" * 400})
    data = store.nodes[large[1:]]
    for size in range(len(data)):
        only_loads(data[:size])
        only_loads(data[:size] + b"\xff" + data[size + 1 :])
    only_loads(data + b"\0")
    long = Store()
    packed = xattrs.pack(long, {b"user.%d" % index: b"v" * 65_000 for index in range(3)})
    one, two = xattrs.node_ids(packed)
    for bad in (two + one, one + one, two + two, one, two, one + two + two, cid(1)):
        with pytest.raises(Corrupt):
            xattrs.load(long, b"\1" + bad)


def test_xattrs_have_one_form() -> None:
    store = Store()
    body = b"\x06\xf4\0\0\0user.a" + b"x" * 244
    whole = store.put_node(b"X\1" + body)
    halves = store.put_node(b"X\1" + body[:100]) + store.put_node(b"X\1" + body[100:])
    small = store.put_node(b"X\1" + SMALL_BYTES[1:])
    assert xattrs.load(store, b"\1" + whole)
    with pytest.raises(Corrupt, match="only the last"):
        xattrs.load(store, b"\1" + halves)
    with pytest.raises(Corrupt, match="over 254"):
        xattrs.load(store, b"\1" + small)


def only_loads(data: bytes) -> None:
    """Xattrs from a node of any bytes: refused, or exactly what packs to that node."""
    store = Store()
    packed = b"\1" + store.put_node(data)
    only_canonical(
        lambda _: xattrs.load(store, packed), lambda values: xattrs.pack(store, values), packed
    )


@pytest.mark.parametrize(
    "values",
    [
        {b"": b""},
        {b"a" * 256: b""},
        {b"a\0": b""},
        {b"a": b"x" * (XATTR_VALUE_MAX + 1)},
        {b"user.%d" % index: b"v" * 65_530 for index in range(5)},
    ],
)
def test_xattrs_over_a_limit_are_not_packed(values: dict[bytes, bytes]) -> None:
    with pytest.raises(InvalidRequest):
        xattrs.pack(Store(), values)
