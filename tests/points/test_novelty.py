"""What is new in a point, and how it compresses: counted exactly where it can be, drawn without a bias where not."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest

from engine import Store
from engine.chunks import ChunkReader
from engine.live import LiveTree
from engine.live.inode import Ctx
from engine.live.tree import ROOT
from engine.points import novelty
from engine.points.novelty import Novelty

CTX = Ctx(0, 0)
SLOT = 64 << 10


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    Store.init(path)
    with Store.open(path) as store:
        store.create_mount("m", chunking="fixed")
    return path


def written(path: str, change: dict[str, tuple[int, bytes]], gone: str = "") -> str:
    """A point after these pieces were written at their places."""
    with Store.open(path) as store:
        tree = store.open_live("m")
        try:
            for name, (at, content) in change.items():
                found = {one: attr for one, attr, _ in list(tree.readdir(_folder(tree, name), 0))}
                last = name.rpartition("/")[2].encode()
                ino = (
                    found[last].ino
                    if last in found
                    else tree.create(_folder(tree, name), last, 0o644, CTX).ino
                )
                tree.write(ino, at, content)
            if gone:
                tree.unlink(ROOT, gone.encode())
        finally:
            tree.close()
        return store.snapshot("m").id


def _folder(tree: LiveTree, name: str) -> int:
    folder = name.rpartition("/")[0].encode()
    if not folder:
        return ROOT
    found = {one: attr for one, attr, _ in list(tree.readdir(ROOT, 0))}
    if folder in found:
        assert stat.S_ISDIR(found[folder].mode)
        return found[folder].ino
    return tree.mkdir(ROOT, folder, 0o755, CTX).ino


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_only_what_is_new_counts(path: str) -> None:
    first = written(path, {"d/a": (0, noise(1, 40 * SLOT)), "b": (0, b"line\n" * SLOT)})
    same = written(path, {})
    page = written(path, {"d/a": (7 * SLOT, b"text " * 13000 + bytes(536))})
    gone = written(path, {"d/c": (0, noise(2, SLOT))}, gone="b")
    with Store.open(path) as store:
        whole = store.novelty("", first)
        assert whole.files == 2 and whole.bytes == 40 * SLOT + 5 * SLOT
        assert store.novelty(first, same) == Novelty(0, 0, 0, 0)
        one = store.novelty(same, page)
        assert (one.files, one.bytes, one.plain) == (1, SLOT, SLOT) and one.stored < SLOT // 10
        new = store.novelty(page, gone)
        assert (new.files, new.bytes, new.plain) == (1, SLOT, SLOT) and new.stored >= SLOT
        assert store.novelty(gone, gone) == Novelty(0, 0, 0, 0)


def test_many_chunks_are_judged_by_some(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(
        noise(n, SLOT) if n % 4 else (b"%09d\n" % n) * (SLOT // 10) + bytes(6) for n in range(400)
    )
    point = written(path, {"f": (0, content)})
    with Store.open(path) as store:
        exact = store.novelty("", point)
        assert (
            exact.plain == exact.bytes == len(content) and 0.74 < exact.stored / exact.plain < 0.77
        )
        monkeypatch.setattr(novelty, "SAMPLE", 100)
        drawn = store.novelty("", point)
    assert drawn[:2] == exact[:2] and 30 * SLOT < drawn.plain <= 100 * SLOT
    assert abs(drawn.stored / drawn.plain - exact.stored / exact.plain) < 0.15


def test_what_two_points_share_is_not_read(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"d{n // 200}/{n}": (0, b"%d" % n) for n in range(800)}
    first = written(path, {**many, "b": (0, noise(1, 60 * SLOT))})
    second = written(path, {"d1/new": (0, b"new"), "b": (30 * SLOT, noise(2, SLOT))})
    read: list[bytes] = []
    real = ChunkReader.read_node
    monkeypatch.setattr(
        ChunkReader, "read_node", lambda self, cid: read.append(cid) or real(self, cid)
    )
    with Store.open(path) as store:
        new = store.novelty(first, second)
        assert (new.files, new.bytes) == (2, SLOT + 3)
        some = len(read)
        assert store.novelty("", second).files == 802
        assert some < (len(read) - some) / 2
