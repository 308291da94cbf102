"""Frames of files: what was sealed comes back, nothing else does, and no nonce is used twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Corrupt, FormatTooNew, HoldfastError
from engine.keys import FRAME_OVERHEAD, JOURNAL_MAGIC, PACK_MAGIC, Vault
from tests.keys.support import ID_KEY, LOCATION, Counted

SEALED = Vault(LOCATION, ID_KEY, {1: b"1" * 32, 7: b"7" * 32}, Counted())
PLAIN = Vault(LOCATION, ID_KEY, None, Counted())
VAULTS = pytest.mark.parametrize("vault", [SEALED, PLAIN], ids=["sealed", "plain"])


@given(st.lists(st.binary(max_size=99), max_size=9), st.booleans())
def test_what_was_sealed_comes_back(frames: list[bytes], sealed: bool) -> None:
    vault = SEALED if sealed else PLAIN
    new = vault.new_file(PACK_MAGIC, 2)
    old = vault.file(new.header)
    at = 64
    for plain in frames:
        frame = new.seal(at, memoryview(plain))
        assert len(frame) == len(plain) + FRAME_OVERHEAD
        assert old.open(at, memoryview(frame)) == plain
        for other in (at + 1, 0, 2**60):
            with pytest.raises(Corrupt):
                old.open(other, frame)
        at += len(frame)


@VAULTS
def test_no_offset_twice_and_never_backwards(vault: Vault) -> None:
    new = vault.new_file(PACK_MAGIC, 1)
    new.seal(64, b"first")
    for again in (64, 65, 84, 0, -1):
        with pytest.raises(AssertionError):
            new.seal(again, b"other")
    new.seal(85, b"next")
    with pytest.raises(AssertionError):  # what is read is not written
        vault.file(new.header).seal(200, b"")


def test_every_file_has_a_key_of_its_own() -> None:
    frames = set()
    for magic, kind in ((PACK_MAGIC, 1), (PACK_MAGIC, 1), (PACK_MAGIC, 2), (JOURNAL_MAGIC, 0)):
        new = SEALED.new_file(magic, kind)
        assert new.epoch == 7
        frames.add(new.seal(64, b"the same")[:8])
    assert len(frames) == 4


@VAULTS
def test_every_changed_byte_is_noticed(vault: Vault) -> None:
    new = vault.new_file(PACK_MAGIC, 1)
    raw = new.header + new.seal(64, b"some bytes")
    for at in range(len(raw)):
        for change in (1, 2, 0x80):
            other = bytearray(raw)
            other[at] ^= change
            with pytest.raises(HoldfastError):
                vault.file(bytes(other[:64])).open(64, other[64:])
    for short in range(16):
        with pytest.raises(Corrupt):
            vault.file(new.header).open(64, raw[64 : 64 + short])


def test_headers_that_are_refused() -> None:
    sealed, plain = SEALED.new_file(PACK_MAGIC, 1).header, PLAIN.new_file(PACK_MAGIC, 1).header
    elsewhere = Vault(bytes(16), ID_KEY, {7: b"7" * 32}).new_file(PACK_MAGIC, 1).header
    for vault, header in ((SEALED, plain), (PLAIN, sealed), (SEALED, elsewhere), (SEALED, b"")):
        with pytest.raises(Corrupt):
            vault.file(header)
    with pytest.raises(FormatTooNew):
        SEALED.file(b"HFSEAL02" + sealed[8:])
    with pytest.raises(Corrupt):  # kind of a pack in a journal entry
        SEALED.file(JOURNAL_MAGIC + sealed[8:])


@given(st.binary(min_size=64, max_size=64))
def test_any_header(header: bytes) -> None:
    with pytest.raises(Corrupt):
        SEALED.file(header)
