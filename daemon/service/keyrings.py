"""Who may open storage locations: their key rings, shown and changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from daemon.contract import KeyRing, KeySlot, SecretSpec
from daemon.service.copies import Copies
from engine.errors import InvalidRequest

if TYPE_CHECKING:
    from engine.copies.keyring import KeyringInfo
    from engine.keys import Identity, Key, Opener, Passphrase, Recipient, Secret


class Keyrings(Copies):
    """The part of ``Backend`` about keys of storage locations."""

    def keys(self, location: str) -> KeyRing:
        """Who may open a location. Raises NotFound, InvalidRequest where nothing is sealed, and what it raises."""
        return _told(self.store.copies.keys(location))

    def change_keys(
        self, location: str, *, add: Sequence[SecretSpec] = (), remove: Sequence[str] = (), machine: bool = False,
        force: bool = False, opened_with: SecretSpec | None = None,
    ) -> KeyRing:  # fmt: skip
        """Slots added, and those with these ids left out, in one ring; ``machine``: one for this store's own key, where
        it has none; ``force``: also what leaves none for anybody else, or none for this store.

        Raises InvalidRequest, PermissionDenied when ``opened_with`` opens nothing, Busy.
        """
        self.location(location)
        found = self.store.copies.change_keys(
            location, add=[secret_of(one) for one in add], remove=remove, machine=machine, force=force,
            secret=opener_of(opened_with),
        )  # fmt: skip
        return _told(found)

    def rotate_keys(
        self, location: str, *, master_for: Sequence[SecretSpec] = (), opened_with: SecretSpec | None = None
    ) -> KeyRing:  # fmt: skip
        """A new key for what is sent from now on. ``master_for``: a new master key as well, for these and this store;
        all other slots go. Raises as ``change_keys``."""
        self.location(location)
        secrets = [secret_of(one) for one in master_for]
        return _told(
            self.store.copies.rotate_keys(
                location, master_for=secrets, secret=opener_of(opened_with)
            )
        )


def _told(found: KeyringInfo) -> KeyRing:
    slots = [KeySlot(one.id, one.kind, one.made_ns, one.id == found.own) for one in found.slots]
    return KeyRing(
        found.location, found.number, slots, list(found.epochs), found.fingerprint, found.left
    )


def _read(spec: SecretSpec) -> tuple[Passphrase | None, Key | Recipient | Identity | None]:
    from engine.keys import Key, Passphrase, parse

    passphrase = Passphrase(spec.passphrase) if spec.passphrase else None
    key = parse(spec.key) if spec.key else None
    if passphrase and key and not isinstance(key, Key):
        raise InvalidRequest("secret", expected="a key beside a passphrase", found="a recipient")
    if not (passphrase or key):
        raise InvalidRequest("secret", expected="a passphrase, a key or both", found="neither")
    return passphrase, key


def secret_of(spec: SecretSpec) -> Secret:
    """What a slot is made for. Raises InvalidRequest."""
    from engine.keys import Both, Identity, Key

    passphrase, key = _read(spec)
    if passphrase and isinstance(key, Key):
        return Both(passphrase, key)
    if isinstance(key, Identity):
        return key.recipient
    found = passphrase or key
    assert found is not None
    return found


def opener_of(spec: SecretSpec | None) -> Opener | None:
    """What opens a ring; None: this store's own key does. Raises InvalidRequest."""
    from engine.keys import Both, Key, Recipient

    if spec is None:
        return None
    passphrase, key = _read(spec)
    if passphrase and isinstance(key, Key):
        return Both(passphrase, key)
    if isinstance(key, Recipient):
        raise InvalidRequest(
            "secret to open with", expected="a private half (identity:…)", found="a public one"
        )
    return passphrase or key
