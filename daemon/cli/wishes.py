"""What of a point is to be restored to a directory here."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import click

from daemon.cli.common import backend
from engine import Store
from engine.errors import NotFound


@dataclass(frozen=True)
class Wish:
    """``inner``: paths in the point, none for all of it, or else a ``database``; ``apart``: each to its own place below
    the target, also when it is one."""

    point: str
    inner: tuple[str, ...]
    database: str
    target: str
    force: bool
    resume: bool
    apart: bool = False

    def __post_init__(self) -> None:
        if self.inner and self.database:
            raise click.UsageError("--database names the files: give no SUBPATH")

    def of_files(self, ctx: click.Context) -> Wish:
        """With the database's files in its place, as the service of the store knows them. Raises NotFound."""
        if not self.database:
            return self
        with backend(ctx) as asked:
            found = asked.files_of(self.point, self.database)
        return self._with(found)

    def _with(self, files: list[str]) -> Wish:
        if not files:
            raise NotFound(
                f"files of database {self.database!r} in point {self.point}", expected="some that its log names",
                found="none", do="see 'holdfast databases'",
            )  # fmt: skip
        return replace(self, inner=tuple(files), database="", apart=True)

    def subpath(self, store: Store) -> bytes | list[bytes]:
        """As ``Store.restore`` takes it. A database's files are those that the point itself tells. Raises NotFound."""
        if self.database:
            return self._with(_files(store, self.point, self.database)).subpath(store)
        paths = [os.fsencode(one) for one in self.inner]
        if self.apart or len(paths) > 1:
            return paths
        return paths[0] if paths else b""


def _files(store: Store, point: str, database: str) -> list[str]:
    """Of a database, by what was kept with the point at the location. Raises NotFound."""
    from daemon.service import extras, restoring

    kept = extras.decode(store.copies.extras(point))
    known: dict[str, list[str]] = {}
    for one in kept.attachments:
        for name, files in one.files.items():
            known.setdefault(name, []).extend(files)
    return restoring.files_of(store.glance(point), known, point, database)
