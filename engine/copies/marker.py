"""``holdfast.json``, the first file of a location: which location it is, and whether what lies there is sealed.

Not secret and not authenticated: who knows already what it must say compares (``sealed`` above all).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine import strict
from engine.errors import Corrupt, FormatTooNew

NAME = "holdfast.json"
FORMAT = 1
_WHAT = "holdfast.json of a location"
MAX = 4096


@dataclass(frozen=True, slots=True)
class Marker:
    """``id_key``: what verifies chunk ids, here only when nothing is sealed; else it is in the key ring."""

    location: bytes
    store: bytes
    sealed: bool
    id_key: bytes = field(default=b"", repr=False)


def encode(marker: Marker) -> bytes:
    """The bytes of the file."""
    assert bool(marker.id_key) != marker.sealed
    fields: dict[str, object] = {
        "holdfast": FORMAT,
        "location": marker.location.hex(),
        "store": marker.store.hex(),
        "sealed": marker.sealed,
    }
    if marker.id_key:
        fields["id_key"] = marker.id_key.hex()
    return strict.dump(fields)


def decode(raw: bytes) -> Marker:
    """What the file says. Raises Corrupt, FormatTooNew."""
    if len(raw) > MAX:
        raise Corrupt(_WHAT, expected=f"at most {MAX} bytes", found=str(len(raw)))
    value = strict.parse(raw, _WHAT)
    found = value.get("holdfast") if isinstance(value, dict) else None
    if type(found) is int and found > FORMAT:
        raise FormatTooNew(
            _WHAT, expected=f"format {FORMAT}", found=str(found)[:80], do="use the Holdfast that wrote it"
        )  # fmt: skip
    sealed = value.get("sealed") if isinstance(value, dict) else None
    if type(sealed) is not bool:
        raise Corrupt(_WHAT, expected="sealed: true or false", found="neither")
    names = ("holdfast", "location", "store", "sealed")
    fields = strict.Fields(value, _WHAT, names if sealed else (*names, "id_key"))
    fields.number("holdfast", FORMAT, FORMAT)
    id_key = b"" if sealed else fields.digits("id_key", 32)
    return Marker(fields.digits("location", 16), fields.digits("store", 16), sealed, id_key)
