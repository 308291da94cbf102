"""The codec: round trips, and refusal of every frame that is not exactly what was declared."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import codec, limits
from engine.errors import Corrupt

data = st.binary(max_size=5000)


@given(data, data)
def test_round_trips(plain: bytes, prefix: bytes) -> None:
    assert codec.decompress(codec.compress(plain), len(plain)) == plain
    prefix += b"at least eight bytes"
    frame = codec.compress_with_prefix(plain, prefix)
    assert codec.decompress(frame, len(plain), prefix) == plain
    dictionary = codec.Dictionary(prefix)
    assert dictionary.decompress(dictionary.compress(plain), len(plain)) == plain


@given(st.binary(min_size=1, max_size=3000), st.integers(min_value=0), st.integers(0, 255))
def test_a_changed_frame_is_refused_or_decodes_to_the_declared_length(
    plain: bytes, at: int, byte: int
) -> None:
    frame = bytearray(codec.compress(plain))
    frame[at % len(frame)] ^= byte or 1
    with contextlib.suppress(Corrupt):  # BLAKE3 tells what it decoded to
        assert len(codec.decompress(bytes(frame), len(plain))) == len(plain)


@pytest.mark.parametrize("change", ["cut", "byte", "twice", "empty", "head"])
def test_torn_or_longer_frames_are_refused(change: str) -> None:
    frame = codec.compress(b"some rows of a table " * 100)
    bad = {
        "cut": frame[:-1],
        "byte": frame + b"x",
        "twice": frame * 2,
        "empty": b"",
        "head": frame[:5],
    }
    with pytest.raises(Corrupt):
        codec.decompress(bad[change], 2100)


def test_a_declared_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(Corrupt, match="declared"):
        codec.decompress(codec.compress(bytes(64 * limits.MIB)), limits.SLOT)


def test_a_delta_of_changed_rows_is_far_smaller_than_its_frame() -> None:
    rows = b"".join(b"%08d|name-%d|%d\n" % (i, i * 7919 % 1000, i * 104729) for i in range(2500))[
        : limits.SLOT
    ]
    changed = rows[:30000] + b"CHANGED!" + rows[30008:]
    assert len(codec.compress_with_prefix(changed, rows)) * 20 < len(codec.compress(changed))


@given(st.binary(min_size=1, max_size=200_000))
def test_cuts_cover_the_data_within_their_bounds(plain: bytes) -> None:
    ends = codec.Cutter().cuts(plain)
    sizes = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert ends[-1] == len(plain)
    assert all(0 < size <= limits.PIECE_MAX for size in sizes)
    assert all(size >= limits.PIECE_MIN for size in sizes[:-1])


def test_ids_depend_on_the_key_and_a_fingerprint_is_the_head_of_one() -> None:
    one, two = codec.chunk_id(b"k" * 32, b"rows"), codec.chunk_id(b"q" * 32, b"rows")
    assert one != two
    assert codec.fingerprint(b"k" * 32, b"rows") == one[:16]
