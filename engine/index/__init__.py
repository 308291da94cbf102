"""The LMDB index: the only shared mutable state, and the only lock, between processes of one store."""

from engine.index.env import Index, Txn
from engine.index.tables import Table

__all__ = ["Index", "Table", "Txn"]
