"""What a worker serves, taken from a store: the only place of this package that opens one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from engine import Store
from fsmount.options import Options
from fsmount.pointfs import View
from fsmount.remote import FOLDER
from fsmount.snapdir import Named
from fsmount.subject import Subject


class StorePoints:
    """The recovery points of one mount of an open store. Thread-safe."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def names(self) -> list[Named]:
        """Every point, oldest first."""
        return [
            Named(point.id.encode(), point.seq, point.time_ns, root)
            for point, root in self._store.roots(self._name)
        ]

    def view(self, name: bytes, location: str = "") -> View:
        """The point of that id, read from a storage location where one is named. Raises NotFound."""
        point = name.decode("ascii", "replace")
        return self._store.copies.glance(point, location) if location else self._store.glance(point)


@contextmanager
def opened(
    store_path: str, name: str, point: str | None, shown: str, options: Options
) -> Iterator[Subject]:
    """Open a store for one worker: for a live tree, which the worker closes, or for a recovery point."""
    folder = os.path.join(store_path, FOLDER)
    store = Store.open(store_path, cache=options.cache)
    try:
        if point is None:
            tree = store.open_live(name)
            yield Subject(
                name, shown, folder, tree=tree, points=StorePoints(store, name), incidents=store.incidents,
                counters=store.counters,
            )  # fmt: skip
        elif options.stream:
            stream = store.stream(point)
            try:
                yield Subject(name, shown, folder, view=stream.view, incidents=store.incidents)
            finally:
                stream.close()
        else:
            yield Subject(name, shown, folder, view=store.view(point), incidents=store.incidents)
    finally:
        store.close()
