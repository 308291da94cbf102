"""Pack formats: golden bytes, round trips, refusal of everything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Corrupt
from engine.packs import records
from engine.packs.records import Base, Entry, PackHeader

ID = bytes(range(32))


def test_golden_header() -> None:
    raw = records.encode_header(PackHeader(b"s" * 16, 7, 1, 1_700_000_000_000_000_000))
    created = (1_700_000_000_000_000_000).to_bytes(8, "little")
    assert raw[:-4] == b"HFPACK01" + b"s" * 16 + b"\7\0\0\0" + b"\1" + bytes(3) + created + bytes(
        20
    )
    assert raw[:8] == b"HFPACK01"
    assert len(raw) == records.HEADER_LEN == 64
    assert records.decode_header(raw) == PackHeader(b"s" * 16, 7, 1, 1_700_000_000_000_000_000)


def test_golden_record_head() -> None:
    raw = records.encode_record_head(1, 2, 1, 65536, 100, ID, (Base(ID, 3, 9),))
    assert raw[:16].hex() == "484652310102010100000100" + "64000000"
    assert raw[16:48] == ID
    assert raw[52:] == ID + (3).to_bytes(4, "little") + (9).to_bytes(4, "little")
    record = records.decode_record_head(raw + b"payload follows")
    assert (record.head, record.size) == (92, 192)
    assert record.bases == (Base(ID, 3, 9),)


@given(st.integers(0, 91), st.integers(1, 255))
def test_every_changed_byte_of_a_record_head_is_refused(at: int, change: int) -> None:
    raw = bytearray(records.encode_record_head(1, 2, 1, 65536, 100, ID, (Base(ID, 3, 9),)))
    raw[at] ^= change
    with pytest.raises(Corrupt):
        records.decode_record_head(bytes(raw))


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(raw: bytes) -> None:
    for decode in (records.decode_header, records.decode_record_head, records.decode_footer):
        with pytest.raises(Corrupt):
            decode(raw)


@pytest.mark.parametrize(
    "fields",
    [
        (9, 0, 0, 10, 10, ()),  # kind
        (1, 9, 0, 10, 10, ()),  # encoding
        (1, 0, 0, 10, 11, ()),  # raw of another length
        (1, 2, 1, 10, 10, ()),  # delta without bases
        (1, 1, 0, 10, 10, (Base(ID, 0, 5),)),  # bases without delta
        (1, 2, 9, 10, 10, (Base(ID, 0, 50),)),  # too deep
        (1, 1, 0, 1 << 30, 10, ()),  # plaintext beyond its limit
        (1, 2, 1, 10, 10, (Base(ID, 1 << 30, 5),)),  # a part beyond any chunk
        (1, 3, 0, 10, 10, (Base(ID, 0, 5), Base(ID, 0, 5))),  # two dictionaries
    ],
)
def test_fields_beyond_their_limits_are_refused(fields: tuple[object, ...]) -> None:
    kind, encoding, depth, plain, payload, bases = fields
    raw = records.encode_record_head(kind, encoding, depth, plain, payload, ID, bases)  # type: ignore[arg-type]
    with pytest.raises(Corrupt):
        records.decode_record_head(raw)


def _trailer() -> tuple[list[Entry], bytes]:
    first = Entry(ID, records.HEADER_LEN, 152, 100, 1, 1, 0, ())
    second = Entry(ID[::-1], records.HEADER_LEN + 152, 200, 100, 1, 2, 1, (ID,))
    return [first, second], records.encode_trailer(
        [first, second], records.HEADER_LEN + 352, b"d" * 32
    )


def test_trailer_round_trip_and_damage() -> None:
    entries, raw = _trailer()
    body, end = raw[: -records.FOOTER_LEN], raw[-records.FOOTER_LEN :]
    footer = records.decode_footer(end)
    assert footer.digest == b"d" * 32
    assert records.decode_trailer(body, footer) == entries
    for at in range(len(body)):
        with pytest.raises(Corrupt):
            records.decode_trailer(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], footer)
    for at in range(len(end)):
        with pytest.raises(Corrupt):
            records.decode_footer(end[:at] + bytes([end[at] ^ 1]) + end[at + 1 :])
