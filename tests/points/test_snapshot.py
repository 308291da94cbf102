"""Snapshots of a live tree: equal to it, equal to a build from nothing, frozen, and as dear as what changed."""

import contextlib
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Store
from engine.errors import AlreadyExists, Busy, InvalidRequest, NotFound, PosixError
from engine.index import Table
from engine.live import rows
from engine.live.inode import Ctx
from engine.live.tree import ROOT, LiveTree
from engine.nodes import Entry
from engine.points.build import TreeBuilder
from engine.points.view import PointView

CTX = Ctx(1000, 1000)
Tree = dict[bytes, tuple[object, ...]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    Store.init(str(tmp_path / "store"))
    with Store.open(str(tmp_path / "store")) as one:
        one.create_mount("m")
        yield one


def live_contents(tree: LiveTree, ino: int = ROOT, path: bytes = b"") -> Tree:
    """Everything a walk of the live tree shows, by path."""
    result: Tree = {}
    for name, attr, _ in list(tree.readdir(ino, 0)):
        here = path + b"/" + name
        content: object = None
        if stat.S_ISREG(attr.mode):
            content = tree.read(attr.ino, 0, attr.size)
        elif stat.S_ISLNK(attr.mode):
            content = tree.readlink(attr.ino)
        xattrs = {n: tree.getxattr(attr.ino, n) for n in tree.listxattr(attr.ino)}
        result[here] = (
            attr.ino,
            attr.mode,
            attr.uid,
            attr.nlink,
            attr.size,
            attr.mtime_ns,
            content,
            xattrs,
        )
        if stat.S_ISDIR(attr.mode):
            result.update(live_contents(tree, attr.ino, here))
    return result


def point_contents(view: PointView, entry: Entry, path: bytes = b"") -> Tree:
    result: Tree = {}
    for child in view.scan(entry):
        here = path + b"/" + child.name
        content: object = None
        if stat.S_ISREG(child.mode):
            content = view.read(child, 0, child.size)
        elif stat.S_ISLNK(child.mode):
            content = child.target
        size = child.size
        result[here] = (
            child.ino, child.mode, child.uid, child.nlink, size, child.mtime_ns, content, view.xattrs(child)
        )  # fmt: skip
        if stat.S_ISDIR(child.mode):
            result.update(point_contents(view, child, here))
    return result


def without_directory_sizes(tree: Tree) -> Tree:
    return {
        p: (*v[:4], None if stat.S_ISDIR(int(str(v[1]))) else v[4], *v[5:]) for p, v in tree.items()
    }


class Mess:
    """Random changes of a live tree."""

    def __init__(self, tree: LiveTree, seed: int) -> None:
        self.tree = tree
        self.rnd = random.Random(seed)
        self.now = 1_700_000_000_000_000_000

    def places(self) -> list[tuple[int, bytes, int, int]]:
        """(parent, name, ino, mode) of every entry."""
        found = []
        todo = [ROOT]
        while todo:
            parent = todo.pop()
            for name, attr, _ in list(self.tree.readdir(parent, 0)):
                found.append((parent, name, attr.ino, attr.mode))
                if stat.S_ISDIR(attr.mode):
                    todo.append(attr.ino)
        return found

    def step(self) -> None:
        rnd, tree = self.rnd, self.tree
        every = self.places()
        folders = [ROOT] + [ino for _, _, ino, mode in every if stat.S_ISDIR(mode)]
        files = [ino for _, _, ino, mode in every if stat.S_ISREG(mode)]
        parent = rnd.choice(folders)
        name = b"n%d" % rnd.randrange(12)
        with contextlib.suppress(
            PosixError, AlreadyExists, NotFound, InvalidRequest
        ):  # as any tree refuses
            match rnd.randrange(12):
                case 0 | 1:
                    tree.mkdir(parent, name, 0o755, CTX)
                case 2 | 3 | 4:
                    attr = tree.create(parent, name, 0o644, CTX)
                    tree.write(attr.ino, 0, rnd.randbytes(rnd.choice([0, 10, 70_000, 3_000_000])))
                case 5 if files:
                    ino = rnd.choice(files)
                    offset = rnd.choice([0, 100, 65536, 2_097_152, 9_000_000])
                    tree.write(ino, offset, rnd.randbytes(rnd.choice([1, 5000, 200_000])))
                case 6 if files:
                    tree.setattr(
                        rnd.choice(files),
                        size=rnd.choice([0, 5, 65536, 2_500_000]),
                        now_ns=self.now,
                    )
                case 7 if every:
                    old_parent, old, _, _ = rnd.choice(every)
                    tree.rename(old_parent, old, parent, name, rnd.choice([0, 0, 1, 2]))
                case 8 if files:
                    tree.link(rnd.choice(files), parent, name)
                case 9 if every:
                    old_parent, old, ino, mode = rnd.choice(every)
                    if stat.S_ISDIR(mode):
                        tree.rmdir(old_parent, old)
                    else:
                        tree.unlink(old_parent, old)
                        tree.forgotten(ino)
                case 10:
                    tree.symlink(parent, name, b"target-%d" % rnd.randrange(99), CTX)
                case 11 if every:
                    ino = rnd.choice(every)[2]
                    self.now += 1_000_000_007
                    tree.setattr(ino, mode=0o600, mtime_ns=self.now, now_ns=self.now)
                    tree.setxattr(ino, b"user.n", rnd.randbytes(rnd.choice([0, 9, 6000])))


def from_nothing(store: Store, name: str) -> bytes:
    """The directory root a build gives that knows no earlier roots."""
    inner = store._open
    with inner.context.index.write() as txn:
        for key, _ in list(txn.scan(Table.ROOTS, prefix=rows.meta_key(store.mount(name).id))):
            txn.delete(Table.ROOTS, key)
    with inner.context.index.read() as txn, inner.session.writer.holds.open() as hold:
        builder = TreeBuilder(
            txn, store.mount(name).id, inner.reader, inner.session.writer, hold, lambda done: None
        )
        return builder.build().root


@pytest.mark.parametrize("seed", range(6))
def test_every_snapshot_equals_the_tree_and_a_build_from_nothing(store: Store, seed: int) -> None:
    tree = store.open_live("m")
    mess = Mess(tree, seed)
    made: list[tuple[str, Tree]] = []
    for _ in range(5):
        for _ in range(40):
            mess.step()
            if not mess.rnd.randrange(9):
                tree.barrier()
        tree.barrier()
        point = store.snapshot("m")
        now = without_directory_sizes(live_contents(tree))
        made.append((point.id, now))
        view = store.view(point.id)
        assert without_directory_sizes(point_contents(view, view.root_entry)) == now
    last = store.view(made[-1][0]).root_entry.root
    assert from_nothing(store, "m") == last  # history leaves no trace in a manifest
    for point_id, then in made:  # older points are as they were
        view = store.view(point_id)
        assert without_directory_sizes(point_contents(view, view.root_entry)) == then
    tree.close()


def test_a_snapshot_reads_and_writes_as_much_as_changed(store: Store) -> None:
    tree = store.open_live("m")
    for d in range(20):
        folder = tree.mkdir(ROOT, b"d%d" % d, 0o755, CTX)
        for f in range(100):
            attr = tree.create(folder.ino, b"file%d" % f, 0o644, CTX)
            tree.write(attr.ino, 0, b"content %d %d" % (d, f))
    tree.barrier()
    store.snapshot("m")
    writer = store._open.session.writer
    before = writer.stored_bytes
    tree.write(tree.lookup(tree.lookup(ROOT, b"d3").ino, b"file7").ino, 0, b"changed")
    tree.barrier()
    store.snapshot("m")
    assert writer.stored_bytes - before < 20_000
    before = writer.stored_bytes
    store.snapshot("m")
    assert writer.stored_bytes - before < 500  # the point's own record
    tree.close()


def test_points_are_found_by_prefix_and_latest_and_are_gone_when_deleted(store: Store) -> None:
    first = store.snapshot("m", "one")
    second = store.snapshot("m", "two")
    assert [(p.seq, p.label) for p in store.points("m")] == [(1, "one"), (2, "two")]
    assert store.point("m@latest").id == second.id
    assert store.point(first.id).id == first.id
    assert store.remove_point(first.id).id == first.id
    with pytest.raises(NotFound):
        store.point(first.id)
    with pytest.raises(NotFound, match="mounts: m"):
        store.points("nope")


def test_a_point_that_is_read_cannot_be_deleted(store: Store) -> None:
    point = store.snapshot("m")
    store.view(point.id)
    with pytest.raises(Busy):
        store.remove_point(point.id)


def test_a_file_where_a_directory_was_has_no_predecessor(store: Store) -> None:
    tree = store.open_live("m")
    folder = tree.mkdir(ROOT, b"x.img", 0o755, CTX).ino
    tree.symlink(folder, b"in", b"target", CTX)
    tree.barrier()
    store.snapshot("m")
    tree.unlink(folder, b"in")
    tree.rmdir(ROOT, b"x.img")
    tree.write(tree.create(ROOT, b"x.img", 0o644, CTX).ino, 0, bytes(range(256)) * 12_000)
    tree.barrier()  # a directory's root taken for a file's would be logged
    tree.close()


def test_a_mount_is_served_once(store: Store, tmp_path: Path) -> None:
    tree = store.open_live("m")
    with Store.open(str(tmp_path / "store")) as other, pytest.raises(Busy):
        other.open_live("m")
    tree.close()


def test_diff_names_what_changed(store: Store) -> None:
    tree = store.open_live("m")
    folder = tree.mkdir(ROOT, b"d", 0o755, CTX).ino
    kept = tree.create(folder, b"kept", 0o644, CTX).ino
    gone = tree.create(folder, b"gone", 0o644, CTX).ino
    tree.write(kept, 0, b"one")
    tree.barrier()
    a = store.snapshot("m")
    tree.unlink(folder, b"gone")
    tree.forgotten(gone)
    tree.write(kept, 0, b"three")
    tree.create(ROOT, b"new", 0o644, CTX)
    tree.barrier()
    b = store.snapshot("m")
    changes = [(c.kind, c.path) for c in store.diff(a.id, b.id)]
    assert ("removed", b"d/gone") in changes
    assert ("added", b"new") in changes
    assert [c.detail for c in store.diff(a.id, b.id) if c.path == b"d/kept"] == [
        "content, size 3 to 5, mtime"
    ]
    assert list(store.diff(b.id, b.id)) == []
    tree.close()


def test_a_frozen_mount_moves_on_only_after_the_cut(store: Store) -> None:
    tree = store.open_live("m")
    ino = tree.create(ROOT, b"f", 0o644, CTX).ino
    tree.write(ino, 0, b"before")
    tree.barrier()

    def thaw() -> None:
        tree.write(ino, 0, b"AFTER!")
        tree.barrier()

    point = store.snapshot("m", thaw=thaw)
    view = store.view(point.id)
    assert view.read(view.find(b"f"), 0, 100) == b"before"
    again = store.snapshot("m")
    view = store.view(again.id)
    assert view.read(view.find(b"f"), 0, 100) == b"AFTER!"
    tree.close()
