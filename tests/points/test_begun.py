"""A first snapshot that dies half way leaves roots of parts of the tree; what changes then is in the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Store
from engine.live import ROOT, Ctx
from engine.points import build
from tests.maintain.support import noise, sound

CTX = Ctx(0, 0)


def test_changes_after_half_a_first_snapshot_are_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_BATCH", 4)
    Store.init(str(tmp_path / "store"))
    with Store.open(str(tmp_path / "store")) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        inodes = []
        for number in range(60):
            folder = tree.mkdir(ROOT, b"%02d" % number, 0o755, CTX).ino
            ino = tree.create(folder, b"file", 0o644, CTX).ino
            tree.write(ino, 0, noise(5_000_000 if number == 7 else 300, number))
            inodes.append((folder, ino))
        tree.barrier()

        monkeypatch.setattr(build.dirs, "build", _dying(build.dirs.build, 40))
        with pytest.raises(KeyboardInterrupt):
            store.snapshot("m")
        monkeypatch.undo()
        for number, (folder, ino) in enumerate(inodes):
            tree.write(ino, 0, b"changed")
            if number % 2:
                tree.create(folder, b"new", 0o644, CTX)
        tree.barrier()
        view = store.glance(store.snapshot("m").id)
        for number in range(60):
            entry = view.find(b"%02d/file" % number)
            expected = b"changed" + noise(5_000_000 if number == 7 else 300, number)[7:]
            assert view.read(entry, 0, entry.size) == expected
            assert (view.lookup(b"%02d/new" % number) is not None) == bool(number % 2)
        tree.close()
        sound(store)


def _dying(real: object, calls: int) -> object:
    left = calls

    def build(*arguments: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[operator]

    return build
