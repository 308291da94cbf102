"""Fixtures of the tests of copies: a store, a mount, its tree, as those of restoring have them."""

from tests.restore.conftest import engine, home, make, out

__all__ = ["engine", "home", "make", "out"]
