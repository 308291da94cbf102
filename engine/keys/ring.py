"""The key ring of a location: its master key wrapped for everyone who may open it, and the data keys under that.

A ring is never changed: ``make``, ``with_slots`` and ``rotated`` give the bytes of a new one. A ring is not trusted: it
is read with every length and cost bounded, and means something only once its ``mac`` is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine import limits, strict
from engine.errors import Corrupt, InvalidRequest, PermissionDenied
from engine.keys import ringfile
from engine.keys.primitives import (
    KEY_LEN,
    NONCE_LEN,
    SALT_LEN,
    Cost,
    agree,
    derive,
    mac,
    public_of,
    same,
    stretch,
    unwrap,
    wrap,
)
from engine.keys.records import Master, StoreSeal
from engine.keys.ringfile import Ring, Slot
from engine.keys.seal import Vault
from engine.keys.secrets import Both, Identity, Key, Opener, Passphrase, Recipient, Secret
from engine.seam import REAL, Os

COST = Cost(memory_kib=256 * 1024, passes=3, lanes=4)
"""What we make slots with; only tests take less."""


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """What everybody can see of a slot. ``made_ns``: by the clock of who made it."""

    id: str
    kind: str
    made_ns: int


@dataclass(frozen=True, slots=True)
class RingFacts:
    """What everybody can see of a ring, without any key: nothing of it is certain before it is opened."""

    number: int
    location: bytes
    slots: tuple[SlotFacts, ...]
    epochs: tuple[int, ...]


def facts(raw: bytes) -> RingFacts:
    """What a ring says of itself. Raises Corrupt, FormatTooNew."""
    ring = ringfile.decode(raw)
    slots = tuple(SlotFacts(slot.id, slot.kind, slot.made_ns) for slot in ring.slots)
    return RingFacts(ring.number, ring.location, slots, tuple(ring.epochs))


def make(
    location: bytes, id_key: bytes, secrets: Sequence[Secret], *,
    now_ns: int, cost: Cost = COST, system: Os = REAL,
) -> tuple[bytes, Vault]:  # fmt: skip
    """Ring 1 of a location, and the location opened. Raises InvalidRequest without any secret."""
    master = system.random(KEY_LEN)
    return _first(location, id_key, secrets, master, now_ns, cost, system)


def make_store(
    store: bytes, id_key: bytes, secrets: Sequence[Secret], *,
    now_ns: int, cost: Cost = COST, system: Os = REAL,
) -> tuple[bytes, Master]:  # fmt: skip
    """Ring 1 of a sealed store, and its master key. Raises InvalidRequest without any secret."""
    master = system.random(KEY_LEN)
    raw, _ = _first(store, id_key, secrets, master, now_ns, cost, system)
    return raw, Master(master)


def _first(
    location: bytes, id_key: bytes, secrets: Sequence[Secret], master: bytes, now_ns: int, cost: Cost, system: Os
) -> tuple[bytes, Vault]:  # fmt: skip
    keys = {1: system.random(KEY_LEN)}
    new = _Maker(location, now_ns, cost, system)
    ring = Ring(1, location, (), {}, b"", b"")
    return new.finish(ring, master, keys, id_key, [new.slot(master, one) for one in secrets])


def unlock(
    raw: bytes,
    secret: Opener | Master,
    *,
    location: bytes | None = None,
    least: int = 0,
    system: Os = REAL,
) -> Vault:
    """The location, opened. ``location``: the one that is meant; ``least``: the number of the newest ring seen before.

    Raises PermissionDenied when the secret opens none of the slots, Corrupt, FormatTooNew.
    """
    ring = ringfile.decode(raw)
    _expected(ring, location, least)
    _, keys, id_key = _open(ring, secret)
    return Vault(ring.location, id_key, keys, system)


def unlock_store(
    raw: bytes, secret: Opener | Master, *, store: bytes, system: Os = REAL
) -> tuple[StoreSeal, dict[int, bytes]]:
    """A sealed store, opened by its ring, and its data keys by epoch. Raises as ``unlock``."""
    ring = ringfile.decode(raw)
    _expected(ring, store, 0)
    master, keys, id_key = _open(ring, secret)
    return StoreSeal(store, id_key, Master(master), keys, system), keys


def slot_of(raw: bytes, secret: Opener) -> str:
    """The id of the slot that this secret opens, "" for none. Raises Corrupt, FormatTooNew."""
    found = _master(ringfile.decode(raw), secret)
    return found[0] if found else ""


def with_slots(
    raw: bytes, opener: Opener | Master, *, add: Sequence[Secret] = (), drop: Sequence[str] = (),
    location: bytes | None = None, least: int = 0, now_ns: int, cost: Cost = COST, system: Os = REAL,
) -> tuple[bytes, Vault]:  # fmt: skip
    """The next ring, with slots added, and those with the ids in ``drop`` left out; never the last one. ``location``
    and ``least`` as of ``unlock``.

    Leaving a slot out does not take from its owner what he could read before: ``rotated`` does, for what is new.
    """
    ring = ringfile.decode(raw)
    _expected(ring, location, least)
    master, keys, id_key = _open(ring, opener)
    unknown = set(drop) - {slot.id for slot in ring.slots}
    if unknown:
        known = ", ".join(slot.id for slot in ring.slots)
        raise InvalidRequest(
            "slot of a key ring", expected=f"one of {known}", found=", ".join(sorted(unknown))
        )
    new = _Maker(ring.location, now_ns, cost, system)
    slots = [slot for slot in ring.slots if slot.id not in drop]
    slots += [new.slot(master, one) for one in add]
    return new.finish(replace(ring, number=ring.number + 1), master, keys, id_key, slots)


def alone(
    raw: bytes, opener: Opener, key: Key, *, location: bytes, now_ns: int, system: Os = REAL
) -> tuple[bytes, Vault]:  # fmt: skip
    """The ring with one slot, for this key: to be kept elsewhere than at the location. Raises as ``unlock``."""
    ring = ringfile.decode(raw)
    _expected(ring, location, 0)
    master, keys, id_key = _open(ring, opener)
    new = _Maker(ring.location, now_ns, COST, system)
    return new.finish(ring, master, keys, id_key, [new.slot(master, key)])


def let_in(
    raw: bytes, other: bytes, key: Key, *, least: int = 0, now_ns: int, system: Os = REAL
) -> tuple[bytes, Vault]:  # fmt: skip
    """The next ring, with a slot for the key that opens ``other``: one of the same master key (see ``alone``); the ring
    as it is where the key opens it already.

    Raises PermissionDenied when the master key is another by now, Corrupt, FormatTooNew.
    """
    ring, kept = ringfile.decode(raw), ringfile.decode(other)
    _expected(ring, kept.location, least)
    if _master(ring, key) is not None:
        _, keys, id_key = _open(ring, key)
        return raw, Vault(ring.location, id_key, keys, system)
    master, _, _ = _open(kept, key)
    if not same(mac(derive(master, "ring"), ringfile.body(ring)), ring.mac):
        raise PermissionDenied(
            _name(ring), expected="the master key that it had when the location was adopted",
            found="another", do="adopt the location anew, with its passphrase or key",
        )  # fmt: skip
    keys, id_key = _under(ring, master)
    new = _Maker(ring.location, now_ns, COST, system)
    slots = [*ring.slots, new.slot(master, key)]
    return new.finish(replace(ring, number=ring.number + 1), master, keys, id_key, slots)


def rotated(
    raw: bytes, opener: Opener | Master, *, master_for: Sequence[Secret] = (),
    location: bytes | None = None, least: int = 0, now_ns: int, cost: Cost = COST, system: Os = REAL,
) -> tuple[bytes, Vault]:  # fmt: skip
    """The next ring, with a new epoch: what is written from now on has another key.

    ``master_for``: a new master key as well, with slots for these and for nobody else. ``location`` and ``least`` as
    of ``unlock``.
    """
    ring = ringfile.decode(raw)
    _expected(ring, location, least)
    master, keys, id_key = _open(ring, opener)
    keys[max(keys) + 1] = system.random(KEY_LEN)
    new = _Maker(ring.location, now_ns, cost, system)
    slots = list(ring.slots)
    if master_for:
        master = system.random(KEY_LEN)
        slots = [new.slot(master, one) for one in master_for]
    return new.finish(replace(ring, number=ring.number + 1), master, keys, id_key, slots)


# --- opening ----------------------------------------------------------------------------------------------


def _expected(ring: Ring, location: bytes | None, least: int) -> None:
    if location is not None and ring.location != location:
        raise Corrupt("key ring", expected=f"location {location.hex()}", found=ring.location.hex())
    if ring.number < least:
        raise Corrupt(
            f"key ring of location {ring.location.hex()}", expected=f"number {least} or more",
            found=str(ring.number), do="find out who put an older ring there",
        )  # fmt: skip


def _name(ring: Ring) -> str:
    return f"key ring {ring.number} of location {ring.location.hex()}"


def _open(ring: Ring, secret: Opener | Master) -> tuple[bytes, dict[int, bytes], bytes]:
    """(master key, data keys by epoch, id key)."""
    if isinstance(secret, Master):
        right = same(mac(derive(secret.data, "ring"), ringfile.body(ring)), ring.mac)
        found = ("", secret.data) if right else None
    else:
        found = _master(ring, secret)
    if found is None:
        # Nothing here tells whether there is a slot of this kind, or how near the secret was.
        raise PermissionDenied(
            _name(ring), expected=f"a secret that opens one of its {len(ring.slots)} slots",
            found="one that opens none", do="give another passphrase, key or both",
        )  # fmt: skip
    master = found[1]
    return master, *_under(ring, master)


def _under(ring: Ring, master: bytes) -> tuple[dict[int, bytes], bytes]:
    """(data keys by epoch, id key) of a ring whose master key is known."""
    name = _name(ring)
    body = ringfile.body(ring)
    if not same(mac(derive(master, "ring"), body), ring.mac):
        raise Corrupt(name, expected="what its makers wrote", found="a changed ring")
    under = derive(master, "epoch")
    keys = {}
    for epoch, wrapped in ring.epochs.items():
        key = unwrap(under, wrapped, ringfile.epoch_context(ring.location, epoch))
        if key is None:
            raise Corrupt(name, expected="a data key", found="other bytes")
        keys[epoch] = key
    plain = unwrap(derive(master, "secrets"), ring.secrets, ring.location)
    if plain is None:
        raise Corrupt(name, expected="the key of chunk ids", found="other bytes")
    return keys, _id_key(plain, name)


def _id_key(plain: bytes, name: str) -> bytes:
    return strict.Fields(ringfile.load(plain, name), name, ("id_key",)).digits("id_key", KEY_LEN)


def _master(ring: Ring, secret: Opener) -> tuple[str, bytes] | None:
    """(id of the slot, master key), None when it opens none."""
    for slot in ring.slots:
        key = _opening_key(slot, secret)
        if key is not None:
            master = unwrap(key, slot.wrapped, ringfile.slot_context(ring.location, slot))
            if master is not None and len(master) == KEY_LEN:
                return slot.id, master
    return None


def _opening_key(slot: Slot, secret: Opener) -> bytes | None:
    """What wraps the master key in this slot if the secret is the one, None when it is of another kind."""
    match slot.kind, secret:
        case "recipient", Identity(private):
            shared = agree(private, slot.public)
            return shared and derive(shared, "recipient", slot.public + public_of(private))
        case "passphrase", Passphrase():
            return _locking_key(secret, slot)
        case "key", Key():
            return _locking_key(secret, slot)
        case "both", Both():
            return _locking_key(secret, slot)
    return None


def _locking_key(secret: Passphrase | Key | Both, slot: Slot) -> bytes:
    if isinstance(secret, Key):
        return derive(secret.data, "key")
    assert slot.cost is not None
    if isinstance(secret, Passphrase):
        return stretch(secret.data, slot.salt, slot.cost)
    return derive(stretch(secret.passphrase.data, slot.salt, slot.cost) + secret.key.data, "both")


# --- making -----------------------------------------------------------------------------------------------


class _Maker:
    """Makes one ring: its new slots, and all that is wrapped by the master key."""

    def __init__(self, location: bytes, now_ns: int, cost: Cost, system: Os) -> None:
        self._location = location
        self._now_ns = now_ns
        self._cost = cost
        self._system = system

    def slot(self, master: bytes, secret: Secret) -> Slot:
        """The master key wrapped for one who may open it."""
        random = self._system.random
        kinds = {Passphrase: "passphrase", Key: "key", Both: "both", Recipient: "recipient"}
        slot = Slot(random(8).hex(), kinds[type(secret)], self._now_ns)
        if isinstance(secret, Passphrase | Both):
            slot = replace(slot, salt=random(SALT_LEN), cost=self._cost)
        if isinstance(secret, Recipient):
            ephemeral = random(KEY_LEN)
            shared = agree(ephemeral, secret.public)
            if shared is None:
                raise InvalidRequest(
                    "recipient", expected="a public key", found="one that hides nothing"
                )
            slot = replace(slot, public=public_of(ephemeral))
            key = derive(shared, "recipient", slot.public + secret.public)
        else:
            key = _locking_key(secret, slot)
        context = ringfile.slot_context(self._location, slot)
        return replace(slot, wrapped=wrap(key, random(NONCE_LEN), master, context))

    def finish(
        self, ring: Ring, master: bytes, keys: dict[int, bytes], id_key: bytes, slots: list[Slot]
    ) -> tuple[bytes, Vault]:
        """The bytes of the ring with these slots, keys and secrets, and the location opened."""
        if not 0 < len(slots) <= limits.RING_SLOTS_MAX or len(keys) > limits.RING_EPOCHS_MAX:
            raise InvalidRequest(
                "key ring", expected=f"1 to {limits.RING_SLOTS_MAX} slots, {limits.RING_EPOCHS_MAX} epochs",
                found=f"{len(slots)} slots, {len(keys)} epochs", do="keep a way to open the location",
            )  # fmt: skip
        random = self._system.random
        under = derive(master, "epoch")
        epochs = {
            epoch: wrap(under, random(NONCE_LEN), key, ringfile.epoch_context(self._location, epoch))
            for epoch, key in keys.items()
        }  # fmt: skip
        secrets = strict.dump({"id_key": id_key.hex()})
        sealed = wrap(derive(master, "secrets"), random(NONCE_LEN), secrets, self._location)
        ring = replace(ring, slots=tuple(slots), epochs=epochs, secrets=sealed)
        ring = replace(ring, mac=mac(derive(master, "ring"), ringfile.body(ring)))
        raw = ringfile.encode(ring)
        ringfile.decode(raw)  # what nobody could read is not written
        return raw, Vault(self._location, id_key, keys, self._system)
