"""Fixtures of the tests of copies: a store, a mount, its tree, as those of restoring have them; and servers."""

from tests.locations.conftest import ceph, moto, server
from tests.restore.conftest import engine, home, make, out

__all__ = ["ceph", "engine", "home", "make", "moto", "out", "server"]
