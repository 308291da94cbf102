"""How a chunk's plaintext becomes a record's payload: delta, zstd or raw, whichever is smaller and worth it."""

from __future__ import annotations

from typing import NamedTuple

from engine import codec, limits
from engine.index.rows import ENC_DELTA, ENC_DICT, ENC_RAW, ENC_ZSTD

_RAW_ABOVE = 0.97  # a frame that saves less than this is not worth decoding
_DICT_COST = 72  # bytes that naming the dictionary adds to record and row
_DELTA_AT_ONCE = 0.2  # a delta below this part of the plaintext is taken without trying plain zstd


class Encoded(NamedTuple):
    """A payload and how it is encoded (``ENC_*``)."""

    encoding: int
    payload: codec.Bytes


def plain(
    data: codec.Bytes, dictionary: codec.Dictionary | None = None, level: int = limits.ZSTD_LEVEL
) -> Encoded:
    """zstd (with the group's dictionary if it has one), or raw when zstd gains nothing."""
    if dictionary is not None:
        frame = dictionary.compress(data)
        if len(frame) + _DICT_COST < len(data) * _RAW_ABOVE:
            return Encoded(ENC_DICT, frame)
        return Encoded(ENC_RAW, data)
    frame = codec.compress(data, level)
    if len(frame) >= len(data) * _RAW_ABOVE:
        return Encoded(ENC_RAW, data)
    return Encoded(ENC_ZSTD, frame)


def with_prefix(
    data: codec.Bytes,
    prefix: codec.Bytes,
    overhead: int,
    dictionary: codec.Dictionary | None = None,
    level: int = limits.ZSTD_LEVEL,
) -> Encoded:
    """A delta against ``prefix`` if it pays (``overhead``: bytes its bases add to the record), else ``plain``."""
    frame = codec.compress_with_prefix(data, prefix)
    cost = len(frame) + overhead
    if cost <= len(data) * _DELTA_AT_ONCE:
        return Encoded(ENC_DELTA, frame)
    other = plain(data, dictionary, level)
    if cost < len(other.payload) * limits.DELTA_WORTH:
        return Encoded(ENC_DELTA, frame)
    return other
