"""The constructions everything here is made of: HKDF-SHA256, AES-256-GCM, Argon2id, X25519, HMAC-SHA256."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from engine import limits
from engine.errors import Corrupt

KEY_LEN = 32
NONCE_LEN = 12
TAG_LEN = 16
SALT_LEN = 16  # of Argon2id
WRAPPED_LEN = NONCE_LEN + KEY_LEN + TAG_LEN


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess of a passphrase costs: memory in KiB, passes over it, lanes. Bounded: a ring is not trusted."""

    memory_kib: int
    passes: int
    lanes: int

    def check(self, what: str) -> None:
        """Raises Corrupt for what would cost the one who opens the ring too much, or cannot be computed."""
        sound = (
            1 <= self.lanes <= limits.ARGON2_LANES_MAX
            and 1 <= self.passes <= limits.ARGON2_PASSES_MAX
            and 8 * self.lanes <= self.memory_kib <= limits.ARGON2_MEMORY_KIB_MAX
        )
        if not sound:
            memory, passes = limits.ARGON2_MEMORY_KIB_MAX, limits.ARGON2_PASSES_MAX
            most = f"{memory} KiB, {passes} passes, {limits.ARGON2_LANES_MAX} lanes"
            found = f"{self.memory_kib} KiB, {self.passes} passes, {self.lanes} lanes"
            raise Corrupt(what, expected=f"a cost of at most {most}", found=found)


def derive(key: bytes, name: str, salt: bytes | None = None) -> bytes:
    """HKDF-SHA256 with the info ``holdfast 1 NAME``: 32 bytes."""
    return HKDF(hashes.SHA256(), KEY_LEN, salt, b"holdfast 1 " + name.encode()).derive(key)


def stretch(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    """Argon2id: 32 bytes."""
    return Argon2id(
        salt=salt,
        length=KEY_LEN,
        iterations=cost.passes,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    ).derive(passphrase)


def wrap(key: bytes, nonce: bytes, plain: bytes, context: bytes) -> bytes:
    """Nonce and AES-256-GCM of a few bytes. The nonce is random: a key wraps few things."""
    return nonce + AESGCM(key).encrypt(nonce, plain, context)


def unwrap(key: bytes, wrapped: bytes, context: bytes) -> bytes | None:
    """What was wrapped, None when this is not its key or anything was changed."""
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE_LEN], wrapped[NONCE_LEN:], context)
    except InvalidTag:
        return None


def mac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.digest(key, data, hashlib.sha256)


def same(one: bytes, other: bytes) -> bool:
    """Compared in a time that does not depend on where they differ."""
    return hmac.compare_digest(one, other)


def public_of(private: bytes) -> bytes:
    """The X25519 public key of a private one."""
    raw, form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes(raw, form)


def agree(private: bytes, public: bytes) -> bytes | None:
    """The X25519 secret of the two, None where ``public`` is one of the few that give none."""
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError:
        return None
