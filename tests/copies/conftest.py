"""The fixtures of the tests of restoring, which are those of copies as well: a store, a mount, its tree; and servers."""

from tests.locations.conftest import ceph, moto, server
from tests.restore.conftest import engine, home, make, out

__all__ = ["ceph", "engine", "home", "make", "moto", "out", "server"]
