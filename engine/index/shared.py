"""One environment per process and path: LMDB must not open a file twice in one process."""

from __future__ import annotations

import os
import threading

from engine.index.env import Index

_lock = threading.Lock()
_open: dict[tuple[int, str], tuple[Index, int]] = {}  # (pid, path) -> environment, users


def acquire(path: str) -> Index:
    """The index at ``path``, opened if this process has not; ``release`` it once for every call."""
    key = (os.getpid(), os.path.realpath(path))
    with _lock:
        index, users = _open.get(key) or (Index(path), 0)
        _open[key] = (index, users + 1)
        return index


def release(index: Index) -> None:
    """One user less; the last closes the environment."""
    key = (os.getpid(), os.path.realpath(index.path))
    with _lock:
        found, users = _open[key]
        assert found is index, "an index is released where it was acquired"
        if users > 1:
            _open[key] = (index, users - 1)
        else:
            del _open[key]
            index.close()
