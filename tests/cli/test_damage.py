"""Damaged packs: what check names, what restore saves, and how the same content, written again, heals."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from engine import Store, limits
from tests.cli.support import (
    files,
    good,
    holdfast,
    new_store,
    noise,
    packs,
    put,
    restored,
    snapshot,
    write,
)

FIRST = {
    b"random": noise(700_000, 1),
    b"text": b"the same line again and again\n" * 20_000,
    b"empty": b"",
    b"second\nline": noise(600_000, 2),
}
OTHER = {b"elsewhere": noise(300_000, 3), b"beside": noise(200_000, 4)}
ALL = {**FIRST, **OTHER}
HURT = b"second\nline"
SHOWN = "second\\nline"


class Range(NamedTuple):
    """A chunk of a file: its bytes in the file, its record's place in a pack."""

    start: int
    length: int
    pack: int
    offset: int
    stored: int


class Made(NamedTuple):
    """A store whose pack holds FIRST and nothing of OTHER; point 0 is FIRST, point 1 is ALL."""

    store: Path
    points: list[str]
    chunks: dict[bytes, list[Range]]

    @property
    def pack(self) -> Path:
        number = self.chunks[HURT][0].pack
        return next(path for path in packs(self.store) if int(path.stem) == number)


def layout(store: Path, point: str) -> dict[bytes, list[Range]]:
    """Where the chunks of a point's files are."""
    found: dict[bytes, list[Range]] = {}
    with Store.open(str(store)) as opened:
        view = opened.view(point)
        for entry in view.scan(view.root_entry):
            ranges = found.setdefault(entry.name, [])
            for number, extents in view.spans(entry):
                for offset, length, cid, _ in extents:
                    row = opened._open.reader.row(cid)
                    assert row is not None
                    start = number * limits.SPAN + offset
                    ranges.append(Range(start, length, row.pack, row.offset, row.stored))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    store = new_store(tmp_path_factory.mktemp("whole") / "store")
    good(holdfast(store, "create", "other"))
    with Store.open(str(store)) as opened:  # it holds one segment, so that FIRST goes into another
        tree = opened.open_live("other")
        put(tree, b"holder", b"of a segment")
        tree.barrier()
        write(store, FIRST)
        tree.close()
    points = [snapshot(store)]
    write(store, OTHER)
    points.append(snapshot(store))
    chunks = layout(store, points[1])
    of_first = {one.pack for name in FIRST for one in chunks[name]}
    of_other = {one.pack for name in OTHER for one in chunks[name]}
    assert len(of_first) == 1 and not of_first & of_other, "the tests need them apart"
    return Made(store, points, chunks)


@pytest.fixture
def made(whole: Made, tmp_path: Path) -> Made:
    return whole._replace(store=shutil.copytree(whole.store, tmp_path / "store"))


def cut(made: Made) -> set[bytes]:
    """Truncate the pack in the middle of the file that is hurt."""
    at = made.chunks[HURT][2].offset + 1000
    os.truncate(made.pack, at)
    return {
        name for name in FIRST if any(one.offset + one.stored > at for one in made.chunks[name])
    }


def flip(made: Made) -> set[bytes]:
    """Flip one bit in the third chunk of the file that is hurt."""
    one = made.chunks[HURT][2]
    with made.pack.open("r+b") as file:
        file.seek(one.offset + one.stored - 20)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    return {HURT}


def remove(made: Made) -> set[bytes]:
    """Delete the pack."""
    made.pack.unlink()
    return {name for name in FIRST if made.chunks[name]}


DAMAGES = [cut, flip, remove]
Damage = Callable[[Made], set[bytes]]


def shown(name: bytes) -> str:
    return name.decode().replace("\n", "\\n")


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_names_every_damaged_file_of_every_point(made: Made, damage: Damage) -> None:
    hurt = damage(made)
    done = holdfast(made.store, "check", "--read-data")
    assert done.returncode == 20, done.stderr
    named = {line.split(": bytes ")[0] for line in done.stdout.splitlines() if ": bytes " in line}
    assert named == {f"file: point {p}: {shown(name)}" for p in made.points for name in hurt}
    assert "no problems" not in done.stdout
    assert "expected no damage" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("damage", [flip])
def test_check_says_the_same_in_json(made: Made, damage: Damage) -> None:
    hurt = damage(made)
    done = holdfast(made.store, "check", "--read-data", "--json")
    assert done.returncode == 20, done.stderr
    problems = json.loads(done.stdout)["problems"]
    assert {p["thing"] for p in problems if p["code"] == "file"} == {
        f"point {point}: {name.decode()}" for point in made.points for name in hurt
    }
    assert any(p["code"] == "chunk" for p in problems)


@pytest.mark.parametrize("damage", DAMAGES)
def test_restore_saves_everything_but_the_damaged_bytes(
    made: Made, tmp_path: Path, damage: Damage
) -> None:
    hurt = damage(made)
    for number, wanted in enumerate([FIRST, ALL]):
        target = tmp_path / f"out{number}"
        done = holdfast(made.store, "restore", made.points[number], str(target), "--json")
        assert done.returncode == 20, done.stderr
        assert "Traceback" not in done.stderr
        said = json.loads(done.stdout)
        assert {os.fsencode(one["path"]) for one in said["damaged"]} == hurt
        assert said["skipped"] == []
        found = files(target)
        assert found.keys() == wanted.keys()
        assert {name for name in wanted if found[name] != wanted[name]} == hurt
        assert all(len(found[name]) == len(wanted[name]) for name in hurt)


def test_restore_writes_the_undamaged_chunks_of_a_damaged_file(made: Made, tmp_path: Path) -> None:
    flip(made)
    done = holdfast(made.store, "restore", made.points[0], str(tmp_path / "out"))
    assert done.returncode == 20
    one = made.chunks[HURT][2]
    lost = f"{SHOWN}: bytes {one.start} to {one.start + one.length} cannot be read"
    assert [line for line in done.stderr.splitlines() if line.startswith(lost)]
    assert "1 damaged" in done.stderr.splitlines()[-1]
    found, wanted = files(tmp_path / "out")[HURT], FIRST[HURT]
    assert found[: one.start] == wanted[: one.start]
    assert found[one.start + one.length :] == wanted[one.start + one.length :]


@pytest.mark.parametrize("damage", [cut])
def test_a_damaged_file_counts_once_however_much_of_it_is_lost(
    made: Made, tmp_path: Path, damage: Damage
) -> None:
    hurt = damage(made)
    done = holdfast(made.store, "restore", made.points[0], str(tmp_path / "out"))
    assert done.returncode == 20
    assert f"expected every file whole, found {len(hurt)} damaged;" in done.stderr


@pytest.mark.parametrize("damage", [remove])
def test_an_undamaged_file_is_restored_alone_without_complaint(
    made: Made, tmp_path: Path, damage: Damage
) -> None:
    damage(made)
    done = holdfast(made.store, "restore", made.points[1], "beside", str(tmp_path / "one"))
    good(done)
    assert done.stderr == ""
    assert (tmp_path / "one").read_bytes() == OTHER[b"beside"]


def mended(made: Made, tmp_path: Path) -> None:
    """Everything is whole: the old points, a new one, and what check reads."""
    new = snapshot(made.store)
    for point, wanted in [(made.points[0], FIRST), (made.points[1], ALL), (new, ALL)]:
        assert restored(made.store, point, tmp_path / point) == wanted


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_same_content_written_again_heals_every_point(
    made: Made, tmp_path: Path, damage: Damage
) -> None:
    damage(made)
    assert holdfast(made.store, "check", "--read-data").returncode == 20
    write(made.store, ALL)
    mended(made, tmp_path)


@pytest.mark.parametrize("damage", [cut, remove])
def test_a_healed_store_can_be_made_sound(made: Made, tmp_path: Path, damage: Damage) -> None:
    """Nothing needs the damaged pack any more: after repair and collection no problem is left to report."""
    damage(made)
    assert holdfast(made.store, "check", "--read-data").returncode == 20
    write(made.store, ALL)
    good(holdfast(made.store, "repair"))
    good(holdfast(made.store, "gc"))
    assert "no problems found" in good(holdfast(made.store, "check", "--read-data"))
    mended(made, tmp_path)


@pytest.mark.parametrize("damage", [flip, remove])
def test_repair_loses_nothing_and_claims_nothing_it_cannot_do(
    made: Made, tmp_path: Path, damage: Damage
) -> None:
    hurt = damage(made)
    left = {path: path.read_bytes() for path in packs(made.store)}
    listed = good(holdfast(made.store, "points", "--json"))
    assert holdfast(made.store, "check", "--read-data").returncode == 20
    assert "is whole again" not in good(holdfast(made.store, "repair"))
    assert holdfast(made.store, "check", "--read-data").returncode == 20
    assert {path: path.read_bytes() for path in left} == left
    assert good(holdfast(made.store, "points", "--json")) == listed
    done = holdfast(made.store, "restore", made.points[1], str(tmp_path / "out"))
    assert done.returncode == 20
    found = files(tmp_path / "out")
    assert {name for name in ALL if found[name] != ALL[name]} == hurt


def test_repair_takes_back_what_was_only_unreadable_for_a_while(made: Made, tmp_path: Path) -> None:
    """A pack that is put back, as after a disk that had gone, is believed again."""
    pack, data = made.pack, made.pack.read_bytes()
    remove(made)
    assert holdfast(made.store, "check", "--read-data").returncode == 20
    pack.write_bytes(data)
    assert "is whole again" in good(holdfast(made.store, "repair"))
    assert "no problems found" in good(holdfast(made.store, "check", "--read-data"))
    mended(made, tmp_path)


@pytest.mark.parametrize("damage", [cut, remove])
def test_an_index_rebuilt_over_damage_keeps_what_is_left(
    made: Made, tmp_path: Path, damage: Damage
) -> None:
    hurt = damage(made)
    good(holdfast(made.store, "repair", "--rebuild-index"))
    done = holdfast(made.store, "restore", made.points[1], str(tmp_path / "out"))
    assert done.returncode == 20 and "Traceback" not in done.stderr
    found = files(tmp_path / "out")
    assert {name for name in ALL if found[name] != ALL[name]} == hurt
    write(made.store, ALL)
    assert "no problems found" in good(holdfast(made.store, "check", "--read-data"))
    mended(made, tmp_path)
