"""What a store answers, compared with what a model says it must: check, reading, restoring."""

from __future__ import annotations

import os
import random
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from engine import HoldfastError, Store
from engine.maintain.check import CheckReport
from engine.nodes import Entry
from engine.points.view import PointView
from tools.torture.corrupt.model import Damage, Loss, Member, Model, Ranges, merged

_RANGE = re.compile(r"bytes (\d+) to (\d+) cannot be read")
_XATTRS, _NAMES = "extended attributes cannot be read", "names behind "


def of_check(model: Model, damage: Damage, report: CheckReport) -> Iterator[str]:
    """What ``check`` should have named and has not, and what it named though it is sound."""
    chunks = {p.thing.removeprefix("chunk ") for p in report.problems if p.code == "chunk"}
    for cid in damage.hurt:
        if cid.hex() not in chunks:
            yield f"check does not name chunk {cid.hex()}"
    for name in chunks - {cid.hex() for cid in damage.lost}:
        yield f"check names chunk {name}, which is sound"
    packs = " ".join(p.thing for p in report.problems if p.code == "pack").split()
    for name in damage.told():
        if str(int(Path(name).stem)) not in packs:
            yield f"check says nothing of {name}"
    for point in model.points:
        loss = damage.of_point(point)
        told: list[tuple[bytes, str]] = []
        for problem in report.problems:
            head, _, path = problem.thing.partition(": ")
            if problem.code == "file" and head == f"point {point}":
                told.append((path.encode(), problem.text))
            elif problem.code == "point" and problem.thing == f"point {point}":
                yield f"check gave up on point {point}: {problem.text}"
        yield from _compare(f"check of point {point}", loss, told, {})
        yield from _ranges(f"check of point {point}", loss.ranges, loss.ranges, told_ranges(told))


def of_reading(model: Model, damage: Damage, store: Store, chance: random.Random) -> Iterator[str]:
    """Every name, attribute and byte of every point must be as it was, or refused."""
    for point, members in model.points.items():
        loss = damage.of_point(point)
        view = store.glance(point)
        found: dict[bytes, Entry] = {b"": view.root_entry}
        names(view, view.root_entry, b"", found)
        expected = {path for path in members if path not in loss.hidden}
        if found.keys() != expected:
            yield f"point {point} shows {sorted(found.keys() ^ expected)[:3]} otherwise"
        for path in found.keys() & expected:
            yield from _one(view, point, path, found[path], members[path], loss, chance)


def names(view: PointView, folder: Entry, path: bytes, found: dict[bytes, Entry]) -> None:
    """Add every entry below a folder that can be found, by its path."""
    for entry in view.scan(folder, b"", lambda *_: None):
        here = path + b"/" + entry.name if path else entry.name
        found[here] = entry
        if stat.S_ISDIR(entry.mode):
            names(view, entry, here, found)


def _one(
    view: PointView, point: str, path: bytes, entry: Entry, member: Member, loss: Loss, chance: random.Random
) -> Iterator[str]:  # fmt: skip
    what = f"point {point}, {path!r}"
    if entry.mode != member.mode or entry.target != member.target:
        yield f"{what} is another"
    try:
        values = view.xattrs(entry)
        if values != member.xattrs:
            yield f"{what} GIVES WRONG ATTRIBUTES"
        elif path in loss.attributes:
            yield f"{what} has attributes that cannot be"
    except HoldfastError as error:
        if path not in loss.attributes:
            yield f"{what} has attributes that cannot be read: {error}"
    if not stat.S_ISREG(member.mode):
        return
    ranges = loss.ranges.get(path, [])
    asked = [(0, len(member.content))]
    for start, end in ranges:
        asked += [(start, 1), (end - 1, 1), (max(start - 9, 0), 9), (end, 9)]
    if member.content:
        at = chance.randrange(len(member.content))
        asked.append((at, chance.randrange(1, 5000)))
    for at, size in asked:
        end_ = min(at + size, len(member.content))
        bad, sure = (
            any(start < end_ and at < end for start, end in some)
            for some in (ranges, loss.surely.get(path, []))
        )
        try:
            data = view.read(entry, at, size)
        except HoldfastError as error:
            if not bad:
                yield f"{what} cannot be read at {at}: {error}"
            continue
        if data != member.content[at : at + size]:
            yield f"{what} GIVES WRONG BYTES at {at}"
        elif sure:
            yield f"{what} is read at {at} where nothing can be"


def of_restore(
    model: Model, damage: Damage, store: Store, point: str, target: Path
) -> Iterator[str]:
    """What is restored is what was there, with zeros and gaps exactly where the report says so."""
    members, loss = model.points[point], damage.of_point(point)
    shutil.rmtree(target, ignore_errors=True)
    report = store.restore(point, b"", os.fsencode(target))
    told = [(notice.path, notice.text) for notice in report.damaged]
    linked = {
        path: b"inode %d" % one.ino for path, one in members.items() if not stat.S_ISDIR(one.mode)
    }
    yield from _compare(f"restore of point {point}", loss, told, linked)
    holes = told_ranges(told, linked)
    least, most = (
        {linked[path]: some for path, some in ranges.items()}
        for ranges in (loss.surely, loss.ranges)
    )
    yield from _ranges(f"restore of point {point}", least, most, holes)
    there = {b"": os.fsencode(target)}
    for folder, folders, files in os.walk(os.fsencode(target)):
        for name in folders + files:
            full = os.path.join(folder, name)
            there[os.path.relpath(full, os.fsencode(target))] = full
    expected = members.keys() - loss.hidden
    if there.keys() != expected:
        yield f"restore of point {point} makes {sorted(there.keys() ^ expected)[:3]} otherwise"
    for path in there.keys() & expected:
        member = members[path]
        if stat.S_ISLNK(member.mode):
            if os.readlink(there[path]) != member.target:
                yield f"restore of point {point}: {path!r} leads elsewhere"
        elif stat.S_ISREG(member.mode):
            content = bytearray(member.content)
            for start, end in holes.get(linked[path], []):
                content[start:end] = bytes(end - start)
            with open(there[path], "rb") as file:
                if file.read() != content:
                    yield f"restore of point {point}: {path!r} HAS WRONG BYTES"
    shutil.rmtree(target, ignore_errors=True)


def _compare(
    what: str, loss: Loss, told: list[tuple[bytes, str]], linked: dict[bytes, bytes]
) -> Iterator[str]:
    """What was told of a point, against its loss. ``linked``: what stands for all names of one inode."""

    def one(path: bytes) -> bytes:
        return linked.get(path, path)

    attributes = {one(path) for path, text in told if text.startswith(_XATTRS)}
    if attributes != {one(path or b".") for path in loss.attributes}:
        yield f"{what} says {attributes} have lost attributes, not {loss.attributes}"
    names = {path for path, text in told if text.startswith(_NAMES)}
    if names != {path or b"." for path in loss.folders}:
        yield f"{what} says that names are lost in {names}, not in {loss.folders}"


def told_ranges(
    told: list[tuple[bytes, str]], linked: dict[bytes, bytes] | None = None
) -> dict[bytes, Ranges]:
    """Ranges of bytes that were said to be lost."""
    ranges: dict[bytes, Ranges] = {}
    for path, text in told:
        match = _RANGE.match(text)
        if match:
            name = (linked or {}).get(path, path)
            ranges.setdefault(name, []).append((int(match[1]), int(match[2])))
    return {path: merged(some) for path, some in ranges.items()}


def _ranges(
    what: str, least: dict[bytes, Ranges], most: dict[bytes, Ranges], found: dict[bytes, Ranges]
) -> Iterator[str]:
    """Every byte of ``least`` must be told, none beyond ``most``."""
    for path in found.keys() | least.keys():
        some = found.get(path, [])
        if merged(some + least.get(path, [])) != some:
            yield f"{what} says {some} of {path!r}, lost is {least.get(path)}"
        if merged(some + most.get(path, [])) != most.get(path, []):
            yield f"{what} says {some} of {path!r}, lost is at most {most.get(path)}"


def of_part(model: Model, damage: Damage, store: Store, chance: random.Random) -> Iterator[str]:
    """As ``of_reading``, where more may be found again than what is not lost: nothing is wrong, enough is there."""
    listed = {info.id for info in store.points()}
    for point, members in model.points.items():
        if point not in listed:
            continue
        loss = damage.of_point(point)
        view = store.glance(point)
        found: dict[bytes, Entry] = {b"": view.root_entry}
        names(view, view.root_entry, b"", found)
        if missing := members.keys() - loss.hidden - found.keys():
            yield f"point {point} lacks {sorted(missing)[:3]}"
        for path in found.keys() & members.keys():
            loss.surely, least = {}, set(loss.attributes)
            if path in loss.hidden:  # its name was found again; what hangs from it need not be
                least.add(path)
                if size := len(members[path].content):
                    loss.ranges[path] = [(0, size)]
            for text in _one(view, point, path, found[path], members[path], loss, chance):
                if not (path in least and "cannot be" in text):
                    yield text
