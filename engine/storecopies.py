"""The facade's part about copies of points at storage locations: ``Store.copies``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from engine.home import OpenStore
from engine.progress import Report, silent

if TYPE_CHECKING:  # imported where they are used: no process needs all of them
    from engine.copies.holding import Brought
    from engine.copies.keyring import KeyringInfo
    from engine.copies.listing import LocationInfo, UploadInfo
    from engine.copies.office import Extras, Settings
    from engine.copies.upload import UploadReport
    from engine.keys import Opener, Secret
    from engine.maintain.borrow import Lent
    from engine.maintain.drop import DropReport
    from engine.maintain.reclaim import Reclaim
    from engine.points.view import PointView


class _Facade(Protocol):
    def close(self) -> None: ...


S = TypeVar("S", bound=_Facade)
"""The facade: it imports this, not the other way round."""


class StoreCopies(Generic[S]):
    """Copies of a store's points. Thread-safe; of use while the store is open."""

    def __init__(
        self, store: OpenStore, noting: Callable[[], AbstractContextManager[None]],
        facade: Callable[[OpenStore, Lent], S],
    ) -> None:  # fmt: skip
        """``noting``: within it, what goes wrong is an incident of the store; a borrowed one refuses it;
        ``facade``: makes the facade of another store."""
        self._store = store
        self._facade = facade
        self._noting = noting

    def add(
        self, name: str, url: str, *, secrets: Sequence[Secret] = (), credentials: str = "environment",
        sealed: bool = True, mounts: Sequence[str] = (), verify: float = 0.02, local: str = "keep",
        bandwidth: str = "", read_bandwidth: str = "", object_lock: bool = False,
    ) -> LocationInfo:  # fmt: skip
        """A storage location for points of these mounts, or of all; ``secrets`` open it where this machine is gone.

        See ``engine.copies.connect``. Raises AlreadyExists, InvalidRequest, Unsupported, LocationUnavailable …
        """
        from engine.copies import connect, office

        wanted = connect.Wanted(
            url,
            secrets,
            credentials,
            sealed,
            mounts,
            verify,
            local,
            bandwidth,
            read_bandwidth,
            object_lock,
        )
        with self._noting():
            return office.add(self._store.context, name, wanted)

    def change(self, location: str, **fields: Any) -> LocationInfo:
        """Change fields of a location: ``verify``, ``local``, ``mounts``, ``credentials``, ``bandwidth``,
        ``read_bandwidth``; see ``engine.copies.change``. Raises NotFound, InvalidRequest …"""
        from engine.copies import office

        with self._noting():
            return office.change(self._store.context, location, fields)

    def remove(self, name: str) -> None:
        """Forget a location; what lies there stays. Raises NotFound, Busy while something is only there."""
        from engine.copies import office

        with self._noting():
            office.remove(self._store.context, name)

    def take_over(self, name: str) -> None:
        """Be the only writer of a location that was adopted; see ``office.take_over``."""
        from engine.copies import office

        with self._noting():
            office.take_over(self._store.context, name)

    def keys(self, location: str, secret: Opener | None = None) -> KeyringInfo:
        """Who may open a location; ``secret``: what opens its key ring, by default this machine's key."""
        from engine.copies import keyring

        with self._noting():
            return keyring.show(self._store.context, location, secret)

    def change_keys(
        self, location: str, *, add: Sequence[Secret] = (), remove: Sequence[str] = (), machine: bool = False,
        force: bool = False, secret: Opener | None = None,
    ) -> KeyringInfo:  # fmt: skip
        """Have others open a location, or some no longer (by ids of slots), in one step; ``machine``: this one, where
        it does not; ``force``: also what leaves only this machine, or not even that. Raises InvalidRequest, Busy …"""
        from engine.copies import keyring

        with self._noting():
            return keyring.change(
                self._store.context, location, secret, add=add, drop=remove, machine=machine, force=force
            )  # fmt: skip

    def rotate_keys(
        self, location: str, *, master_for: Sequence[Secret] = (), secret: Opener | None = None
    ) -> KeyringInfo:  # fmt: skip
        """What is sent from now on has a new key. ``master_for``: and so has the ring, opened by these and by this
        machine alone."""
        from engine.copies import keyring

        with self._noting():
            return keyring.rotate(self._store.context, location, secret, master_for)

    @contextmanager
    def borrow(
        self, location: str, *, scratch: str | None = None, report: Report = silent
    ) -> Iterator[S]:
        """As ``Store.borrow``, from a location of this store, with this machine's key.

        Raises NotFound as well, and Corrupt when the location is not what this store knows of it.
        """
        from engine.maintain import borrow

        with (
            borrow.of_store(self._store.context, location, scratch=scratch, report=report) as lent,
            closing(self._facade(lent.store, lent)) as store,
        ):
            yield store

    def glance(self, reference: str, location: str) -> PointView:
        """As ``Store.glance``, read from a location that has the point, whatever of it is here. Raises NotFound."""
        from engine.copies import there
        from engine.points import snapshot
        from engine.points.view import PointView

        with self._store.context.index.read() as txn:
            point = snapshot.find(txn, reference)
        return PointView(there.reader(self._store, point.id, location), point.root)

    def extras(self, point: str) -> Iterator[bytes]:
        """What the service keeps with a point, from a location that has it; see ``engine.copies.extras``. Raises
        NotFound as well."""
        from engine.copies import extras
        from engine.points import snapshot

        with self._store.context.index.read() as txn:
            known = snapshot.find(txn, point)
        return extras.extras(self._store, known.id)

    def locations(self) -> list[LocationInfo]:
        """All storage locations, by name."""
        from engine.copies import listing

        return listing.locations(self._store.context)

    def uploads(
        self, location: str = "", state: str = "", points: Collection[str] | None = None
    ) -> list[UploadInfo]:
        """How far points, all or these, are at a location, or at all of them; ``state`` may be ``pending``: all but
        verified. Raises NotFound."""
        from engine.copies import listing

        return listing.uploads(self._store.context, location, state, points)

    def has_extras(self, point: str) -> bool:
        """Whether a location has something that the service kept with a point."""
        from engine.copies import extras

        return extras.has(self._store, point)

    def with_extras(self) -> list[str]:
        """Points with which the service kept something that a location has."""
        from engine.copies import extras

        return extras.having(self._store)

    def retry(self, location: str) -> int:
        """Queue again what failed; how many points. Raises NotFound."""
        from engine.copies import office

        with self._noting():
            return office.retry(self._store.context, location)

    def send(
        self, location: str, *, extras: Extras = lambda point: (), settings: Settings = lambda mount: {},
        report: Report = silent, stop: Callable[[], bool] = lambda: False,
    ) -> list[UploadReport]:  # fmt: skip
        """Send every point that waits, oldest first; see ``engine.copies.office.send``."""
        from engine.copies import office

        with self._noting():
            return office.send(
                self._store, location, extras=extras, settings=settings, report=report, stop=stop
            )

    def bring_locks(self, location: str, *, report: Report = silent) -> Brought:
        """Have a location know the locks of the points it has; see ``engine.copies.holding``. ``send`` does so too."""
        from engine.copies import office

        with self._noting():
            return office.bring_locks(self._store, location, report=report)

    def reclaim(
        self, location: str, *, dry_run: bool = False, report: Report = silent,
        stop: Callable[[], bool] = lambda: False,
    ) -> Reclaim:  # fmt: skip
        """Free at a location what no point there needs any more; see ``engine.maintain.reclaim``."""
        from engine.copies import connect
        from engine.maintain import reclaim

        with self._noting():
            link = connect.open_link(self._store.context, location)
            try:
                if dry_run:
                    return reclaim.plan(self._store, link, report=report)
                return reclaim.reclaim(self._store, link, report=report, stop=stop)
            finally:
                link.close()

    def drop_local(self, *, report: Report = silent) -> DropReport:
        """Give up the bytes of points that are verified wherever they must be, where that is wanted."""
        from engine.maintain import drop

        with self._noting():
            return drop.drop(self._store, report=report)
