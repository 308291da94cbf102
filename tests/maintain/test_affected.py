"""What check says of damage: every range, every directory that lost names, every file that lost attributes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store, limits
from engine.errors import Corrupt
from engine.live import ROOT
from engine.nodes import xattrs
from tests.maintain.support import CTX, damage, noise, put


def test_one_unreadable_directory_does_not_hide_what_else_is_damaged(
    home: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("suspect")
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        folder = tree.mkdir(ROOT, b"a", 0o755, CTX).ino
        tree.symlink(folder, b"inside", b"x", CTX)
        ino = put(tree, b"file", noise(4 * limits.SLOT, 1))
        tree.setxattr(ino, b"user.large", noise(4000, 2))
        tree.close()
        point = store.snapshot("m").id
        view = store.glance(point)
        entry = view.find(b"file")
        extents = view.span(entry, 0)
        for number in (1, 2):
            damage(store, home, extents[number][2])
        damage(store, home, view.find(b"a").root)
        damage(store, home, xattrs.node_ids(entry.xattrs)[0])
    with Store.open(str(home)) as store:
        told = {(p.thing, p.text) for p in store.check(read_data=True).problems if p.code == "file"}
        start, end = extents[1][0], extents[2][0] + extents[2][1]
        assert told == {
            (f"point {point}: a", "names behind b'' cannot be read"),
            (f"point {point}: file", f"bytes {start} to {end} cannot be read"),
            (f"point {point}: file", "extended attributes cannot be read"),
        }


def test_a_collection_frees_nothing_while_the_index_hides_rows(home: Path) -> None:
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        put(tree, b"f", noise(10_000, 1))
        tree.close()
        store.snapshot("m")
    data = home / "index" / "data.mdb"
    raw = bytearray(data.read_bytes())
    at = raw.find(b"points")
    while at >= 0:  # in every copy of the page that has the table's record
        raw[at + len(b"points") + 32] ^= 2  # rows
        at = raw.find(b"points", at + 1)
    data.write_bytes(raw)
    with Store.open(str(home)) as store:
        with pytest.raises(Corrupt, match="index"):
            store.collect()
        with pytest.raises(Corrupt, match="points"):
            store.points()
        assert {p.code for p in store.check().problems} == {"index"}
