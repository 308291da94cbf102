"""The fixtures of the tests of restoring, which are those of copies as well: a store, a mount, its tree."""

from tests.restore.conftest import engine, home, make, out

__all__ = ["engine", "home", "make", "out"]
