"""The live tree against the model, operation by operation, with crashes and restarts between them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine import limits
from engine.errors import HoldfastError, StoreFull
from engine.live import lookup
from tests.live.model import ROOT, Model, Node, Refused
from tests.live.rig import CTX, MemoryRig, content

NAMES = [b"a", b"b", b"c", b"d", b"e\n\xff"]
SPAN = limits.SPAN
OFFSETS = [0, 1, 100, 5000, SPAN - 3, SPAN, SPAN + 70_000, 2 * SPAN - 1]

name = st.sampled_from(NAMES)
pick = st.integers(0, 1 << 16)


class LiveTreeMachine(RuleBasedStateMachine):
    patches: tuple[tuple[object, str, object], ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for place, attribute, value in self.patches:
            self.patch.setattr(place, attribute, value)
        self.path = Path(tempfile.mkdtemp())
        self.rig = MemoryRig(self.path)
        self.tree = self.rig.tree
        self.model = Model()
        self.committed = self.model.copy()
        self.open: dict[int, int] = {}

    def teardown(self) -> None:
        self.rig.verify()
        self.rig.end()
        self.patch.undo()
        shutil.rmtree(self.path)

    # --- choosing

    def some(self, number: int, kind: str = "", linked: bool = False) -> int | None:
        inos = [
            ino
            for ino, node in self.model.nodes.items()
            if node.kind in (kind or "dfl") and (node.nlink > 0 or not linked)
        ]
        return inos[number % len(inos)] if inos else None

    def compare(self, wanted: Callable[[], object], act: Callable[[], object]) -> object:
        """Both succeed or both are refused in the same way; the tree's result."""
        try:
            wanted()
        except Refused as refused:
            number = refused.errno
            with pytest.raises(HoldfastError) as raised:
                act()
            assert raised.value.errno == number
            return None
        return act()

    # --- the namespace

    @rule(parent=pick, name=name, kind=st.sampled_from("fdl"))
    def make(self, parent: int, name: bytes, kind: str) -> None:
        where = self.some(parent, "d")
        make = {
            "f": lambda: self.tree.create(where, name, 0o640, CTX),
            "d": lambda: self.tree.mkdir(where, name, 0o750, CTX),
            "l": lambda: self.tree.symlink(where, name, b"to/" + name, CTX),
        }[kind]
        attr = self.compare(lambda: self.model.may_make(where, name), make)
        if attr is not None:
            mode = {"f": 0o640, "d": 0o750, "l": 0o777}[kind]
            node = Node(kind, mode, target=b"to/" + name if kind == "l" else b"")
            self.model.made(where, name, attr.ino, node)

    @rule(file=pick, parent=pick, name=name)
    def link(self, file: int, parent: int, name: bytes) -> None:
        ino, where = self.some(file), self.some(parent, "d")
        self.compare(
            lambda: self.model.link(ino, where, name), lambda: self.tree.link(ino, where, name)
        )

    @rule(parent=pick, name=name, directory=st.booleans())
    def remove(self, parent: int, name: bytes, directory: bool) -> None:
        where = self.some(parent, "d")
        lost = self.model.nodes[where].entries.get(name)
        if directory:
            wanted, act = self.model.rmdir, self.tree.rmdir
        else:
            wanted, act = self.model.unlink, self.tree.unlink
        self.compare(lambda: wanted(where, name), lambda: act(where, name))
        self.forget(lost)

    @rule(parent=pick, name=name, to=pick, new=name, flags=st.sampled_from([0, 0, 0, 1, 2, 2]))
    def rename(self, parent: int, name: bytes, to: int, new: bytes, flags: int) -> None:
        source, where = self.some(parent, "d"), self.some(to, "d")
        lost: list[int | None] = []
        self.compare(
            lambda: lost.append(self.model.rename(source, name, where, new, flags)),
            lambda: self.tree.rename(source, name, where, new, flags),
        )
        for ino in lost:
            self.forget(ino)

    def forget(self, ino: int | None) -> None:
        """What the kernel does when the last name goes and nobody has it open."""
        if ino is not None and self.model.nodes[ino].nlink == 0 and not self.open.get(ino):
            self.tree.forgotten(ino)
            del self.model.nodes[ino]

    # --- attributes

    @rule(file=pick, mode=st.integers(0, 0o7777), when=st.integers(-(10**18), 2 * 10**18))
    def setattr(self, file: int, mode: int, when: int) -> None:
        ino = self.some(file)
        self.tree.setattr(ino, mode=mode, mtime_ns=when, now_ns=5)
        node = self.model.nodes[ino]
        node.mode, node.mtime = mode, when

    @rule(file=pick, name=name, size=st.sampled_from([0, 5, 1800, 1801, 9000]), drop=st.booleans())
    def xattr(self, file: int, name: bytes, size: int, drop: bool) -> None:
        ino = self.some(file)
        known = self.model.nodes[ino].xattrs
        full = b"user." + name
        if drop and full in known:
            self.tree.removexattr(ino, full)
            del known[full]
        else:
            value = bytes(i % 253 for i in range(size))
            self.tree.setxattr(ino, full, value)
            known[full] = value

    # --- content

    @rule(
        file=pick, where=st.sampled_from(OFFSETS), more=st.integers(0, 40), size=st.sampled_from([1, 7, 900, 70_000]),
        fill=st.integers(1, 255),
    )  # fmt: skip
    def write(self, file: int, where: int, more: int, size: int, fill: int) -> None:
        ino = self.some(file, "f")
        if ino is not None:
            data = bytes((fill + i % 5) % 255 + 1 for i in range(size))
            assert self.tree.write(ino, where + more, data) == size
            self.model.write(ino, where + more, data)
            self.model.nodes[ino].mtime = -1

    @rule(file=pick, size=st.sampled_from([0, 0, 3, 4000, SPAN - 1, SPAN, SPAN + 5, 3 * SPAN]))
    def truncate(self, file: int, size: int) -> None:
        ino = self.some(file, "f")
        if ino is not None:
            attr = self.tree.setattr(ino, size=size, now_ns=9)
            self.model.truncate(ino, size)
            self.model.nodes[ino].mtime = -1
            assert attr.size == size

    @rule(file=pick)
    def opened(self, file: int) -> None:
        ino = self.some(file, "f", linked=True)
        if ino is not None:
            self.tree.opened(ino, 2)
            self.open[ino] = self.open.get(ino, 0) + 1

    @rule(number=pick)
    def released(self, number: int) -> None:
        inos = [ino for ino, count in self.open.items() if count]
        if inos:
            ino = inos[number % len(inos)]
            self.tree.released(ino)
            self.open[ino] -= 1
            self.forget(ino)

    # --- durability

    def commit(self, *sealed: int) -> None:
        """A commit has happened, and these files were sealed wholly before it."""
        for ino in sealed:
            self.model.settle(ino)
        self.committed = self.model.copy()
        for ino, node in self.model.nodes.items():
            if node.kind == "f":
                node.floor = self.tree._state.get(ino).floor

    @rule(file=pick)
    def fsync(self, file: int) -> None:
        ino = self.some(file, linked=True)
        before = self.rig.chunks.commits
        self.tree.fsync(ino)
        if self.rig.chunks.commits > before:
            sealed = [ino] if self.model.nodes[ino].kind == "f" else []
            self.commit(*sealed, *self.replaced())

    def replaced(self) -> list[int]:
        """Files a commit has sealed because they were renamed over others."""
        with self.tree._state.lock:
            unsealed = set(self.tree._contents.unsealed)
        return [
            ino
            for ino, node in self.model.nodes.items()
            if node.kind == "f" and not node.settled and ino not in unsealed
        ]

    @rule()
    def barrier(self) -> None:
        self.tree.barrier()
        self.commit(*(i for i, n in self.model.nodes.items() if n.kind == "f" and n.nlink))

    @rule(how=st.sampled_from(["seal", "commit", "late"]))
    def failure(self, how: str) -> None:
        """A barrier that cannot be; what was written stays, and the next one has it all."""
        chunks = self.rig.chunks
        error = StoreFull("test", found="no room")
        setattr(chunks, f"fail_{how}", error)
        before = chunks.commits
        with contextlib.suppress(StoreFull):  # nothing may have been dirty
            self.tree.barrier()
        setattr(chunks, f"fail_{how}", None)
        if (
            chunks.commits > before
        ):  # without the data that could not be sealed, or unknown to the tree
            files = [i for i, n in self.model.nodes.items() if n.kind == "f" and n.nlink]
            self.commit(*(files if how == "late" else self.replaced()))
        self.pass_time(0.0)  # a failed commit is tried again before anything that needs room

    @rule(seconds=st.sampled_from([0.5, 10.0]))
    def tick(self, seconds: float) -> None:
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        self.rig.time.wait(seconds)
        before = self.rig.chunks.commits
        self.tree.tick()
        if self.rig.chunks.commits > before:
            self.commit(*self.replaced())

    @precondition(lambda self: not any(self.open.values()))
    @rule()
    def restart(self) -> None:
        self.barrier()
        self.tree = self.rig.reopen()
        self.drop_unlinked()
        self.compare_all()

    @rule()
    def crash(self) -> None:
        before = self.committed
        self.tree = self.rig.crash()
        self.open = {}
        self.model = before.copy()
        self.drop_unlinked()
        for ino, node in self.model.nodes.items():
            if node.kind == "f":
                found = content(self.tree, ino)
                if node.settled:
                    assert found == node.data, ino
                else:
                    self.check_torn(found, node)
                node.data = bytearray(found)
                node.settled, node.versions, node.floor = True, [found], len(found)
        self.compare_all()
        self.committed = self.model.copy()

    def drop_unlinked(self) -> None:
        self.model.nodes = {i: n for i, n in self.model.nodes.items() if n.nlink}

    def check_torn(self, found: bytes, node: Node) -> None:
        """Past the size it had: the newest bytes or none. Below: bytes it had at some time since."""
        assert len(found) <= max([len(node.data), *map(len, node.versions)])
        versions = [*node.versions, bytes(node.data)]
        for at in sample(found, node):
            byte = found[at]
            if at >= node.floor:
                assert byte == node.data[at], at
            else:
                assert any(at < len(v) and v[at] == byte for v in versions), at

    # --- comparing

    @invariant()
    def entries_are_equal(self) -> None:
        for ino, node in self.model.nodes.items():
            if node.kind == "d":
                listed = {name: attr.ino for name, attr, _ in self.tree.readdir(ino, 0)}
                assert listed == node.entries
                for name in NAMES:
                    try:
                        found = self.tree.lookup(ino, name).ino
                    except HoldfastError:
                        found = None
                    assert found == node.entries.get(name)

    @rule(file=pick, offset=st.sampled_from(OFFSETS), size=st.sampled_from([1, 5000, SPAN]))
    def read(self, file: int, offset: int, size: int) -> None:
        ino = self.some(file, "f")
        if ino is not None:
            wanted = self.model.nodes[ino].data[offset : offset + size]
            assert self.tree.read_now(ino, offset, size) == wanted
            assert self.tree.read(ino, offset, size) == wanted

    @rule()
    def compare_all(self) -> None:
        for ino, node in self.model.nodes.items():
            attr = self.tree.getattr(ino)
            assert attr.nlink == node.nlink, ino
            assert attr.mode & 0o7777 == node.mode
            if node.mtime != -1 and node.kind == "f":
                assert attr.mtime_ns == node.mtime
            if node.kind == "f":
                assert attr.size == len(node.data)
                assert content(self.tree, ino) == node.data
                assert attr.blocks <= (len(node.data) + 511) // 512 or not node.settled
            elif node.kind == "l":
                assert self.tree.readlink(ino) == node.target
            elif ino != ROOT and node.nlink:
                assert self.tree.lookup(ino, b"..").ino == node.parent
            assert self.tree.listxattr(ino) == sorted(node.xattrs)
            for name, value in node.xattrs.items():
                assert self.tree.getxattr(ino, name) == value


def sample(found: bytes, node: Node) -> list[int]:
    """Offsets worth looking at: around every border, and some between."""
    borders = {0, node.floor, len(found) - 1, *OFFSETS}
    return sorted(
        {at + step for at in borders for step in (-1, 0, 1, 50) if 0 <= at + step < len(found)}
    )


class CrampedMachine(LiveTreeMachine):
    """Hardly any caches, names that collide, few rows a commit may purge."""

    patches = (
        (lookup, "name_hash", lambda secret, name: 1 + name[0] % 2),
        (limits, "INODE_CACHE", 3),
        (limits, "NAME_CACHE", 4),
        (limits, "SPAN_CACHE", 1),
        (limits, "TXN_DELETES_MAX", 4),
        (limits, "COMMIT_ROWS", 1 << 30),  # no commits but those the machine knows of
    )


SETTINGS = settings(max_examples=40, stateful_step_count=40)
TestLiveTree = LiveTreeMachine.TestCase
TestLiveTree.settings = SETTINGS
TestCrampedTree = CrampedMachine.TestCase
TestCrampedTree.settings = SETTINGS
