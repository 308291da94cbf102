"""What check says of damage: every range, every directory that lost names, every file that lost attributes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store, limits
from engine.errors import Corrupt
from engine.index import layout
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
    hide_a_row(home / "index" / "data.mdb", b"points")
    with Store.open(str(home)) as store:
        with pytest.raises(Corrupt, match="index"):
            store.collect()
        with pytest.raises(Corrupt, match="points"):
            store.points()
        assert {p.code for p in store.check().problems} == {"index"}


def hide_a_row(index: Path, table: bytes) -> None:
    """Alters the number of rows in a table's record, where the last commit has it.

    Other places where the table's name lies may be anything: LMDB leaves old bytes, and what was in the process's
    memory, in the unused parts of pages.
    """
    with index.open("r+b") as file:
        meta = layout.read_metas(file.fileno())[-1]
        page = os.pread(file.fileno(), meta.page, meta.main.root * meta.page)
        (row,) = (row for row in layout.leaf(page, meta.main.root) if row.key == table)
        at = meta.main.root * meta.page + page.rindex(table + row.data)
        tree = layout.decode_tree(row.data)
        assert tree.rows == 1
        os.pwrite(file.fileno(), (tree.rows ^ 2).to_bytes(8, "little"), at + len(table) + 32)
