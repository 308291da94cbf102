"""The small parts of the demonstration: running programs, scratch directory, clean-up, table."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.demolib.cleanup import Cleanup
from tools.demolib.commands import Runner
from tools.demolib.console import Console, DemoError, name_text, size_text
from tools.demolib.holdfast import stored_bytes
from tools.demolib.mountinfo import mounts_below
from tools.demolib.postgres import Facts
from tools.demolib.report import SHOWN, WIDTH, Result, print_differences, print_table, total
from tools.demolib.scratch import MARKER, Scratch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def console() -> Console:
    return Console(io.StringIO())


@pytest.fixture
def runner(console: Console, tmp_path: Path) -> Runner:
    return Runner(console, tmp_path)


# --- running programs ---------------------------------------------------------------------------


def test_a_failure_has_the_programs_last_words(runner: Runner) -> None:
    with pytest.raises(DemoError, match=r"exit status 3\n    no such luck"):
        runner.run(["sh", "-c", "echo no such luck >&2; exit 3"])


def test_output_status_and_time(runner: Runner) -> None:
    finished = runner.run(["sh", "-c", "echo out; echo err >&2; exit 4"], ok=(0, 4))
    assert (finished.out, finished.err, finished.status) == ("out\n", "err\n", 4)
    assert finished.seconds > 0


def test_a_child_left_behind_does_not_hold_the_answer_up(runner: Runner) -> None:
    finished = runner.run(["sh", "-c", "sleep 60 & echo $!"], limit=30)
    os.kill(int(finished.out), 9)
    assert finished.seconds < 30


def test_a_missing_program_is_named(runner: Runner) -> None:
    with pytest.raises(DemoError, match="no program certainly-not-here"):
        runner.run(["certainly-not-here"])


def test_settings_of_the_caller_do_not_reach_programs(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("HOLDFAST_STORE", "/somewhere")
    monkeypatch.setenv("KEPT", "yes")
    said = runner.run(["env"]).out
    assert "PGHOST" not in said
    assert "HOLDFAST_STORE" not in said
    assert "KEPT=yes" in said


# --- mounts and the scratch directory -----------------------------------------------------------

TABLE = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:50 / /srv/a\\040b rw - fuse.x x rw
41 40 0:51 / /srv/a\\040b/inner/deep rw - fuse.x x rw
42 22 0:52 / /srv/a\\134\\011c rw - fuse.x x rw
43 22 0:53 / /srv/abc rw - fuse.x x rw
"""


def test_mounts_below_are_listed_deepest_first() -> None:
    assert mounts_below(Path("/srv/a b"), TABLE) == [
        Path("/srv/a b/inner/deep"),
        Path("/srv/a b"),
    ]
    assert mounts_below(Path("/srv/a\\\tc"), TABLE) == [Path("/srv/a\\\tc")]
    assert mounts_below(Path("/srv/ab"), TABLE) == []
    assert Path("/proc") in mounts_below(Path("/"))


def test_scratch_is_made_found_and_removed(tmp_path: Path) -> None:
    scratch = Scratch.make(tmp_path, 1)
    assert scratch.path.stat().st_mode & 0o777 == 0o711
    closed = scratch.sources / "closed"
    closed.mkdir()
    (closed / "inner").mkdir()
    (closed / "inner" / "file").touch()
    (closed / "inner").chmod(0)
    closed.chmod(0o500)
    Scratch.find(scratch.path).remove()
    assert list(tmp_path.iterdir()) == []


def test_scratch_wants_room(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="are needed"):
        Scratch.make(tmp_path, 1 << 80)
    with pytest.raises(DemoError, match="no scratch directory"):
        Scratch.make(tmp_path / "nowhere", 1)
    assert list(tmp_path.iterdir()) == []


def test_only_what_the_demonstration_made_is_removed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DemoError, match="was not made by the demonstration"):
        Scratch.find(tmp_path)
    with pytest.raises(DemoError, match=MARKER):
        Scratch(tmp_path).remove()
    assert (tmp_path / "file").exists()


def test_clean_refuses_another_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.demolib", "--clean", tmp_path, "--command", "/bin/true"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 1
    assert answer.stderr.startswith("demo: ")
    assert "Traceback" not in answer.stderr
    assert tmp_path.is_dir()


def test_stored_bytes_are_blocks_on_disk(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "pack").write_bytes(os.urandom(100_000))
    (tmp_path / "again").hardlink_to(tmp_path / "inner" / "pack")
    with (tmp_path / "index").open("wb") as file:
        file.truncate(1 << 30)
    os.sync()  # blocks are given out when the data is written back
    assert 100_000 <= stored_bytes(tmp_path) < 200_000


# --- clean-up -----------------------------------------------------------------------------------


def test_clean_up_runs_backwards_and_to_the_end(console: Console) -> None:
    done = []

    def fail() -> None:
        raise DemoError("cannot")

    cleanup = Cleanup(console)
    cleanup.add("first", lambda: done.append(1))
    cleanup.add("second", fail)
    cleanup.add("third", lambda: done.append(3))
    assert cleanup.run() == ["second: cannot"]
    assert done == [3, 1]
    assert cleanup.run() == []


# --- words --------------------------------------------------------------------------------------


def test_words_for_people() -> None:
    assert size_text(1_500_000) == "1.5 MB"
    assert size_text(2_345_000_000) == "2.35 GB"
    assert name_text(b"a\nb\xff") == "a\\nb\\\\xff"
    assert len(name_text(b"x" * 255)) < 100


def test_facts_differ_by_rows_hash_and_amcheck() -> None:
    noted = Facts((("a", 3, "77"), ("b", 1, "5")), "clean")
    assert noted.differences(noted) == []
    assert len(noted.differences(Facts((("a", 3, "78"), ("c", 1, "5")), "damage"))) == 4


def results() -> Iterator[Result]:
    yield Result("pg", "a", "b", 3_000_000, 200_000, 3_000_000, 2.0, 3_000_000, 1.0, 3, 3)
    yield Result("vm", "a", "b", 1_000_000, 100_000, 1_000_000, 1.0, 1_000_000, 1.0, 3, 2, ["x"])


def test_table() -> None:
    stream = io.StringIO()
    print_table(list(results()), stream)
    text = stream.getvalue()
    rows = {line.split()[0]: line for line in text.splitlines() if " : 1 " in line}
    assert rows["pg"].split()[1:] == "3.0 MB 0.2 MB 15.0 : 1 2 3 3 of 3 equal".split()
    assert "DIFFERS" in rows["vm"]
    assert "4.0 MB" in rows["all"]
    assert max(map(len, text.splitlines())) <= WIDTH + 20
    assert "…" not in text


def test_equal_means_all_points_and_no_difference() -> None:
    good, bad = results()
    assert good.equal
    assert not bad.equal
    assert not total([good, bad]).equal
    assert not Result("none").equal
    good.differences.append("y")
    assert not good.equal


def test_long_lists_of_differences_are_counted() -> None:
    stream = io.StringIO()
    print_differences([Result("pg", differences=[str(n) for n in range(SHOWN + 5)])], stream)
    assert len(stream.getvalue().splitlines()) == SHOWN + 1
    assert "and 5 more in pg" in stream.getvalue()
