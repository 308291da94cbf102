"""What the tests of nodes share: a store in memory, makers of entries and extents, hostile bytes."""

from __future__ import annotations

import hashlib
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from hypothesis import strategies as st

from engine.errors import Corrupt
from engine.limits import CHUNK_MAX, SLOT, SPAN
from engine.nodes import dirnodes
from engine.nodes.entries import Entry
from engine.nodes.extents import Extent, encode_extents


class Store:
    """Nodes in a dictionary; notes what is read and stored, and as a new version of what."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}
        self.reads: list[bytes] = []
        self.puts: list[bytes] = []
        self.likes: dict[bytes, bytes | None] = {}

    def read_node(self, cid: bytes) -> bytes:
        self.reads.append(cid)
        if cid not in self.nodes:
            raise Corrupt(f"chunk {cid.hex()}", expected="a stored chunk", found="none")
        return self.nodes[cid]

    def put_node(self, data: bytes, like: bytes | None = None) -> bytes:
        cid = hashlib.blake2b(data, digest_size=32).digest()
        self.puts.append(cid)
        self.likes[cid] = like
        self.nodes[cid] = data
        return cid

    def forget_counts(self) -> None:
        self.reads.clear()
        self.puts.clear()
        self.likes.clear()


def cid(number: int) -> bytes:
    """A chunk id, the same for the same number."""
    return hashlib.blake2b(b"%d" % number, digest_size=32).digest()


def regular(name: bytes, number: int = 1) -> Entry:
    """The entry of a small file with content, different for each number."""
    return Entry(
        name=name,
        mode=stat.S_IFREG | 0o644,
        uid=1000,
        gid=100,
        ino=number,
        size=5000,
        allocated=8192,
        mtime_ns=1_700_000_000_000_000_000 + number,
        root=b"\0" + encode_extents([(0, 5000, cid(number), 0)]),
    )


def slots(first: int, count: int = 32) -> list[Extent]:
    """The extents of a span of whole slots, each a chunk of its own."""
    return [(index * SLOT, SLOT, cid(first + index), 0) for index in range(count)]


@contextmanager
def small_nodes() -> Iterator[None]:
    """Directory nodes of 2 to 6 children, so that few names make a deep tree."""
    with patch.multiple(dirnodes, DIR_NODE_MIN=2, DIR_NODE_MAX=6, _ENDS=(1 << 32) // 3):
        yield


# --- strategies ---------------------------------------------------------------------------------

ids = st.integers(0, 9).map(cid)

names = st.one_of(
    st.binary(min_size=1, max_size=4), st.binary(min_size=1, max_size=255)
).filter(lambda name: not set(name) & set(b"/\0") and name not in (b".", b".."))  # fmt: skip

times = st.integers(-(2**63), 2**63 - 1)


@st.composite
def extent_lists(draw: st.DrawFn) -> list[Extent]:
    """Extents of one span, few enough for one row; slots and odd sizes, chunks named once and again."""
    extents: list[Extent] = []
    end = 0
    for _ in range(draw(st.integers(0, 30))):
        offset = end + draw(st.sampled_from((0, 0, 0, 1, 4096, SLOT, 300_000)))
        length = draw(st.one_of(st.just(SLOT), st.integers(1, CHUNK_MAX)))
        start = draw(st.one_of(st.just(0), st.integers(0, CHUNK_MAX)))
        end = offset + length
        if end > SPAN or start + length > CHUNK_MAX:
            break
        extents.append((offset, length, draw(ids), start))
    return extents


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Roots of files, valid as far as an entry looks."""
    extents = draw(extent_lists())[:3]
    return draw(
        st.one_of(
            st.just(b""),
            st.builds(lambda depth, top: bytes((1, depth)) + top, st.integers(0, 3), ids),
            st.just(b"\0" + encode_extents(extents) if extents else b""),
        )
    )


@st.composite
def entries(draw: st.DrawFn, name: st.SearchStrategy[bytes] = names) -> Entry:
    """Entries of every type, with any attributes they can have."""
    kind = draw(
        st.sampled_from(
            (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK)
        )
    )
    u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
    target = root = b""
    if kind == stat.S_IFREG:
        root = draw(contents())
    elif kind == stat.S_IFDIR:
        root = draw(st.one_of(st.just(b""), ids))
    elif kind == stat.S_IFLNK:
        target = draw(
            st.binary(min_size=1, max_size=4095).map(lambda text: text.replace(b"\0", b"x"))
        )
    xattrs = draw(
        st.one_of(
            st.just(b""),
            st.binary(min_size=1, max_size=254).map(lambda body: b"\0" + body),
            st.lists(ids, min_size=1, max_size=4).map(lambda parts: b"\1" + b"".join(parts)),
        )
    )
    return Entry(
        draw(name), kind | draw(st.integers(0, 0o7777)), draw(u32), draw(u32), draw(u32),
        draw(u32), draw(u32) if kind == stat.S_IFCHR else 0, draw(u64),
        draw(st.integers(0, 2**44)), draw(u64), draw(times), draw(times), draw(times),
        draw(times), draw(st.integers(0, 2)), xattrs, target, root,
    )  # fmt: skip


# --- hostile bytes ------------------------------------------------------------------------------

Decode = Callable[[bytes], object]
Encode = Callable[[object], bytes]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a bit flipped, a byte changed, a piece missing, doubled or added."""
    at = rng.randrange(len(data))
    end = min(len(data), at + rng.choice((1, 2, 4, 32)))
    match rng.randrange(5):
        case 0:
            return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]
        case 1:
            return data[:at] + bytes((rng.choice((0, 1, 0x7F, 0x80, 0xFF)),)) + data[at + 1 :]
        case 2:
            return data[:at] + data[end:]
        case 3:
            return data[:at] + data[at:end] + data[at:]
        case _:
            return data[:at] + rng.randbytes(end - at) + data[at:]


def only_canonical(decode: Decode, encode: Callable[..., bytes], data: bytes) -> None:
    """Whatever bytes are given: refused as Corrupt, or decoded to what encodes to the same bytes."""
    try:
        value = decode(data)
    except Corrupt as error:
        message = str(error)
    else:
        assert encode(value) == data
        return
    assert all(word in message for word in ("expected", "found", "holdfast check")), message


def strict(
    decode: Decode, encode: Callable[..., bytes], data: bytes, *, delimited: bool = True
) -> None:
    """Feed a decoder good bytes, those bytes cut short everywhere, with more behind, and damaged.

    ``delimited``: the format knows its own end, so that cut or longer bytes are always refused.
    """
    assert encode(decode(data)) == data
    for more in (b"\0", b"\x01", b"\xff", data):
        if delimited:
            with pytest.raises(Corrupt):
                decode(data + more)
        only_canonical(decode, encode, data + more)
    step = max(1, len(data) // 600)  # every byte, but for the few long ones
    for size in range(0, len(data), step):
        if delimited:
            with pytest.raises(Corrupt):
                decode(data[:size])
        only_canonical(decode, encode, data[:size])
    rng = random.Random(len(data))
    for _ in range(400):
        bad = damaged(data, rng)
        only_canonical(decode, encode, bad)
        if bad:
            only_canonical(decode, encode, damaged(bad, rng))
    for size in (0, 1, 2, 3, 5, 40, 100, 300):
        for _ in range(30):
            only_canonical(decode, encode, rng.randbytes(size))
            only_canonical(decode, encode, data[: rng.randrange(8)] + rng.randbytes(size))
