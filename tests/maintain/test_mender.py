"""Chunks of gathered pieces are put together again though what is written makes other chunks now."""

from __future__ import annotations

from pathlib import Path

from engine import Store, limits
from engine.index import Table
from engine.index.rows import KIND_DATA, chunk_row
from tests.maintain.support import damage, noise, put, restored, sound


def data_chunks(store: Store) -> list[bytes]:
    with store._open.context.index.read() as txn:
        found = [(cid, chunk_row(raw)) for cid, raw in txn.scan(Table.CHUNKS)]
    return [cid for cid, row in found if row.kind == KIND_DATA]


def test_small_files_written_one_by_one_heal_the_chunk_they_share(
    home: Path, tmp_path: Path
) -> None:
    files = {b"%d" % number: noise(3000 + number, number) for number in range(9)}
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        for name, data in files.items():
            put(tree, name, data)
        tree.close()
        point = store.snapshot("m").id
        (shared,) = data_chunks(store)
        damage(store, home, shared)
    with Store.open(str(home)) as store:
        assert store.check(read_data=True).problems
        tree = store.open_live("m")
        for number, data in enumerate(reversed(files.values())):
            put(tree, b"again %d" % number, data)
            if number % 2:
                tree.barrier()  # pairs: no chunk of them is the one that is damaged
        tree.close()
        assert {
            name.encode(): data for name, data in restored(store, point, tmp_path / "out").items()
        } == files
        sound(store)


def test_a_stream_heals_chunks_that_are_gathered_otherwise_now(home: Path, tmp_path: Path) -> None:
    data = noise(8 * limits.SLOT, 1)
    with Store.open(str(home)) as store:
        store.create_mount("m", chunking="cdc")
        tree = store.open_live("m")
        put(tree, b"f", data)
        tree.close()
        point = store.snapshot("m").id
        chunks = data_chunks(store)
        assert len(chunks) > 3
        for cid in chunks:
            damage(store, home, cid)
    with Store.open(str(home)) as store:
        assert store.check(read_data=True).problems
        tree = store.open_live("m")
        put(tree, b"part", data[140_000:230_000])  # so that other pieces are gathered with its
        tree.barrier()
        put(tree, b"again", data)
        tree.close()
        assert restored(store, point, tmp_path / "out")["f"] == data
        sound(store)
