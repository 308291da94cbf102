"""What the tests of the index share."""

from __future__ import annotations

from engine.index import Index, Table


def fill(index: Index, rows: dict[bytes, bytes], table: Table = Table.META) -> None:
    with index.write() as txn:
        for key, value in rows.items():
            txn.put(table, key, value)


def everything(index: Index, table: Table = Table.META) -> dict[bytes, bytes]:
    with index.read() as txn:
        return dict(txn.scan(table))
