"""Ways to change bytes and files, chosen at random: what disks, controllers, tools and people do to them."""

from __future__ import annotations

import random

BLOCK = 4096
Changed = dict[str, bytes | None]
"""File -> its new bytes, None when it is gone."""

Spots = list[list[tuple[int, int]]]
"""Ranges worth hitting, by what they are: (first byte, length)."""

_KINDS = {
    "flip": 26, "flip several": 8, "set a byte": 8, "count": 6, "zero": 8, "noise": 6, "truncate": 7, "duplicate": 8,
    "swap": 7, "cut out": 3, "put in": 3, "append": 3, "swap files": 3, "copy a file": 2, "delete": 3,
}  # fmt: skip


def mutate(
    chance: random.Random, files: dict[str, bytes], spots: dict[str, Spots], block: int = 512
) -> tuple[str, Changed]:
    """(what was done, files that are other than before), never nothing.

    ``spots``: ranges worth hitting in each file, by their kind; two in five hit there.  ``block``: the alignment of
    what is zeroed, copied and swapped, most times.
    """
    while True:
        kind = chance.choices(list(_KINDS), weights=list(_KINDS.values()))[0]
        name = chance.choices(list(files), weights=[len(data) + 1 for data in files.values()])[0]
        changed = _change(chance, kind, name, files, spots.get(name, []), block)
        changed = {one: data for one, data in changed.items() if data != files[one]}
        if changed:
            return f"{kind}: {', '.join(changed)}", changed


def _change(
    chance: random.Random,
    kind: str,
    name: str,
    files: dict[str, bytes],
    spots: Spots,
    block: int,
) -> Changed:
    if kind == "delete":
        return {name: None}
    other = chance.choice(list(files))
    if kind == "swap files":
        return {name: files[other], other: files[name]}
    if kind == "copy a file":
        return {other: files[name]}
    data = bytearray(files[name])
    if not data:
        return {}
    if kind == "append":
        return {name: bytes(data) + chance.randbytes(chance.choice([1, 8, 88, 4096]))}
    for _ in range(chance.randrange(2, 9) if kind == "flip several" else 1):
        _bytes(chance, kind, data, spots, block)
    return {name: bytes(data)}


def _bytes(chance: random.Random, kind: str, data: bytearray, spots: Spots, block: int) -> None:
    at = _where(chance, data, spots)
    if kind in ("flip", "flip several"):
        data[at] ^= 1 << chance.randrange(8)
        return
    if kind == "count":  # a number that is one more or less: a counter, an offset, a page
        number = int.from_bytes(data[at : at + 2], "little") + chance.choice([-2, -1, 1, 2])
        data[at : at + 2] = (number % 65536).to_bytes(2, "little")[: len(data) - at]
        return
    if kind == "set a byte":
        data[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        return
    size = chance.choice([1, 8, 64, block, block, 4096])
    if size >= block and chance.random() < 0.8:
        at -= at % block
    size = min(size, len(data) - at)
    if kind == "zero":
        data[at : at + size] = bytes(size)
    elif kind == "noise":
        data[at : at + size] = chance.randbytes(size)
    elif kind == "truncate":
        del data[at:]
    elif kind == "cut out":
        del data[at : at + size]
    elif kind == "put in":
        data[at:at] = chance.randbytes(size)
    else:
        other = chance.randrange(len(data) - size + 1)
        other -= other % block if size >= block else 0
        here, there = bytes(data[at : at + size]), bytes(data[other : other + size])
        data[other : other + size] = here
        if kind == "swap":
            data[at : at + size] = there


def _where(chance: random.Random, data: bytearray, spots: Spots) -> int:
    if spots and chance.random() < 0.4:
        start, length = chance.choice(chance.choice(spots))
        return min(start + chance.randrange(length), len(data) - 1)
    return chance.randrange(len(data))
