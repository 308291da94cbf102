"""The benchmark's data sets: the same bytes every time, changing by as much as they claim."""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from tools.bench.gen import dbimg, dbset, extfs, hostfiles, pages, tree, vm
from tools.bench.gen.base import MIB, SEED, DataSet, cached, files_below

SMALL = dbimg.Plan(size=8 * MIB, days=3)


def fingerprint(root: Path) -> dict[str, str]:
    """SHA-256 of every file below `root`, by its path."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files_below(root)
    }


def split(path: Path) -> list[bytes]:
    """The pages of a file."""
    data = path.read_bytes()
    return [data[at : at + pages.PAGE] for at in range(0, len(data), pages.PAGE)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """A small dbimg set of three days."""
    return dbimg.build(tmp_path_factory.mktemp("dbimg"), SMALL)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory, images: DataSet) -> DataSet:
    """The same days as multiplexed pieces."""
    return dbset.build(tmp_path_factory.mktemp("dbset"), images, SEED, 3 * MIB)


def test_a_page_is_the_same_forever() -> None:
    page = pages.make_page(1, 2, 3, 4)
    assert len(page) == pages.PAGE
    assert pages.verify_page(page)
    # Sets built by different versions must not be compared: a change here needs new VERSIONs.
    assert hashlib.sha256(page).hexdigest()[:16] == "4bb9af9b4511d07c"


def test_a_page_differs_with_each_part_of_its_key() -> None:
    keys = [(1, 2, 3, 4), (9, 2, 3, 4), (1, 9, 3, 4), (1, 2, 9, 4), (1, 2, 3, 9)]
    assert len({pages.make_page(*key) for key in keys}) == len(keys)


def test_an_update_touches_few_bytes_and_keeps_the_page_valid() -> None:
    page = pages.make_page(SEED, 1, 7, 1000)
    new = pages.update_page(page, SEED, 2000)
    assert pages.verify_page(new)
    changed = sum(a != b for a, b in zip(page, new, strict=True))
    assert 4 < changed < 150
    assert pages.HEADER.unpack_from(new)[6] == 2000
    assert pages.HEADER.unpack_from(new)[2:6] == pages.HEADER.unpack_from(page)[2:6]


def test_verify_page_sees_a_flipped_bit() -> None:
    page = bytearray(pages.make_page(SEED, 1, 7, 1000))
    page[5000] ^= 1
    assert not pages.verify_page(bytes(page))


def test_rows_compress_as_row_data_does() -> None:
    data = b"".join(pages.make_page(SEED, 1, n, n) for n in range(64))
    assert 1.9 < len(data) / len(zlib.compress(data, 6)) < 2.9


def test_dbimg_is_the_same_every_time(images: DataSet, tmp_path: Path) -> None:
    again = dbimg.build(tmp_path, SMALL, workers=1)
    for one, other in zip(images.generations, again.generations, strict=True):
        assert fingerprint(one) == fingerprint(other)


def test_dbimg_depends_on_the_seed(images: DataSet, tmp_path: Path) -> None:
    other = dbimg.build(tmp_path, dbimg.Plan(size=MIB, days=1, seed=5))
    first = (other.generations[0] / "system01.dbf").read_bytes()[: pages.PAGE]
    assert first != (images.generations[0] / "system01.dbf").read_bytes()[: pages.PAGE]


def test_dbimg_has_the_size_asked_for_and_grows_one_per_cent(images: DataSet) -> None:
    assert images.logical(0) == pytest.approx(SMALL.size, rel=0.01)
    for day in (1, 2):
        assert images.logical(day) / images.logical(day - 1) == pytest.approx(1.01, abs=0.003)


def test_dbimg_changes_three_per_cent_half_of_it_replaced(images: DataSet) -> None:
    for day in (1, 2):
        total = updated = replaced = 0
        for path in files_below(images.generations[day]):
            before = split(images.generations[day - 1] / path.name)
            after = split(path)
            assert all(pages.verify_page(page) for page in after)
            for old, new in zip(before, after, strict=False):
                total += 1
                if old != new:
                    few = sum(a != b for a, b in zip(old, new, strict=True)) < 200
                    updated, replaced = updated + few, replaced + (not few)
        assert (updated + replaced) / total == pytest.approx(0.03, abs=0.004)
        # So small a file has 2 to 8 changes a day, and a run of two may overshoot the half.
        assert replaced / (updated + replaced) == pytest.approx(0.5, abs=0.15)


def test_every_block_of_dbimg_says_where_it_belongs(images: DataSet) -> None:
    seen = set()
    for path in files_below(images.generations[1]):
        for number, page in enumerate(split(path)):
            head = pages.HEADER.unpack_from(page)
            assert head[5] == number
            seen.add((head[4], head[5]))
    assert len(seen) == images.logical(1) // pages.PAGE


def test_changes_stay_inside_the_file() -> None:
    for day in range(1, 5):
        chosen = dbimg.changes(SMALL, 1, day, 1000)
        assert len(chosen) == 30
        assert min(chosen) >= 0
        assert max(chosen) < 1000


def test_half_of_many_changes_are_replacements() -> None:
    chosen = dbimg.changes(SMALL, 1, 1, 20_000)
    assert len(chosen) == 600
    assert 299 <= sum(chosen.values()) <= 302


def test_pieces_hold_exactly_the_blocks_of_the_data_files(images: DataSet, pieces: DataSet) -> None:
    for day, folder in enumerate(pieces.generations):
        parts = [split(path) for path in files_below(folder)]
        headers = [part[0] for part in parts]
        assert all(header.startswith(b"HBPIECE1") for header in headers)
        blocks = [page for part in parts for page in part[1:]]
        wanted = [page for path in files_below(images.generations[day]) for page in split(path)]
        assert len(blocks) == len(wanted)
        assert sorted(map(hash, blocks)) == sorted(map(hash, wanted))
        assert set(blocks) == set(wanted)


def test_pieces_multiplex_four_files(pieces: DataSet) -> None:
    path = max(files_below(pieces.generations[0]), key=lambda one: one.stat().st_size)
    files = [pages.HEADER.unpack_from(page)[4] for page in split(path)[1:]]
    assert len(set(files)) >= dbset.WAYS
    turns = sum(a != b for a, b in pairwise(files))
    assert len(files) / (turns + 1) <= dbset.BUFFER * dbset.LONGEST * 2


def test_piece_names_and_headers_never_come_again(pieces: DataSet) -> None:
    names = [path.name for folder in pieces.generations for path in files_below(folder)]
    assert len(names) == len(set(names))
    heads = [
        path.read_bytes()[:200] for folder in pieces.generations for path in files_below(folder)
    ]
    assert len(heads) == len(set(heads))


def test_the_order_of_runs_differs_from_day_to_day() -> None:
    sizes = [2000, 1500, 1000, 800, 500]
    days = [list(dbset.schedule(SEED, day, sizes)) for day in (0, 1)]
    assert days[0] != days[1]
    for day in days:
        for file, size in enumerate(sizes):
            runs = [run for run in day if run[0] == file]
            assert [run[1] for run in runs] == [
                sum(run[2] for run in runs[:n]) for n in range(len(runs))
            ]
            assert sum(run[2] for run in runs) == size


def test_pieces_are_the_same_every_time(images: DataSet, pieces: DataSet, tmp_path: Path) -> None:
    again = dbset.build(tmp_path, images, SEED, 3 * MIB)
    for one, other in zip(pieces.generations, again.generations, strict=True):
        assert fingerprint(one) == fingerprint(other)


def test_a_set_is_built_once_and_again_when_its_facts_change(tmp_path: Path) -> None:
    calls = []

    def build(root: Path) -> list[Path]:
        calls.append(root)
        (root / "g0").mkdir()
        return [root / "g0"]

    facts: dict[str, object] = {"version": 1}
    one = cached(tmp_path, "some", facts, build)
    assert cached(tmp_path, "some", facts, build) == one
    assert len(calls) == 1
    cached(tmp_path, "some", {"version": 2}, build)
    assert len(calls) == 2


def test_new_versions_differ_a_little() -> None:
    text = b"\n".join(b"line %d of some text" % n for n in range(2000))
    binary = pages.stream(200_000, "binary")
    for data in (text, binary):
        new = hostfiles.new_version(data, 1)
        assert new == hostfiles.new_version(data, 1)
        assert new != data
        assert abs(len(new) - len(data)) < len(data) * 0.05
    assert hostfiles.new_version(b"", 1)


def test_tree_changes_as_planned(tmp_path: Path) -> None:
    for name in "ab":
        for n in range(300):
            path = tmp_path / name / f"d{n % 7}" / f"sub{n % 3}" / f"f{n}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"text number {n}\n" * (n % 9 + 1))
    counts = tree.change(tree.Plan(edited=0.05), tmp_path / "a", 1)
    tree.change(tree.Plan(edited=0.05), tmp_path / "b", 1)
    after = fingerprint(tmp_path / "a")
    assert after == fingerprint(tmp_path / "b")
    assert counts["edited"] == 15
    assert len(after) == 300 + counts["added"] - counts["removed"]


def test_tree_takes_files_of_this_machine_within_its_limits(tmp_path: Path) -> None:
    plan = tree.Plan(files=60, size=MIB, generations=2)
    made = tree.build(tmp_path, plan)
    files = files_below(made.generations[0])
    assert 1 <= len(files) <= 60
    assert made.logical(0) <= MIB
    tars = tree.build_tar(tmp_path, made)
    names = [path.name for folder in tars.generations for path in folder.iterdir()]
    assert len(set(names)) == 2


@pytest.mark.skipif(bool(extfs.tools_missing()), reason="needs mkfs.ext4 and debugfs (e2fsprogs)")
def test_vm_disks_are_sparse_valid_and_the_same_every_time(tmp_path: Path) -> None:
    plan = vm.Plan(size=6 * MIB, generations=2)
    first = vm.build(tmp_path, plan)
    kept = [fingerprint(folder) for folder in first.generations]
    assert sorted(kept[0]) == sorted(f"{name}.raw" for name in vm.GUESTS)
    assert len(set(kept[0].values())) == len(vm.GUESTS)
    assert not set(kept[0].values()) & set(kept[1].values())
    assert first.allocated(0) < first.logical(0) * 0.7
    for folder in first.generations:
        for disk in folder.iterdir():
            extfs.check(disk)
    old, new = ((folder / "db1.raw").read_bytes() for folder in first.generations)
    blocks = range(0, len(old), extfs.BLOCK)
    changed = sum(old[at : at + extfs.BLOCK] != new[at : at + extfs.BLOCK] for at in blocks)
    assert 0 < changed * extfs.BLOCK < first.allocated(0) / len(vm.GUESTS) * 0.2
    shutil.rmtree(tmp_path / "vm")
    assert [fingerprint(folder) for folder in vm.build(tmp_path, plan).generations] == kept


def test_allocated_bytes_leave_holes_out(tmp_path: Path) -> None:
    path = tmp_path / "g0" / "disk"
    path.parent.mkdir()
    with path.open("wb") as out:
        out.truncate(8 * MIB)
        os.pwrite(out.fileno(), b"x" * 4096, 4 * MIB)
    made = DataSet("some", (path.parent,))
    assert made.logical(0) == 8 * MIB
    assert 4096 <= made.allocated(0) < MIB
