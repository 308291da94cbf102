"""Key rings: made, opened, changed; known bytes read by other means; nothing changed or wrong is taken."""

import base64
import hmac
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st

from engine import keys
from engine.errors import Corrupt, FormatTooNew, HoldfastError, InvalidRequest, PermissionDenied
from engine.keys import Both, Identity, Key, Opener, Passphrase, Secret
from tests.keys.support import CHEAP, ID_KEY, LOCATION, Counted

GOLDEN = Path(__file__).parent / "golden" / "ring.json"
PASS, KEY, SAFE = Passphrase("swordfish"), Key(b"k" * 32), Identity(b"s" * 32)
BOTH = Both(Passphrase("second"), Key(b"b" * 32))
OPENERS: list[Opener] = [PASS, KEY, BOTH, SAFE]
SECRETS: list[Secret] = [PASS, KEY, BOTH, SAFE.recipient]
WRONG: list[Opener] = [
    Passphrase("Swordfish"), Key(b"K" * 32), Both(Passphrase("second"), KEY), Identity(b"t" * 32),
    Both(PASS, BOTH.key), BOTH.key, BOTH.passphrase,
]  # fmt: skip


def golden() -> bytes:
    """Two epochs, a slot of each kind."""
    system = Counted()
    raw, _ = keys.make(LOCATION, ID_KEY, SECRETS, now_ns=7, cost=CHEAP, system=system)
    return keys.rotated(raw, PASS, now_ns=8, cost=CHEAP, system=system)[0]


RING = golden()


def test_known_bytes() -> None:
    if not GOLDEN.exists():
        GOLDEN.write_bytes(RING)
    assert GOLDEN.read_bytes() == RING


def hkdf(key: bytes, name: str, salt: bytes = bytes(32)) -> bytes:
    """RFC 5869, one block."""
    middle = hmac.digest(salt, key, "sha256")
    return hmac.digest(middle, b"holdfast 1 " + name.encode() + b"\1", "sha256")


def opened(key: bytes, wrapped: str, context: bytes) -> bytes:
    data = base64.b64decode(wrapped)
    return AESGCM(key).decrypt(data[:12], data[12:], context)


def plain_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def slot_key(slot: dict[str, Any]) -> bytes:
    def argon(passphrase: bytes) -> bytes:
        salt = base64.b64decode(slot["salt"])
        return Argon2id(
            salt=salt, length=32, iterations=slot["passes"], lanes=slot["lanes"], memory_cost=slot["memory_kib"]
        ).derive(passphrase)  # fmt: skip

    match slot["kind"]:
        case "passphrase":
            return argon(b"swordfish")
        case "key":
            return hkdf(b"k" * 32, "key")
        case "both":
            return hkdf(argon(b"second") + b"b" * 32, "both")
    private = X25519PrivateKey.from_private_bytes(b"s" * 32)
    public = base64.b64decode(slot["public"])
    shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    return hkdf(shared, "recipient", public + private.public_key().public_bytes_raw())


def test_a_ring_read_by_the_page_alone() -> None:
    ring = json.loads(GOLDEN.read_bytes())
    assert ring["ring"] == 2 and ring["location"] == LOCATION.hex()
    masters = set()
    for slot in ring["slots"]:
        rest = {name: value for name, value in slot.items() if name != "wrapped"}
        masters.add(opened(slot_key(slot), slot["wrapped"], plain_json(rest) + LOCATION))
    (master,) = masters
    body = {name: value for name, value in ring.items() if name != "mac"}
    found = hmac.digest(hkdf(master, "ring"), plain_json(body), "sha256")
    assert base64.b64encode(found).decode() == ring["mac"]
    data_keys = {
        one["epoch"]: opened(hkdf(master, "epoch"), one["wrapped"], LOCATION + one["epoch"].to_bytes(4, "little"))
        for one in ring["epochs"]
    }  # fmt: skip
    assert list(data_keys) == [1, 2]
    secrets = json.loads(opened(hkdf(master, "secrets"), ring["secrets"], LOCATION))
    assert secrets == {"id_key": ID_KEY.hex()}
    vault = keys.unlock(RING, KEY)
    assert vault._epochs == data_keys
    assert vault.fingerprint == hkdf(ID_KEY, "fingerprint", LOCATION)[:8].hex()


@pytest.mark.parametrize("secret", OPENERS, ids=lambda one: type(one).__name__)
def test_every_secret_opens(secret: Opener) -> None:
    vault = keys.unlock(RING, secret, location=LOCATION, least=2)
    assert (vault.location, vault.id_key, vault.epoch, vault.sealed) == (LOCATION, ID_KEY, 2, True)


def test_a_wrong_secret_is_told_nothing() -> None:
    messages = set()
    for secret in WRONG:
        with pytest.raises(PermissionDenied) as refused:
            keys.unlock(RING, secret)
        messages.add(str(refused.value))
    (message,) = messages
    assert "none of" not in message and "4 slots" in message and "swordfish" not in message


def test_slots_come_and_go_but_for_the_last() -> None:
    system = Counted()
    new = Passphrase("new")
    ids = [slot.id for slot in keys.facts(RING).slots]
    raw, vault = keys.with_slots(
        RING, KEY, add=[new], drop=ids[:3], now_ns=9, cost=CHEAP, system=system
    )
    found = keys.facts(raw)
    assert (found.number, [slot.kind for slot in found.slots]) == (3, ["recipient", "passphrase"])
    assert vault.epoch == keys.unlock(raw, new).epoch == keys.unlock(raw, SAFE).epoch == 2
    for gone in (PASS, KEY, BOTH):
        with pytest.raises(PermissionDenied):
            keys.unlock(raw, gone)
    with pytest.raises(InvalidRequest, match="way to open"):
        keys.with_slots(RING, KEY, drop=ids, now_ns=9)
    with pytest.raises(InvalidRequest, match="slot of a key ring"):
        keys.with_slots(RING, KEY, drop=["0" * 16], now_ns=9)
    with pytest.raises(InvalidRequest):
        keys.with_slots(RING, KEY, add=[KEY] * 13, now_ns=9)
    with pytest.raises(InvalidRequest):
        keys.make(LOCATION, ID_KEY, [], now_ns=9)
    with pytest.raises(InvalidRequest):  # the neutral element: the secret would be known to all
        keys.make(LOCATION, ID_KEY, [keys.Recipient(bytes(32))], now_ns=9)


def test_rotation_keeps_what_was_written_readable() -> None:
    before = keys.unlock(RING, KEY)
    old = before.new_file(keys.PACK_MAGIC, 1)
    frame = old.seal(64, b"written before")
    raw, vault = keys.rotated(RING, KEY, master_for=[PASS], now_ns=9, cost=CHEAP)
    assert vault.epoch == 3 and len(keys.facts(raw).slots) == 1
    after = keys.unlock(raw, PASS, least=3)
    assert after.file(old.header).open(64, frame) == b"written before"
    new = after.new_file(keys.PACK_MAGIC, 1)
    with pytest.raises(PermissionDenied, match="epoch 3"):
        before.file(new.header)
    assert after.fingerprint == before.fingerprint
    for gone in (KEY, BOTH, SAFE):
        with pytest.raises(PermissionDenied):
            keys.unlock(raw, gone)
    # Epochs of one master key put into the ring of another are none.
    mixed = json.loads(raw) | {"epochs": json.loads(RING)["epochs"]}
    with pytest.raises(Corrupt):
        keys.unlock(plain_json(mixed), PASS)


def test_a_ring_kept_elsewhere_lets_its_key_into_the_one_there() -> None:
    own = keys.Key.new()
    kept, vault = keys.alone(RING, PASS, own, location=LOCATION, now_ns=9)
    assert [slot.kind for slot in keys.facts(kept).slots] == ["key"] and vault.epoch == 2
    assert keys.unlock(kept, own).fingerprint == vault.fingerprint
    with pytest.raises(PermissionDenied):
        keys.unlock(kept, PASS)
    with pytest.raises(Corrupt, match="location"):
        keys.alone(RING, PASS, own, location=bytes(16), now_ns=9)
    newer, _ = keys.rotated(RING, KEY, now_ns=9)
    raw, vault = keys.let_in(newer, kept, own, least=2, now_ns=9)
    found = keys.facts(raw)
    assert (found.number, len(found.slots)) == (4, 5) and keys.unlock(raw, own).epoch == 3
    assert keys.let_in(raw, kept, own, now_ns=9)[0] == raw
    with pytest.raises(Corrupt, match="number 5"):
        keys.let_in(raw, kept, own, least=5, now_ns=9)
    with pytest.raises(PermissionDenied):
        keys.let_in(RING, kept, keys.Key.new(), now_ns=9)
    other, _ = keys.rotated(RING, KEY, master_for=[PASS], now_ns=9, cost=CHEAP)
    with pytest.raises(PermissionDenied, match="adopt the location anew"):
        keys.let_in(other, kept, own, now_ns=9)


def test_an_older_ring_and_that_of_another_location_are_refused() -> None:
    with pytest.raises(Corrupt, match="number 3"):
        keys.unlock(RING, KEY, least=3)
    with pytest.raises(Corrupt, match="location"):
        keys.unlock(RING, KEY, location=bytes(16))
    moved = RING.replace(LOCATION.hex().encode(), bytes(16).hex().encode())
    with pytest.raises(PermissionDenied):  # no slot opens elsewhere
        keys.unlock(moved, KEY)


def test_every_changed_byte_is_noticed() -> None:
    raw, _ = keys.make(LOCATION, ID_KEY, [KEY], now_ns=7, system=Counted())
    for at in range(len(raw)):
        for change in (1, 0x20, 0x80):
            other = bytearray(raw)
            other[at] ^= change
            with pytest.raises(HoldfastError):
                keys.unlock(bytes(other), KEY, location=LOCATION)


def ring_with(**slot: object) -> bytes:
    ring = json.loads(RING)
    ring["slots"][0] |= slot
    return plain_json(ring)


@pytest.mark.parametrize(
    "raw",
    [
        ring_with(memory_kib=64 << 20),
        ring_with(memory_kib=4),
        ring_with(passes=10**6),
        ring_with(lanes=0),
        ring_with(lanes=True),
        ring_with(passes=1.5),
        ring_with(salt="AAAA"),
        ring_with(id="0"),
        ring_with(wrapped="A" * 10**5),
        RING + b" ",
        b" " * (2 << 20),
        b"[" * 5000,
        b'{"ring":1,"ring":1}',
        b"null",
        b"\xff",
        plain_json(json.loads(RING) | {"slots": []}),
        plain_json(json.loads(RING) | {"slots": json.loads(RING)["slots"][:1] * 2}),
        plain_json(json.loads(RING) | {"epochs": json.loads(RING)["epochs"][::-1]}),
        plain_json(json.loads(RING) | {"ring": 2**80}),
        plain_json(json.loads(RING) | {"ring": 0}).replace(b'"ring":0', b'"ring":1e999'),
        plain_json({name: value for name, value in json.loads(RING).items() if name != "mac"}),
    ],
)
def test_a_hostile_ring_is_refused_before_it_costs_anything(raw: bytes) -> None:
    with pytest.raises(Corrupt):
        keys.unlock(raw, PASS)


def test_the_cost_of_all_slots_is_bounded() -> None:
    ring = json.loads(RING)
    dear = [
        ring["slots"][0] | {"id": f"{n:016x}", "memory_kib": 1 << 20, "passes": 4} for n in range(5)
    ]
    with pytest.raises(Corrupt, match="cost"):
        keys.unlock(plain_json(ring | {"slots": dear}), PASS)


def test_what_is_newer_says_so() -> None:
    for raw in (
        ring_with(kind="hardware"),
        ring_with(colour="blue"),
        plain_json(json.loads(RING) | {"x": 1}),
    ):
        with pytest.raises(FormatTooNew):
            keys.unlock(raw, PASS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)  # fmt: skip


@given(
    st.sampled_from(["ring", "location", "slots", "epochs", "secrets", "mac", "slot", "epoch"]),
    JSON,
)
def test_fields_of_any_type(name: str, value: Any) -> None:
    ring = json.loads(RING)
    match name:
        case "slot":
            ring["slots"][1] = value
        case "epoch":
            ring["epochs"][0] = value
        case _:
            ring[name] = value
    with pytest.raises(HoldfastError):
        keys.unlock(plain_json(ring), KEY)


@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    with pytest.raises(Corrupt):
        keys.facts(raw)


def test_vaults_show_and_give_away_nothing() -> None:
    vault = keys.unlock(RING, KEY)
    seal = vault.new_file(keys.PACK_MAGIC, 1)
    assert vault._epochs is not None
    hidden = [ID_KEY, *vault._epochs.values()]
    for thing in (vault, seal):
        text = f"{thing!r} {thing!s}"
        for secret in hidden:
            assert secret.hex()[:8] not in text and repr(secret)[2:12] not in text
        assert not re.search("[0-9a-f]{40}", text)
        with pytest.raises(TypeError):
            pickle.dumps(thing)
