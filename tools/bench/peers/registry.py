"""All peers by name, and which of them each set is measured with when none are named."""

from collections.abc import Callable
from typing import Final

from tools.bench.measure import BenchError
from tools.bench.peers.base import Peer
from tools.bench.peers.holdfast import Holdfast
from tools.bench.peers.mounted import Null, Passthrough
from tools.bench.peers.plain import Copy, TarZstd
from tools.bench.peers.tools import Borg, Restic

# zstd makes borg's stores smaller than its default lz4 does: the stronger opponent. borg-lz4 is
# borg with no option at all, the faster one.
ZSTD: Final = ("-C", "zstd,3")

MAKERS: Final[dict[str, Callable[[], Peer]]] = {
    "holdfast": Holdfast,
    "holdfast-through": lambda: Holdfast("holdfast-through", "--write-through"),
    "null": lambda: Null(False),
    "null-writeback": lambda: Null(True),
    "cp": Copy,
    "tar-zstd": TarZstd,
    "restic": Restic,
    "borg": lambda: Borg("borg", *ZSTD),
    "borg-lz4": lambda: Borg("borg-lz4"),
    "borg-64k": lambda: Borg("borg-64k", *ZSTD, "--chunker-params", "buzhash,14,18,16,4095"),
    "borg-8k": lambda: Borg("borg-8k", *ZSTD, "--chunker-params", "fixed,8192"),
    "passthrough": Passthrough,
}

DEFAULTS: Final[dict[str, tuple[str, ...]]] = {
    "dbimg": ("holdfast", "null-writeback", "null", "cp", "tar-zstd", "restic", "borg",
              "borg-lz4", "borg-64k", "borg-8k"),
    "dbset": ("holdfast", "restic", "borg", "borg-64k", "borg-8k"),
    "vm": ("holdfast", "null-writeback", "restic", "borg", "borg-64k"),
    "tree": ("holdfast", "restic", "borg"),
    "treetar": ("holdfast", "restic", "borg"),
}  # fmt: skip


def make(name: str) -> Peer:
    """Return a new peer. Raises BenchError for a name that is not known."""
    if name not in MAKERS:
        raise BenchError(f"unknown peer {name!r}; there are {', '.join(MAKERS)}")
    return MAKERS[name]()
