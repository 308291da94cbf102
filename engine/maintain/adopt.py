"""Adopting: a store made again from a storage location alone, on a machine that has nothing else.

The store has the id and the id key of the one that wrote there, so everything verifies and deduplicates as before;
every chunk's row names a pack at the location.  Points are what the journal says; mounts are made again with their
newest point as the live tree.  It is made in full in ``PATH.adopting/store`` and then renamed, so that there is
nothing, or a whole store; only then does it take over as the location's writer, where that is wanted.

What is known to be whole there are nodes of the newest points, which are walked: a node that came as the base of
another, or was left in a pack when its point was deleted, may refer to what is not there.  The points themselves are
whole as the journal says, unless a pack is missing: then each is walked.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from engine import home, registry
from engine.copies import outbox, ownring, policy
from engine.copies.bare import Bare, open_bare
from engine.copies.link import Link
from engine.copies.rows import LocationRow
from engine.errors import (
    AlreadyExists,
    Busy,
    Corrupt,
    InvalidRequest,
    from_os,
)
from engine.keys import Opener, Secret
from engine.maintain.refill import AdoptReport, Refill
from engine.progress import Report
from engine.seam import REAL, Os

Furnish = Callable[[str, AdoptReport], None]
NOT_TAKEN_OVER = "adopted without taking over: nothing is sent"
_SUFFIX, _MARK, _STORE = ".adopting", "adopting", "store"


def adopt(
    path: str, url: str, secret: Opener | None, *, credentials: str, name: str, take_over: bool,
    report: Report, furnish: Furnish = lambda path, found: None, seal: Sequence[Secret] = (), system: Os = REAL,
) -> AdoptReport:  # fmt: skip
    """Make a store at ``path`` from what lies at a location. ``secret``: what opens its key ring, None where nothing is
    sealed; ``name``: of the location in the new store; ``take_over``: be its writer from now on; ``furnish``: puts into
    the store's directory what is not the engine's, before the store is there; ``seal``: who may open the new store,
    none for one that is not sealed.

    Raises AlreadyExists, PermissionDenied for a wrong secret, NotFound, Corrupt, FormatTooNew, Busy, InvalidRequest,
    and what the location raises; when taking over fails, the store is there and only reads.
    """
    path = home.named(path)
    registry.valid_name(name)
    _refuse_used(path, system)
    bare = open_bare(url, secret, credentials, system=system, report=report)
    try:
        result = AdoptReport(bare.location.shown, bare.vault.fingerprint, done=list(bare.notes))
        result.left_out = len(bare.notes)
        if take_over and not bare.ends:
            raise Corrupt(
                f"journal of {bare.location.shown}", expected="no gap before its end",
                found="; ".join(bare.notes), do="adopt it without taking over, to read what is whole",
            )  # fmt: skip
        row = LocationRow(
            0, url, bare.vault.location.hex(), system.random(16).hex(), bare.vault.sealed, credentials,
            seq=bare.seq, last=bare.digest.hex(), paused=NOT_TAKEN_OVER, ring=bare.number,
            ring_mark=bare.vault.mark, ring_here=bare.key is not None, checkpoints=bare.checkpoints[-2:],
        )  # fmt: skip
        row, texts = policy.taken(row, bare.state.place)
        result.done += texts
        try:
            with _building(path, system) as folder:
                _build(folder, bare, name, row, result, report, seal, system)
                furnish(os.path.join(folder, _STORE), result)
                _put_in_place(folder, path, system)
        except OSError as error:
            raise from_os(error, f"store {path}") from None
        if take_over:
            with home.opened(path, system=system) as store:
                link = Link(store.context, name, bare.location, bare.vault)
                with link.alone():
                    ownring.take_over(link)
                    if lost := policy.still_retains(link):
                        result.done.append(lost)
            result.taken_over = True
        return result
    finally:
        bare.location.close()


def _refuse_used(path: str, system: Os) -> None:
    if not system.exists(path):
        return
    home.refuse_used(path, system)
    if system.listdir(path):
        raise AlreadyExists(f"store {path}", expected="an empty or new directory", found="a store not finished",
                            do="remove it, or choose another directory")  # fmt: skip
    if os.path.ismount(path):
        raise InvalidRequest(f"store {path}", expected="a directory that can be renamed", found="a mount point",
                             do="give the name of a new directory in it")  # fmt: skip


@contextmanager
def _building(path: str, system: Os) -> Iterator[str]:
    """A directory beside the store's, for this process alone; what an earlier one left there is removed."""
    folder = path + _SUFFIX
    mark = os.path.join(folder, _MARK)
    if not system.exists(folder):
        system.mkdir(folder)
        _like(path, folder)
    _refuse_others(folder, path)
    names = set(system.listdir(folder))
    if names - {_MARK, _STORE} or (names and _MARK not in names):
        raise AlreadyExists(
            folder, expected="nothing, or what 'holdfast adopt' left there", found="other files",
            do="move it away",
        )  # fmt: skip
    fd = system.open(mark, os.O_RDWR | os.O_CREAT)
    try:
        if not system.try_lock(fd):
            raise Busy(
                folder,
                expected="nobody adopting there",
                found="another process",
                do="wait for it to end",
            )
        inner = os.path.join(folder, _STORE)
        if system.exists(inner):
            shutil.rmtree(inner)
        try:
            yield folder
        finally:
            shutil.rmtree(inner, ignore_errors=True)
            system.unlink(mark)
            os.rmdir(folder)
    finally:
        system.close(fd)


def _refuse_others(folder: str, path: str) -> None:
    """Whoever owns the directory could put a store of his in the place of the one that is made in it."""
    found = os.lstat(folder)
    mine = {0, os.geteuid(), os.stat(path).st_uid if os.path.isdir(path) else 0}
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in mine:
        raise AlreadyExists(
            folder, expected="nothing, or a directory of this user", found="another's, or a link",
            do="move it away",
        )  # fmt: skip


def _like(path: str, folder: str) -> None:
    """Where there is an empty directory already, the store is its owner's."""
    if os.geteuid() == 0 and os.path.isdir(path):
        owner = os.stat(path)
        os.chown(folder, owner.st_uid, owner.st_gid)


def _build(
    folder: str, bare: Bare, name: str, row: LocationRow, result: AdoptReport, report: Report,
    seal: Sequence[Secret], system: Os,
) -> None:  # fmt: skip
    path = os.path.join(folder, _STORE)
    identity = (bare.state.store, bare.vault.id_key)
    if seal and not bare.vault.sealed:
        raise InvalidRequest(
            f"store {path}", expected="a sealed location to make a sealed store of", found="one that is not",
            do="the key of chunk ids lies open there: adopt it without sealing",
        )  # fmt: skip
    home.init(path, identity=identity, seal=seal, system=system)
    with home.opened(path, system=system) as store:
        with store.context.index.write() as txn:
            outbox.add(txn, name, row)
        Refill(
            store, Link(store.context, name, bare.location, bare.vault), bare, result, report
        ).run()
        if bare.key is not None:
            ownring.keep(store.context, name, bare.ring, bare.key)


def _put_in_place(folder: str, path: str, system: Os) -> None:
    inner = os.path.join(folder, _STORE)
    if system.exists(path):
        os.chmod(inner, os.stat(path).st_mode & 0o7777)
    system.fsync_dir(inner)
    system.rename(inner, path)
    system.fsync_dir(os.path.dirname(path))
