"""Key rings at a storage location, and this machine's own key to it (``locations/NAME.key``, 0600)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from engine import limits, seam
from engine.chunks import Context
from engine.copies.rows import FOLDER
from engine.errors import Corrupt, InvalidRequest, NotFound, from_os
from engine.keys import Identity, Key, Recipient, Vault, facts, load, parse
from engine.locations import Location

RINGS = "keys/"
_TRIES = 5  # a ring may go between two requests, as a newer one came


def newest_ring(location: Location) -> tuple[int, bytes]:
    """(number, bytes) of the key ring that counts. Raises NotFound."""
    return LocationRings(location).newest()


def bounded(location: Location, name: str, most: int) -> bytes:
    """All of a small thing. Raises Corrupt when it is larger than it may be, before any of it is fetched."""
    size = location.stat(name).size
    if size > most:
        raise Corrupt(
            f"{location.shown}: {name}", expected=f"at most {most} bytes", found=str(size),
            do="find out who wrote it",
        )  # fmt: skip
    return location.read(name, 0, size)


class LocationRings:
    """Where the rings of a location lie; see ``engine.keys.Rings``. ``remember``: has number and keys be remembered."""

    def __init__(
        self,
        location: Location,
        remember: Callable[[int, Vault], None] = lambda number, vault: None,
    ) -> None:
        self._location = location
        self._remember = remember

    @property
    def shown(self) -> str:
        return self._location.shown

    def any(self) -> bool:
        """Is there a ring?"""
        return any(self._numbers())

    def newest(self) -> tuple[int, bytes]:
        """Raises NotFound, Corrupt, FormatTooNew."""
        for _ in range(_TRIES):
            number = max(self._numbers(), default=0)
            if not number:
                break
            with suppress(NotFound):
                return number, self.numbered(number)
        raise NotFound(
            f"key ring of {self.shown}", expected="one", found="none", do="is it a location?"
        )

    def numbered(self, number: int) -> bytes:
        """The ring of this number. Raises NotFound, Corrupt, FormatTooNew."""
        raw = bounded(self._location, ring_path(number), limits.RING_MAX)
        if (said := facts(raw).number) != number:
            raise Corrupt(
                f"{self.shown}: {ring_path(number)}", expected=f"key ring {number}", found=f"number {said}",
                do="find out who put it there",
            )  # fmt: skip
        return raw

    def numbers(self) -> list[int]:
        """Of all rings that are there, the greatest first."""
        return sorted(self._numbers(), reverse=True)

    def create(self, number: int, raw: bytes) -> bool:
        return self._location.create(ring_path(number), raw)

    def seen(self, number: int, vault: Vault) -> None:
        self._remember(number, vault)

    def remove_older(self, number: int) -> None:
        older = [ring_path(one) for one in self._numbers() if one < number]
        if older:
            self._location.remove(older)

    def _numbers(self) -> list[int]:
        found = [ring_number(one.name) for one in self._location.list(RINGS)]
        return [number for number in found if number]


def ring_path(number: int) -> str:
    """Where the key ring of this number lies."""
    return f"{RINGS}{number:08d}.json"


def ring_number(name: str) -> int:
    """The number of a key ring by its name; 0 when it is none."""
    text = name.removeprefix(RINGS).removesuffix(".json")
    return int(text) if text.isascii() and text.isdigit() and ring_path(int(text)) == name else 0


# --- this machine's key -----------------------------------------------------------------------------------


def key_path(context: Context, name: str) -> str:
    """Where this machine's key to a location lies."""
    return os.path.join(context.root, FOLDER, f"{name}.key")


def ring_file(context: Context, name: str) -> str:
    """Where the ring of an adopted location lies, as long as it is not taken over; see ``ownring``."""
    return os.path.join(context.root, FOLDER, f"{name}.ring")


def own_ring(context: Context, name: str) -> bytes:
    """The ring of an adopted location that this store keeps. Raises NotFound."""
    path = ring_file(context, name)
    try:
        return seam.load(context.system, path, limits.RING_MAX + 1, os.O_NOFOLLOW)
    except OSError as error:
        raise from_os(error, path) from None


def machine_key(context: Context, name: str) -> Key:
    """This machine's key to a location. Raises NotFound, PermissionDenied, InvalidRequest."""
    path = key_path(context, name)
    if context.seal is None:
        key = load(path, context.system, os.stat(context.root).st_uid)
    else:
        key = _sealed(context, name)
    if not isinstance(key, Key):
        raise InvalidRequest(f"key file {path}", expected="this machine's key", found="another")
    return key


def _sealed(context: Context, name: str) -> Key | Recipient | Identity:
    """In a sealed store it is sealed too: who has the disk alone has no key to a location."""
    assert context.seal is not None
    path = key_path(context, name)
    try:
        line = seam.load(context.system, path, limits.KEY_FILE_MAX)
    except OSError as error:
        raise from_os(error, f"key file {path}") from None
    return parse(context.seal.unwrap(f"{FOLDER}/{name}.key", line).decode("ascii"))


def save_key(context: Context, name: str, key: Key) -> None:
    """Write this machine's key to a location, with its folder; a sealed store seals it. Raises OSError."""
    system, path = context.system, key_path(context, name)
    folder = os.path.dirname(path)
    if not system.exists(folder):
        system.mkdir(folder)
        system.fsync_dir(context.root)
    data = f"{key.printed()}\n".encode("ascii")
    if context.seal is not None:
        data = context.seal.wrap(f"{FOLDER}/{name}.key", data)
    seam.save(system, path, data)


def new_machine_key(context: Context, name: str) -> Key:
    """Written before the ring that needs it; the one that is there, when there is one."""
    path = key_path(context, name)
    try:
        if context.system.exists(path):
            return machine_key(context, name)
        key = Key.new(context.system)
        save_key(context, name, key)
    except OSError as error:
        raise from_os(error, path) from None
    return key
