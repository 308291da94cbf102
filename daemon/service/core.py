"""What all parts of the service share: the open store, the state, the ports, and a lock for each mount."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Self

from daemon.service.ports import Ports
from daemon.state import State
from daemon.state.database import FOLDER, give_to_owner
from engine import PointView, Store
from engine.errors import Busy, InvalidRequest, from_os
from engine.registry import valid_name
from engine.seam import REAL

if TYPE_CHECKING:  # what reads configurations takes longer to import than most commands run
    from daemon.config import Config, Mount
from daemon.observe import Audit

LOCKS = "locks"
AUDIT = "audit.log"
LOCK_WAIT = (
    20.0  # s for who holds a mount's lock; a hook of another request may take longer: that is told
)
_PAUSE = 0.005
PAGE_MAX = 10_000  # items of one page


class Core:
    """Opened once per process and store; thread-safe. ``since_boot``: s, not set with the clock."""

    def __init__(
        self,
        store_path: str,
        state: State,
        config: Callable[[], Config],
        ports: Ports,
        clock: Callable[[], int] = time.time_ns,
        *,
        since_boot: Callable[[], float] = REAL.since_boot,
    ) -> None:
        self.path = os.path.abspath(store_path)
        self.state = state
        self.ports = ports
        self.clock = clock
        self._config = config
        self._since_boot = since_boot
        self._told_stale: dict[str, int] = {}  # session -> the end of its lease that was told
        self._shown: set[str] = set()  # mounts whose worker was told what restores it shows
        self._hidden: set[str] = set()  # mounts whose worker was told of some of them only
        self.audit_log = Audit(os.path.join(self.path, FOLDER, AUDIT), clock)
        self.store = Store.open(self.path)

    def close(self) -> None:
        """Leave the store. The state stays open: who opened it closes it."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def policy(self, mount: str) -> Mount:
        """What the configuration says of a mount."""
        return self._config().mount(mount)

    @contextmanager
    def locked(self, mount: str, wait_s: float = LOCK_WAIT) -> Iterator[None]:
        """One at a time begins, commits, abandons or snapshots in a mount, in all processes; ends with its holder.

        Raises Busy.
        """
        with locked(self.path, mount, wait_s):
            yield

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """The store, opened for the length of the block by who makes points: a collection waits for every process that
        has written until it writes again, or has gone."""
        with Store.open(self.path) as store:
            yield store

    @contextmanager
    def pinned(self, reference: str) -> Iterator[PointView]:
        """A point's tree, kept from deletion for the length of the block."""
        with Store.open(self.path) as store:
            yield store.view(reference)


def locked(store_path: str, mount: str, wait_s: float) -> AbstractContextManager[None]:
    """See ``Core.locked``."""
    return alone(store_path, valid_name(mount), f"mount {mount!r}", wait_s)


@contextmanager
def alone(store_path: str, name: str, what: str, wait_s: float) -> Iterator[None]:
    """One at a time, in all processes, holds the lock of that name; ends with its holder. Raises Busy."""
    folder = os.path.join(store_path, FOLDER, LOCKS)
    try:
        for one in (os.path.dirname(folder), folder):
            with contextlib.suppress(FileExistsError):
                os.mkdir(one, 0o700)
                give_to_owner(one, store_path)
        place = os.path.join(folder, name)
        new = not os.path.exists(place)
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if new:
            give_to_owner(place, store_path)
    except OSError as error:
        raise from_os(error, f"lock of {what}") from None
    try:
        end = time.monotonic() + wait_s
        while not _try_lock(fd):
            if time.monotonic() >= end:
                raise Busy(
                    what, expected="its turn", found="another request at work on it, or its hook",
                    do="try again",
                )  # fmt: skip
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def bounded(limit: int) -> int:
    """The length of a page. Raises InvalidRequest."""
    if not 0 < limit <= PAGE_MAX:
        raise InvalidRequest("limit", expected=f"1 to {PAGE_MAX}", found=str(limit))
    return limit
