"""The JSON of a key ring, strictly: one form only, every field of its type, every length and cost bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine import limits, strict
from engine.errors import FormatTooNew
from engine.keys.primitives import (
    KEY_LEN,
    NONCE_LEN,
    SALT_LEN,
    TAG_LEN,
    WRAPPED_LEN,
    Cost,
)
from engine.keys.seal import LOCATION_LEN

_COST = ("salt", "memory_kib", "passes", "lanes")
_FIELDS: dict[str, tuple[str, ...]] = {
    "passphrase": _COST,
    "key": (),
    "both": _COST,
    "recipient": ("public",),
}
_COMMON = ("id", "kind", "made", "wrapped")
_SECRETS_LEN = NONCE_LEN + len('{"id_key":""}') + 2 * KEY_LEN + TAG_LEN


@dataclass(frozen=True, slots=True)
class Slot:
    """The master key wrapped for one who may open it; ``salt`` and ``cost`` where there is a passphrase."""

    id: str
    kind: str
    made_ns: int
    salt: bytes = b""
    cost: Cost | None = None
    public: bytes = b""
    wrapped: bytes = b""


@dataclass(frozen=True, slots=True)
class Ring:
    """A key ring as it lies at the location. ``epochs``: wrapped data keys by number, ascending."""

    number: int
    location: bytes
    slots: tuple[Slot, ...]
    epochs: dict[int, bytes]
    secrets: bytes
    mac: bytes


def load(raw: bytes, what: str) -> Any:
    """The value of canonical JSON. Raises Corrupt for any other form of it."""
    value = strict.parse(raw, what)
    if strict.dump(value) != raw:
        strict.refuse(what, "canonical JSON", "another form of it")
    return value


def _slot_fields(slot: Slot) -> dict[str, object]:
    """A slot without ``wrapped``."""
    fields: dict[str, object] = {"id": slot.id, "kind": slot.kind, "made": slot.made_ns}
    if slot.cost is not None:
        fields["salt"] = strict.encoded(slot.salt)
        fields["memory_kib"] = slot.cost.memory_kib
        fields["passes"] = slot.cost.passes
        fields["lanes"] = slot.cost.lanes
    if slot.public:
        fields["public"] = strict.encoded(slot.public)
    return fields


def slot_context(location: bytes, slot: Slot) -> bytes:
    """What the wrapped master key is bound to."""
    return strict.dump(_slot_fields(slot)) + location


def epoch_context(location: bytes, epoch: int) -> bytes:
    """What a wrapped data key is bound to."""
    return location + epoch.to_bytes(4, "little")


def _fields(ring: Ring) -> dict[str, object]:
    return {
        "ring": ring.number,
        "location": ring.location.hex(),
        "slots": [
            _slot_fields(slot) | {"wrapped": strict.encoded(slot.wrapped)} for slot in ring.slots
        ],
        "epochs": [
            {"epoch": n, "wrapped": strict.encoded(key)} for n, key in sorted(ring.epochs.items())
        ],
        "secrets": strict.encoded(ring.secrets),
    }


def body(ring: Ring) -> bytes:
    """What the ring's ``mac`` is over."""
    return strict.dump(_fields(ring))


def encode(ring: Ring) -> bytes:
    """The bytes of a ring."""
    return strict.dump(_fields(ring) | {"mac": strict.encoded(ring.mac)})


def decode(raw: bytes) -> Ring:
    """The ring of these bytes: its form is sound, its mac not looked at. Raises Corrupt, FormatTooNew."""
    if len(raw) > limits.RING_MAX:
        strict.refuse("key ring", f"at most {limits.RING_MAX} bytes", len(raw))
    top = strict.Fields(
        load(raw, "key ring"), "key ring", ("ring", "location", "slots", "epochs", "secrets", "mac")
    )
    location = top.digits("location", LOCATION_LEN)
    slots = tuple(map(_slot, top.items("slots", 1, limits.RING_SLOTS_MAX)))
    if len({slot.id for slot in slots}) != len(slots):
        strict.refuse("slots of key ring", "each id once", "one again")
    work = sum(slot.cost.memory_kib * slot.cost.passes for slot in slots if slot.cost)
    if work > limits.ARGON2_WORK_MAX:
        strict.refuse("slots of key ring", f"a cost of {limits.ARGON2_WORK_MAX} KiB in all", work)
    epochs: dict[int, bytes] = {}
    last = 0
    for value in top.items("epochs", 1, limits.RING_EPOCHS_MAX):
        one = strict.Fields(value, "epoch of key ring", ("epoch", "wrapped"))
        last = one.number("epoch", last + 1, strict.U32)
        epochs[last] = one.data("wrapped", WRAPPED_LEN)
    number = top.number("ring", 1, strict.U32)
    return Ring(
        number, location, slots, epochs, top.data("secrets", _SECRETS_LEN), top.data("mac", KEY_LEN)
    )


def _slot(value: Any) -> Slot:
    what = "slot of key ring"
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        strict.refuse(what, "a kind", "none")
    if kind not in _FIELDS:
        raise FormatTooNew(
            what, expected=", ".join(_FIELDS), found=ascii(kind)[:80],
            do="use the Holdfast that wrote it",
        )  # fmt: skip
    one = strict.Fields(value, what, (*_COMMON, *_FIELDS[kind]))
    slot_id = one.digits("id", 8).hex()
    salt, cost, public = b"", None, b""
    if _FIELDS[kind] == _COST:
        salt = one.data("salt", SALT_LEN)
        cost = Cost(
            *[one.number(name, 1, strict.U32) for name in ("memory_kib", "passes", "lanes")]
        )
        cost.check(f"passphrase {what}")
    if kind == "recipient":
        public = one.data("public", KEY_LEN)
    made = one.number("made", 0, strict.I63)
    return Slot(slot_id, kind, made, salt, cost, public, one.data("wrapped", WRAPPED_LEN))
