"""The key ring of a sealed store: ``keys.json`` and its copy, opened, made and changed. FORMAT.md, "Sealed stores".

The ring is what the whole store hangs on, so it is there twice: where one is damaged the other is taken. Only then: an
older copy must not let in whom the newer ring left out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from engine import limits, supply
from engine.errors import (
    UNREADABLE,
    Busy,
    Corrupt,
    HoldfastError,
    NotFound,
    PermissionDenied,
    from_os,
)
from engine.keys import (
    COST,
    Master,
    Opener,
    RingFacts,
    Secret,
    StoreSeal,
    Vault,
    facts,
    make_store,
    unlock_store,
)
from engine.keys.primitives import Cost
from engine.seam import Os, load, save

RING, COPY = "keys.json", "keys.copy.json"
LOCK = "keys.lock"
log = logging.getLogger("holdfast.engine")


def create(
    path: str, store: bytes, id_key: bytes, secrets: Sequence[Secret], *, cost: Cost = COST, system: Os
) -> None:  # fmt: skip
    """The ring of a store that is being made; this process can open it. Raises InvalidRequest without a secret;
    OSError."""
    now = system.time_ns()
    raw, master = make_store(store, id_key, secrets, now_ns=now, cost=cost, system=system)
    _save(path, raw, system)
    supply.remember(store, master.data)


def unlock(path: str, store: bytes, secret: Opener | None, *, system: Os) -> StoreSeal:
    """The keys of a store. ``secret``: None for what this process has at hand (``engine.supply``).

    Raises PermissionDenied when there is none, or none that is right; Corrupt, FormatTooNew, NotFound.
    """
    rings = _sound(path, system)
    refused: PermissionDenied | None = None
    for offer in supply.offers(store, path) if secret is None else iter([secret]):
        try:
            seal = _unlock(path, rings, store, offer, system)
        except PermissionDenied as error:
            refused = error
            continue
        seal.follow(partial(_epochs, path, seal, system))
        supply.remember(store, seal.master.data)
        return seal
    if refused is None:
        raise PermissionDenied(
            f"store {path}, which is sealed", expected="its passphrase or key", found="neither",
            do=f"name a file in {supply.KEY_FILE} or {supply.PASSPHRASE_FILE}",
        )  # fmt: skip
    raise PermissionDenied(
        f"store {path}, which is sealed",
        expected=f"a secret that opens one of the {len(rings[0][0].slots)} slots of its key ring",
        found="one that opens none", do="give another passphrase, key or both",
    )  # fmt: skip


def told(path: str, system: Os) -> RingFacts:
    """What everybody can see of the ring. Raises NotFound, Corrupt, FormatTooNew."""
    return _sound(path, system)[0][0]


class StoreRings:
    """Where the ring of a store lies; see ``engine.keys.Rings``."""

    def __init__(self, path: str, system: Os) -> None:
        self._path = path
        self._system = system

    @property
    def shown(self) -> str:
        return f"store {self._path}"

    def newest(self) -> tuple[int, bytes]:
        """Raises NotFound, Corrupt, FormatTooNew."""
        known, raw = _sound(self._path, self._system)[0]
        return known.number, raw

    def create(self, number: int, raw: bytes) -> bool:
        """In the place of the one before. Raises Busy while another process changes it."""
        with _alone(self._path, self._system):
            if self.newest()[0] != number - 1:
                return False
            try:
                _save(self._path, raw, self._system)
            except OSError as error:
                raise from_os(error, os.path.join(self._path, RING)) from None
        return True

    def seen(self, number: int, vault: Vault) -> None:
        """Nothing keeps an older ring from being put back: who can do that can change anything else here."""

    def remove_older(self, number: int) -> None:
        """They were replaced."""


def mend(path: str, seal: StoreSeal, system: Os) -> bool:
    """Make both files those of the ring that opens; False when they are."""
    with _alone(path, system):
        raws = [_read(path, name, system) for name in (RING, COPY)]
        for _, raw in _sound(path, system):
            try:
                unlock_store(raw, seal.master, store=seal.store, system=system)
            except HoldfastError:
                continue
            if raws == [raw, raw]:
                return False
            try:
                _save(path, raw, system)
            except OSError as error:
                raise from_os(error, os.path.join(path, RING)) from None
            return True
        raise Corrupt(f"key ring of store {path}", expected="one that this store was opened with", found="another",
                      do="restore keys.json from a copy")  # fmt: skip


def faults(path: str, system: Os) -> Iterator[tuple[str, str]]:
    """(file, what is wrong with it), as far as can be told without a key."""
    found: list[bytes] = []
    for name in (RING, COPY):
        try:
            raw = _read(path, name, system)
            facts(raw)
            found.append(raw)
        except HoldfastError as error:
            yield name, str(error)
    if len(found) == 2 and found[0] != found[1]:
        yield COPY, f"is another than {RING}; 'holdfast repair' makes it anew"


def _unlock(
    path: str, rings: list[tuple[RingFacts, bytes]], store: bytes, secret: Opener | Master, system: Os
) -> StoreSeal:  # fmt: skip
    """By the newest ring; by another only where that is damaged, or is the same but for damage."""
    first: HoldfastError | None = None
    for known, raw in rings:
        if isinstance(first, PermissionDenied) and known.number != rings[0][0].number:
            break
        try:
            seal, _ = unlock_store(raw, secret, store=store, system=system)
        except (Corrupt, PermissionDenied) as error:
            first = first or error
            continue
        if first is not None:
            log.warning(
                "key ring of store %s: %s; its copy is used, run 'holdfast repair'", path, first
            )
        return seal
    assert first is not None
    raise first


def _epochs(path: str, seal: StoreSeal, system: Os) -> dict[int, bytes]:
    try:
        for _, raw in _sound(path, system):
            try:
                return unlock_store(raw, seal.master, store=seal.store, system=system)[1]
            except (Corrupt, PermissionDenied):
                continue
    except HoldfastError as error:
        log.warning("key ring of store %s cannot be read again: %s", path, error)
    return {}


def _sound(path: str, system: Os) -> list[tuple[RingFacts, bytes]]:
    """The rings that are there and have a ring's form, the newest first. Raises what is wrong when none is."""
    found: list[tuple[RingFacts, bytes]] = []
    wrong = ""
    for name in (RING, COPY):
        try:
            raw = _read(path, name, system)
            if all(raw != other for _, other in found):
                found.append((facts(raw), raw))
        except (NotFound, *UNREADABLE) as error:
            wrong = wrong or f"{name}: {error}"
    if not found:
        raise Corrupt(f"key ring of store {path}", expected=f"{RING} or {COPY}", found=wrong,
                      do="restore this file from a copy: without it nothing can be read")  # fmt: skip
    if wrong:
        log.warning("key ring of store %s: %s; run 'holdfast repair'", path, wrong)
    return sorted(found, key=lambda one: -one[0].number)


def _read(path: str, name: str, system: Os) -> bytes:
    file = os.path.join(path, name)
    try:
        return load(system, file, limits.RING_MAX + 1)
    except OSError as error:
        raise from_os(error, file) from None


def _save(path: str, raw: bytes, system: Os) -> None:
    for name in (RING, COPY):
        save(system, os.path.join(path, name), raw)


@contextmanager
def _alone(path: str, system: Os) -> Iterator[None]:
    file = os.path.join(path, LOCK)
    try:
        fd = system.open(file, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise from_os(error, file) from None
    try:
        if not system.try_lock(fd):
            raise Busy(f"key ring of store {path}", expected="nobody else to change it",
                       found="another process", do="wait for it to end")  # fmt: skip
        yield
    finally:
        system.close(fd)
