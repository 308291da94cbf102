"""A store and a model of it: mounts with files, points, what must be in each; comparing them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

from engine import HoldfastError, PointView, Store
from engine.home import OpenStore, init
from engine.live import ROOT, Ctx
from engine.live.tree import LiveTree
from engine.nodes import Entry
from engine.seam import Os
from tools.torture.rig import Job
from tools.torture.space.child import UnsyncedOs

_CTX = Ctx(0, 0)
Content = tuple[bytes, bytes]  # bytes, a long extended attribute
Files = dict[bytes, Content]


class World:
    """What the store must hold: the live files of each mount, and those of each point."""

    def __init__(self, job: Job, case: object, home: Path, mounts: int) -> None:
        self.job = job
        self.case = case
        self.home = home
        self.live: dict[str, Files] = {f"m{number}": {} for number in range(mounts)}
        self.points: dict[str, Files] = {}
        self.system = UnsyncedOs(job.random("system", case))
        init(str(home), system=self.system)
        with self.open() as store:
            for name in self.live:
                store.create_mount(name)

    def fail(self, text: str) -> None:
        self.job.fail(self.case, text)

    @contextlib.contextmanager
    def open(self, system: Os | None = None) -> Iterator[Store]:
        """The store, with cold caches; whatever the engine refuses is a find."""
        try:
            with Store(OpenStore(str(self.home), system=system or self.system)) as store:
                yield store
        except HoldfastError as error:
            self.fail(f"{type(error).__name__}: {error}")

    @contextlib.contextmanager
    def tree(self, store: Store, name: str) -> Iterator[LiveTree]:
        """A live tree, closed whatever happens."""
        tree = store.open_live(name)
        try:
            yield tree
        finally:
            tree.close()

    # --- changing ---------------------------------------------------------------------------------------------

    def put(self, tree: LiveTree, mount: str, path: bytes, data: bytes, value: bytes = b"") -> None:
        """Write a file anew, in place where it is only longer or changed."""
        parent, name = _parent(tree, path)
        old = self.live[mount].get(path)
        ino = (
            tree.create(parent, name, 0o644, _CTX).ino
            if old is None
            else tree.lookup(parent, name).ino
        )
        before = b"" if old is None else old[0]
        if len(before) > len(data):
            tree.setattr(ino, size=len(data), now_ns=1)
        step = 4096
        for at in range(0, len(data), step):
            if before[at : at + step] != data[at : at + step]:
                tree.write(ino, at, data[at : at + step])
        if value:
            tree.setxattr(ino, b"user.long", value)
        elif old is not None:
            value = old[1]
        self.live[mount][path] = (data, value)

    def remove(self, tree: LiveTree, mount: str, path: bytes) -> None:
        tree.unlink(*_parent(tree, path))
        del self.live[mount][path]

    def snapshot(self, store: Store, mount: str) -> str:
        point = store.snapshot(mount).id
        self.points[point] = dict(self.live[mount])
        return point

    # --- comparing --------------------------------------------------------------------------------------------

    def verify(self, rng: random.Random) -> None:
        """Check is clean; every point and every live tree is what it must be, read from the disk."""
        with self.open() as store:
            problems = store.check(read_data=True).problems
            if problems:
                self.fail(
                    f"check: {problems[0].thing}: {problems[0].text} ({len(problems)} problems)"
                )
            if {point.id for point in store.points()} != self.points.keys():
                self.fail("the points are not those that were made and kept")
            names = list(self.points)
            rng.shuffle(names)  # bases are met in another order, with other things in the caches
            for name in names:
                view = store.glance(name)
                self._same(
                    f"point {name}", self.points[name], dict(_content(view, view.root_entry))
                )
            for mount, files in self.live.items():
                with self.tree(store, mount) as tree:
                    self._same(f"live tree of {mount}", files, dict(_live_content(tree)))

    def _same(self, what: str, expected: Files, found: Files) -> None:
        if expected == found:
            return
        if expected.keys() != found.keys():
            self.fail(
                f"{what}: files {sorted(expected.keys() ^ found.keys())} are not as they were"
            )
        for path, content in expected.items():
            if found[path] != content:
                part = "attribute" if found[path][0] == content[0] else "content"
                self.fail(f"{what}: {part} of {path!r} is not what was written")


def _parent(tree: LiveTree, path: bytes) -> tuple[int, bytes]:
    folder, _, name = path.rpartition(b"/")
    if not folder:
        return ROOT, name
    try:
        return tree.lookup(ROOT, folder).ino, name
    except HoldfastError:
        return tree.mkdir(ROOT, folder, 0o755, _CTX).ino, name


def _content(
    view: PointView, folder: Entry, prefix: bytes = b""
) -> Iterator[tuple[bytes, Content]]:
    for entry in view.scan(folder):
        path = prefix + entry.name
        if entry.mode & 0o170000 == 0o040000:
            yield from _content(view, entry, path + b"/")
        else:
            yield path, (view.read(entry, 0, entry.size), view.xattrs(entry).get(b"user.long", b""))


def _live_content(
    tree: LiveTree, folder: int = ROOT, prefix: bytes = b""
) -> Iterator[tuple[bytes, Content]]:
    for name, attr, _ in tree.readdir(folder, 0):
        if name in (b".", b".."):
            continue
        if attr.mode & 0o170000 == 0o040000:
            yield from _live_content(tree, attr.ino, prefix + name + b"/")
            continue
        value = tree.getxattr(attr.ino, b"user.long") if tree.listxattr(attr.ino) else b""
        yield prefix + name, (tree.read(attr.ino, 0, attr.size), value)
