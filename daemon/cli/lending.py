"""A recovery point mounted from a storage location, from a store that is borrowed for it."""

from __future__ import annotations

from dataclasses import replace

import click

import fsmount
from daemon.cli.opening import Given, lent
from daemon.cli.output import progress, say, shown
from engine.errors import InvalidRequest, NotFound

_FREE = 0.5  # of the scratch directory's free space, where nobody said how large the cache is to be


def mount(
    ctx: click.Context, name: str, path: str, place: str, given: Given, options: fsmount.Options,
    cache_size: int | None, scratch: str | None, background: bool,
) -> None:  # fmt: skip
    """Mount NAME@POINT; in the background its process goes on with the scratch directory, and removes it."""
    base, _, reference = name.partition("@")
    if not reference:
        raise click.UsageError("--from mounts a recovery point: NAME@POINT")
    if cache_size is not None and cache_size <= 0:
        raise InvalidRequest("--cache-size", expected="more than none", found=str(cache_size))
    with progress() as report, lent(ctx, place, given, scratch, report) as store:
        found = store.point(name if reference == "latest" else reference)
        if found.mount != base:
            raise NotFound(
                f"point {reference!r} of mount {base!r}", expected="a point of that mount",
                found=f"one of mount {found.mount!r}",
            )  # fmt: skip
        cache = int(store.space_left() * _FREE) if cache_size is None else cache_size
        options = replace(options, stream=True, cache=cache)
        if background:
            assert store.scratch is not None, "it is borrowed"
            kept = (store.scratch.folder, store.scratch.fd)
            fsmount.start_background(store.path, base, found.id, path, options, scratch=kept)
            store.scratch.given_away = True
        else:
            fsmount.serve(store.path, base, found.id, path, options)
    if background:
        say(f"{shown(name)} mounted at {shown(path)}")
