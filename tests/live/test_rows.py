"""Row codecs: what goes in comes out, and nothing else is taken."""

from __future__ import annotations

import contextlib
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import limits
from engine.errors import Corrupt
from engine.live import rows

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)


@given(
    st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO]),
    st.integers(0, 0o7777), st.tuples(u32, u32, u32), st.tuples(i64, i64, i64, i64),
    st.tuples(u64, u64, u64), st.binary(min_size=1, max_size=100),
)  # fmt: skip
def test_inode_rows(kind, mode, owner, times, place, tail) -> None:
    flags, size = 0, 5
    if kind == stat.S_IFREG:
        flags = rows.F_INLINE
    elif kind == stat.S_IFLNK:
        size = len(tail)
    elif kind == stat.S_IFCHR:
        tail = rows.rdev_tail(77)
    else:
        tail = b""
    raw = rows.encode_inode(flags, 2, kind | mode, *owner, size, 9, *times, *place, tail)
    row = rows.decode_inode(raw)
    assert row == (flags, 2, kind | mode, *owner, size, 9, *times, *place, tail)
    assert row.rdev == (77 if kind == stat.S_IFCHR else 0)
    if kind != stat.S_IFREG:
        with pytest.raises(Corrupt):
            rows.decode_inode(raw + b"x")
    for end in (0, 5, 91):
        with pytest.raises(Corrupt):
            rows.decode_inode(raw[:end])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_row_or_corrupt(raw: bytes) -> None:
    for decode in (
        rows.decode_inode, rows.decode_meta, rows.decode_cut, rows.decode_changed, rows.decode_seq,
        rows.decode_dirent,
    ):  # fmt: skip
        with contextlib.suppress(Corrupt):
            decode(raw)


@pytest.mark.parametrize(
    ("mode", "flags", "size", "tail"),
    [
        (stat.S_IFREG, 0, 5, b"tail without flag"),
        (stat.S_IFREG, rows.F_INLINE, 5, b""),
        (stat.S_IFREG, rows.F_INLINE, 5, b"x" * (limits.INLINE_CONTENT_MAX + 1)),
        (stat.S_IFREG, 0, limits.FILE_MAX + 1, b""),
        (stat.S_IFREG, 64, 0, b""),
        (stat.S_IFLNK, 0, 0, b""),
        (stat.S_IFLNK, 0, 3, b"four"),
        (stat.S_IFCHR, 0, 0, b"short"),
        (stat.S_IFDIR, 0, 0, b"x"),
        (0, 0, 0, b""),
        (1 << 16 | stat.S_IFREG, 0, 0, b""),
    ],
)
def test_fields_must_fit_each_other(mode: int, flags: int, size: int, tail: bytes) -> None:
    raw = rows.encode_inode(flags, 0, mode, 1, 0, 0, size, 0, 0, 0, 0, 0, 1, 0, 1, tail)
    with pytest.raises(Corrupt):
        rows.decode_inode(raw)


def test_a_cut_is_begun_before_it_is_done() -> None:
    assert rows.decode_cut(None) == (0, 0)
    assert rows.decode_cut(rows.Cut(5, 4).encode()) == (5, 4)
    with pytest.raises(Corrupt):
        rows.decode_cut(rows.Cut(4, 5).encode())


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0", b"x" * 256])
def test_impossible_names(name: bytes) -> None:
    with pytest.raises(Corrupt):
        rows.decode_dirent(rows.encode_dirent(5, 8, name))


def test_keys_sort_as_their_numbers() -> None:
    keys = [rows.span_key(1, 2, n) for n in (0, 1, 255, 256, 2**23)]
    assert keys == sorted(keys)
    assert [rows.split_span_key(key) for key in keys] == [0, 1, 255, 256, 2**23]
    assert rows.split_link_key(rows.link_key(1, 2, 3, 4)) == (3, 4)
    assert rows.split_dirent_key(rows.dirent_key(1, 2, 2**62)) == 2**62
