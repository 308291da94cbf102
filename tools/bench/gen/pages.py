"""Synthetic database pages of 8 KiB: the unit that dbimg and dbset are made of.

A page is a pure function of (seed, file number, block number, LSN); an update is a pure function
of the page before it and the same key, so every run and every machine gets the same bytes.

Layout, little endian, 8192 bytes::

    0   u8   page type (6 = table data)        16  u64  LSN of the last change
    1   u8   format                            24  u32  CRC-32 of the page with this field zero
    2   u16  rows                              28  u16  end of the row directory
    4   u32  object id (table)                 30  u16  start of the row data
    8   u32  file number                       32  u16[rows]  row directory: offset of each row
    12  u32  block number                      ..  free space (zero), then rows to 8188
                                               8188 u32 low half of the LSN (torn-write check)

Row, an order line: flags u8, columns u8, lock u8, id u32, changed-at u32, amount i64, state
(8 bytes, padded), then length-prefixed columns: token (random bytes), reference (random, in hex
digits), customer (first and last name, street, postcode, city), article (number, description).
Customers and articles come from small tables, and neighbouring rows often share the customer.
The share of random bytes is set so that 64 KiB compress about 2.33 : 1 and 1 MiB 2.65 : 1 with
zstd at level 1, which is what row data of real systems was measured to give.
"""

import hashlib
import struct
import zlib
from bisect import bisect_right
from itertools import accumulate
from typing import Final

PAGE: Final = 8192
HEADER: Final = struct.Struct("<BBHIIIQIHH")
FIXED: Final = struct.Struct("<BBBIIq8s")
TAIL: Final = 4
FREE: Final = 480  # bytes left free at least, a fill of about 94 %
ROWS_TRIED: Final = 56  # more than fit into a page, so that the page is always filled
TOKEN: Final = 35  # random bytes per row, incompressible
REFERENCE: Final = 8  # random bytes per row, written as hex digits
CUSTOMERS: Final = 200
ARTICLES: Final = 36
SAME_CUSTOMER: Final = 54_000  # of 65,536: chance that the next row is of the same customer

_DRAWS: Final = 5  # random 16-bit numbers per row
_EPOCH: Final = 1_767_225_600
_STATES: Final = (b"open    ", b"paid    ", b"shipped ", b"returned")
_STATE: Final = tuple(_STATES[int(4 * (n / 256) ** 2)] for n in range(256))
_SYLLABLES: Final = (
    "ba be bi bo bra co da de den do el en er es fa fe ga gen ha he il in is ka ke ko la le li lo "
    "ma me mi mo na ne ni no or pa pe ra re ri ro sa se si so sta ta te ti to tor va ve vi wa we zi"
).split()


def stream(size: int, *key: object) -> bytes:
    """Return `size` bytes that depend only on `key`."""
    return hashlib.shake_128("/".join(map(str, key)).encode()).digest(size)


class _Words:
    """An endless supply of invented words, the same ones for the same label."""

    def __init__(self, label: str) -> None:
        self._raw = iter(stream(1 << 17, "words", label))

    def number(self, limit: int) -> int:
        """Return a number below `limit`."""
        return (next(self._raw) << 8 | next(self._raw)) % limit

    def word(self, low: int, high: int) -> str:
        """Return a word of `low` to `high` syllables."""
        size = low + self.number(high - low + 1)
        return "".join(_SYLLABLES[self.number(len(_SYLLABLES))] for _ in range(size))

    def columns(self, *values: str) -> bytes:
        """Return `values` as length-prefixed columns."""
        return b"".join(bytes((len(value),)) + value.encode() for value in values)

    def customer(self) -> bytes:
        """Return the columns of one customer."""
        street = f"{self.word(3, 5).title()} {1 + self.number(199)}"
        name = self.word(2, 3).title(), self.word(2, 4).title()
        return self.columns(*name, street, f"{self.number(100_000):05}", self.word(2, 4).title())

    def article(self) -> bytes:
        """Return the columns of one article."""
        text = " ".join(self.word(1, 3) for _ in range(6 + self.number(5)))
        return self.columns(f"{self.number(100_000):05}-{self.number(1000):03}", text)


def _tables() -> tuple[list[bytes], list[bytes]]:
    """Return the customers and the articles."""
    words = _Words("tables")
    return [words.customer() for _ in range(CUSTOMERS)], [words.article() for _ in range(ARTICLES)]


_CUSTOMERS, _ARTICLES = _tables()


def _finish(page: bytearray, lsn: int) -> bytes:
    """Set LSN, tail and checksum of `page` and return it as bytes."""
    struct.pack_into("<QI", page, 16, lsn, 0)
    struct.pack_into("<I", page, PAGE - TAIL, lsn & 0xFFFFFFFF)
    struct.pack_into("<I", page, 24, zlib.crc32(page))
    return bytes(page)


def make_page(seed: int, file: int, block: int, lsn: int) -> bytes:
    """Return a page full of new rows."""
    raw = stream(ROWS_TRIED * (2 * _DRAWS + TOKEN + REFERENCE), seed, file, block, lsn)
    draws = struct.unpack_from(f"<{_DRAWS * ROWS_TRIED}H", raw)
    at = 2 * _DRAWS * ROWS_TRIED
    digits = raw[at + TOKEN * ROWS_TRIED :].hex().encode()
    first_id = block * 48 + (lsn & 0xFFFF) * 7
    moment = _EPOCH + block * 40 + (lsn >> 8) % 86_400
    pack, size = FIXED.pack, 2 * REFERENCE
    customer = _CUSTOMERS[draws[0] % CUSTOMERS]
    rows = []
    for n in range(ROWS_TRIED):
        a, b, c, d, e = draws[n * _DRAWS : n * _DRAWS + _DRAWS]
        if a > SAME_CUSTOMER:
            customer = _CUSTOMERS[b % CUSTOMERS]
        fixed = pack(0x2C, 9, 0, first_id + n, moment + n * 5 + (c & 3), 100 + d, _STATE[c >> 8])
        token = raw[at + TOKEN * n : at + TOKEN * n + TOKEN]
        rows.append(
            b"%b%c%b%c%b%b%b"
            % (fixed, TOKEN, token, size, digits[size * n : size * n + size], customer,
               _ARTICLES[(e * e >> 16) * ARTICLES >> 16])
        )  # fmt: skip
    room = PAGE - HEADER.size - TAIL - FREE
    ends = list(accumulate(map(len, rows)))
    count = bisect_right([end + 2 * n for n, end in enumerate(ends, 1)], room)
    page = bytearray(PAGE)
    low, high = HEADER.size + 2 * count, PAGE - TAIL - ends[count - 1]
    HEADER.pack_into(page, 0, 6, 1, count, 1000 + file, file, block, 0, 0, low, high)
    struct.pack_into(f"<{count}H", page, HEADER.size, *(PAGE - TAIL - e for e in ends[:count]))
    page[high : PAGE - TAIL] = b"".join(reversed(rows[:count]))
    return _finish(page, lsn)


def update_page(page: bytes, seed: int, lsn: int) -> bytes:
    """Return `page` with one to four of its rows updated in place."""
    head = HEADER.unpack_from(page)
    count, file, block = head[2], head[4], head[5]
    raw = stream(32, seed, "update", file, block, lsn)
    new = bytearray(page)
    for n in range(1 + raw[0] % 4):
        part = raw[1 + n * 7 : 8 + n * 7]
        row = int.from_bytes(part[:2], "little") % count
        (at,) = struct.unpack_from("<H", new, HEADER.size + 2 * row)
        fixed = FIXED.unpack_from(new, at)
        amount = 100 + int.from_bytes(part[2:4], "little")
        moment = _EPOCH + 100_000_000 + (lsn >> 8) % 86_400 + part[4]
        FIXED.pack_into(new, at, *fixed[:4], moment, amount, _STATE[part[5]])
    return _finish(new, lsn)


def verify_page(page: bytes) -> bool:
    """Return whether checksum and tail of `page` fit its contents."""
    new = bytearray(page)
    (kept,) = struct.unpack_from("<I", new, 24)
    struct.pack_into("<I", new, 24, 0)
    return zlib.crc32(new) == kept and page[16:20] == page[PAGE - TAIL :]
