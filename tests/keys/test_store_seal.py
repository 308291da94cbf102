"""Records of a sealed store: opened as they were sealed, and by nothing else."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import limits
from engine.errors import Corrupt, NoKey, PermissionDenied
from engine.keys import Key, Master, StoreSeal, make, rotated, unlock_store
from tests.keys.support import CHEAP, ID_KEY, LOCATION, Counted

CID = bytes(range(32))
SEAL = StoreSeal(LOCATION, ID_KEY, Master(b"m" * 32), {1: b"1" * 32, 2: b"2" * 32}, Counted())
OLD = StoreSeal(LOCATION, ID_KEY, Master(b"m" * 32), {1: b"1" * 32}, Counted())


def test_golden_payload() -> None:
    """As FORMAT.md has it: epoch, nonce, AES-256-GCM with a key of the id. Made once, and the same ever since."""
    seal = StoreSeal(LOCATION, ID_KEY, Master(b"m" * 32), {1: b"1" * 32}, Counted())
    sealed = seal.seal(CID, b"head", b"payload")
    assert sealed.hex() == (
        "010000003841796a94ab7e39463114d35d7e89699ca5b63598fa03304954e136cb127fc0c5b8d6"
    )


@given(st.binary(max_size=300), st.binary(max_size=60), st.binary(min_size=32, max_size=32))
def test_what_was_sealed_is_opened(payload: bytes, head: bytes, cid: bytes) -> None:
    sealed = SEAL.seal(cid, head, payload)
    assert len(sealed) == len(payload) + limits.RECORD_SEAL
    assert SEAL.open(cid, head, memoryview(sealed)) == payload
    assert SEAL.seal(cid, head, payload)[4:16] != sealed[4:16]


@given(st.integers(0, 87), st.integers(1, 255))
def test_every_changed_byte_is_refused(at: int, change: int) -> None:
    """Of the payload, of the id, and of the head it belongs to."""
    whole = bytearray(CID + b"head" + SEAL.seal(CID, b"head", b"x" * 20))
    assert len(whole) == 88
    whole[at] ^= change
    with pytest.raises((Corrupt, NoKey)):
        SEAL.open(bytes(whole[:32]), bytes(whole[32:36]), whole[36:])


@given(st.binary(max_size=100))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((Corrupt, NoKey)):
        SEAL.open(CID, b"head", data)


def test_another_store_opens_nothing() -> None:
    other = StoreSeal(LOCATION[::-1], ID_KEY, Master(b"m" * 32), {2: b"2" * 32})
    with pytest.raises(Corrupt):
        other.open(CID, b"head", SEAL.seal(CID, b"head", b"payload"))


def test_a_newer_epoch_is_looked_for_and_else_said_to_be_lacking() -> None:
    sealed = SEAL.seal(CID, b"head", b"payload")
    seal = StoreSeal(LOCATION, ID_KEY, Master(b"m" * 32), {1: b"1" * 32})
    with pytest.raises(NoKey, match=r"epoch 2.*nothing is damaged"):
        seal.open(CID, b"head", sealed)
    assert seal.lacking == {2}
    seal.follow(lambda: {1: b"another", 2: b"2" * 32})
    assert seal.open(CID, b"head", sealed) == b"payload"
    assert seal.epoch == 2
    assert seal.open(CID, b"head", OLD.seal(CID, b"head", b"old")) == b"old"


@given(st.binary(max_size=100), st.sampled_from(["a", "b"]))
def test_small_files(plain: bytes, name: str) -> None:
    line = SEAL.wrap(name, plain)
    assert SEAL.unwrap(name, line) == plain if plain else True
    with pytest.raises(Corrupt):
        SEAL.unwrap("another", line)
    with pytest.raises(Corrupt):
        SEAL.unwrap(name, line[:-3] + b"\n")


def test_keys_stay_in_their_process() -> None:
    for one in (SEAL, SEAL.master):
        with pytest.raises(TypeError):
            pickle.dumps(one)
        assert b"m" * 8 not in repr(one).encode()
        assert "31313131" not in repr(one)


def test_a_ring_of_a_store_is_opened_by_a_secret_and_by_what_that_opened() -> None:
    key = Key(b"k" * 32)
    raw, _ = make(LOCATION, ID_KEY, [key], now_ns=1, cost=CHEAP)
    seal, keys = unlock_store(raw, key, store=LOCATION)
    assert (seal.id_key, seal.epoch, list(keys)) == (ID_KEY, 1, [1])
    newer, _ = rotated(raw, key, now_ns=2, cost=CHEAP)
    assert unlock_store(newer, seal.master, store=LOCATION)[0].epoch == 2
    other, _ = rotated(newer, key, master_for=[key], now_ns=3, cost=CHEAP)
    with pytest.raises(PermissionDenied):
        unlock_store(other, seal.master, store=LOCATION)
    with pytest.raises(Corrupt):
        unlock_store(raw, key, store=LOCATION[::-1])
