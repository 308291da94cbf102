"""The model of POSIX and the exercisers, without a mount; and the state machine of hypothesis on one."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.conftest import why_no_fuse
from tools.torture.conform.choose import OPERATIONS
from tools.torture.conform.compare import Frozen, difference
from tools.torture.conform.fsstress import Inconsistent, stress, walk
from tools.torture.conform.fsx import Different, Exerciser
from tools.torture.conform.machine import Machine
from tools.torture.conform.model import Model
from tools.torture.conform.nodes import PAGE, Content, Refused
from tools.torture.conform.places import Mounted, control
from tools.torture.conform.posix.rig import fits, table
from tools.torture.conform.posix.rules import has, only


def refused(number: int):
    return pytest.raises(Refused, match=errno.errorcode[number])


def test_sparse_content() -> None:
    content = Content()
    content.write(PAGE - 2, b"abcd")
    content.write(1 << 41, b"far")
    assert content.read(PAGE - 3, 6) == b"\0abcd\0"
    assert content.size == (1 << 41) + 3 and len(content.pages) == 3
    content.truncate(PAGE + 1)
    content.truncate(PAGE + 4)
    assert content.read(0, 1 << 20)[PAGE - 2 :] == b"abc\0\0\0"


def test_the_model_resolves_links_and_refuses_loops() -> None:
    model = Model()
    model.mkdir("d", 0o755)
    model.symlink("d", "s")
    model.symlink("loop", "loop")
    model.open("s/f", os.O_CREAT | os.O_RDWR, 0o600, 0)
    assert model.names("d") == ["f"] and model.stat("s", False)[0] == stat.S_IFLNK | 0o777
    with refused(errno.ELOOP):
        model.stat("loop/x", True)
    with refused(errno.ENOTDIR):
        model.mkdir("d/f/x", 0o755)
    with refused(errno.EINVAL):
        model.rename("d", "d/x", 0)
    model.unlink("d/f")
    assert model.write(0, b"still here") == 10 and model.fstat(0)[3:] == (0, 10)


def test_the_model_counts_links() -> None:
    model = Model()
    model.mkdir("a", 0o755)
    model.mkdir("a/b", 0o755)
    model.mkdir("c", 0o755)
    model.rename("a/b", "c/b", 0)
    assert [model.stat(path, True)[3] for path in ("a", "c", "c/b")] == [2, 3, 2]
    model.rename("a", "c/b", 2)
    assert [model.stat(path, True)[3] for path in ("a", "c")] == [2, 3]


def test_the_table_is_large_and_its_modes_are_exact() -> None:
    assert len(table()) > 3000
    assert only("owner", 5) == 0o522 and only("mate", 2) == 0o525 and only("other", 0) == 0o770
    assert has(0o640, "member", 4) and not has(0o640, "member", 2) and has(0, "root", 7)
    assert fits("EPERM", "EISDIR|EPERM") and not fits("EPERM", ...) and fits(None, ...)


def test_the_exerciser_of_a_file_finds_a_changed_byte(tmp_path: Path) -> None:
    one = Exerciser(str(tmp_path / "f"), random.Random(3), 300_000)
    one.run(1500)
    one.reopen()
    one.whole()
    with (tmp_path / "f").open("r+b") as file:
        file.write(b"?!")
    with pytest.raises(Different, match="from 0 on"):
        one.whole()
    one.close()


def test_the_exerciser_of_a_tree_agrees_with_itself(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("it gives files away")
    stress(str(tmp_path), 800, 2, 5)
    before = walk(str(tmp_path))
    assert len(before) > 20
    (tmp_path / "shared" / "one more").touch()
    assert walk(str(tmp_path)) != before
    with pytest.raises(Inconsistent, match="File exists"):
        stress(str(tmp_path), 2, 1, 6)  # what happens to a process is told


class MountMachine(RuleBasedStateMachine):
    """Every operation drawn by hypothesis, which makes a failing sequence short."""

    places: tuple[Path, Path]
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.paths = [Path(tempfile.mkdtemp(dir=place)) for place in self.places]
        self.numbers: st.DataObject | None = None
        ours, there = (str(path / "t") for path in self.paths)
        self.machine = Machine(ours, there, self.draw)

    def draw(self, below: int) -> int:
        assert self.numbers is not None
        return self.numbers.draw(st.integers(0, below - 1))

    @rule(data=st.data(), name=st.sampled_from(OPERATIONS))
    def operation(self, data: st.DataObject, name: str) -> None:
        self.numbers = data
        self.machine.step(name)

    @rule()
    def whole_trees(self) -> None:
        self.machine.compare()

    @rule()
    def all_closed(self) -> None:
        self.machine.close_all()

    @invariant()
    def the_root_is_there(self) -> None:
        assert difference(self.machine.control.top, Frozen(self.machine.model)) == ""

    def teardown(self) -> None:
        try:
            self.machine.close_all()
            self.machine.compare()
        finally:
            self.machine.end()
            MountMachine.steps += self.machine.steps
            for path in self.paths:
                shutil.rmtree(path)


@pytest.mark.needs_fuse
def test_a_mount_does_what_the_model_does(tmp_path: Path) -> None:
    if why_no_fuse() or os.geteuid() != 0:
        pytest.skip("needs root for the control")
    mask = os.umask(0)
    try:
        with control(tmp_path / "c") as there, Mounted(tmp_path / "h") as mounted:
            MountMachine.places = (mounted.path, there)
            run_state_machine_as_test(
                MountMachine,
                settings=settings(
                    max_examples=20, stateful_step_count=60, database=None, derandomize=True,
                    phases=(Phase.generate, Phase.shrink),
                ),
            )  # fmt: skip
            mounted.verify()
    finally:
        os.umask(mask)
    assert MountMachine.steps > 100
