"""What requests and bytes at a storage location cost, by a small table of prices: an estimate, in no currency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GB = 1e9
_WRITES = ("put", "part", "create", "list")
_READS = ("get", "head")


@dataclass(frozen=True)
class Prices:
    """Of 1,000 requests that write or list, of 1,000 that read, of a GB that leaves the location, of a GB kept for a
    month. The defaults are estimates, of the order that large providers take; what yours takes is to be given."""

    writes: float = 0.005
    reads: float = 0.0004
    egress: float = 0.09
    month: float = 0.023

    def cost(self, counts: Mapping[str, int]) -> float:
        """Of requests and bytes as ``Throttle.counts`` has them; removing costs nothing."""
        writes = sum(counts.get(kind, 0) for kind in _WRITES)
        reads = sum(counts.get(kind, 0) for kind in _READS)
        down = counts.get("bytes_down", 0)
        return (writes * self.writes + reads * self.reads) / 1000 + down / GB * self.egress

    def kept(self, size: int) -> float:
        """Of so many bytes, a month."""
        return size / GB * self.month


FREE = Prices(0.0, 0.0, 0.0, 0.0)
"""Of a directory."""
