"""The parts of the rigs of programs that need no mount."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tools.torture import bugs
from tools.torture.programs import inputs, received, rigs
from tools.torture.programs.cases import Case, notes, perform, plain
from tools.torture.programs.stage import Refused, run
from tools.torture.rig import Job
from tools.torture.run import planted


def test_places_in_the_log_of_postgres() -> None:
    """As ``select pg_walfile_name('1/FF900080')`` says it with segments of 1 MiB."""
    at = received.position("1/FF900080")
    assert at == (1 << 32) + 0xFF900080
    assert received.segment(at) == "0000000100000001" + "00000FF9"
    assert received.position("0/0") == 0


def test_trees_come_from_their_seed(tmp_path: Path) -> None:
    trees = []
    for name in ("a", "b"):
        inputs.make_tree(tmp_path / name, random.Random(5), 30, plain=True)
        inputs.change_tree(tmp_path / name, random.Random(6))
        hidden = inputs.change_unseen(tmp_path / name, random.Random(7))
        trees.append(plain(notes(tmp_path / name), ("mtime_ns", "xattrs")))
    assert trees[0] == trees[1] and hidden
    kinds = {entry.kind for entry in trees[0].values()}
    assert kinds == {"file", "directory", "symlink"}
    holes = trees[0][b"holes"]
    assert holes.allocated < holes.size // 8
    assert any(entry.twin != path for path, entry in trees[0].items() if entry.twin)


def test_a_change_nobody_sees_keeps_size_and_time(tmp_path: Path) -> None:
    inputs.make_tree(tmp_path / "a", random.Random(5), 30, plain=True)
    before = notes(tmp_path / "a")
    assert inputs.change_unseen(tmp_path / "a", random.Random(1)) > 0
    after = notes(tmp_path / "a")
    assert before != after
    assert {k: (e.size, e.mtime_ns) for k, e in before.items()} == {
        k: (e.size, e.mtime_ns) for k, e in after.items()
    }


def test_which_cases_are_run(tmp_path: Path) -> None:
    table = [
        Case("a", print, ("sh",)),
        Case("b", print, ("no-such-program",)),
        Case("c", print, ()),
    ]
    job = Job("r", 1, 1.0, tmp_path)
    assert [case.name for case in perform(job, table, {})] == ["a", "c"]
    assert job.notes == ["b not run: no no-such-program"]
    assert [c.name for c in perform(Job("r", 1, 1.0, tmp_path, case="c"), table, {})] == ["c"]
    with planted("hard-links-apart"):
        assert [c.name for c in perform(job, table, {"hard-links-apart": "c"})] == ["c"]
        assert [c.name for c in perform(job, table, {"another": "c"})] == ["a", "c"]


def test_every_aim_is_a_case_and_a_bug() -> None:
    for aims, table in ((rigs.AIMS, rigs.COPYING), (rigs.DURABLE_AIMS, rigs.STORING)):
        assert aims.keys() <= bugs.load().keys()
        assert set(aims.values()) <= {case.name for case in table}


def test_a_program_that_hangs_or_fails_is_refused() -> None:
    with pytest.raises(Refused, match="not done after"):
        run(["sleep", "60"], limit=0.1)
    with pytest.raises(Refused, match=r"(?s)status 3.*words"):
        run(["sh", "-c", "echo words; exit 3"])
    assert run(["cat"], stdin=b"given") == "given"
