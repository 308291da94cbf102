"""Copies at storage locations: what their bytes are. FORMAT-copies.md has the tables.

``sealed``: packs; ``journal``: the entries that say what is whole there, ``chain``: their order and what they add up
to; ``marker``: the first file of a location. All pure: nothing here reads or writes anything.
"""

from engine.copies.chain import Chain, State
from engine.copies.journal import Entry, Point, PointMade
from engine.copies.marker import Marker
from engine.copies.sealed import PackBuilder, PackRow, SealedPack

__all__ = [
    "Chain",
    "Entry",
    "Marker",
    "PackBuilder",
    "PackRow",
    "Point",
    "PointMade",
    "SealedPack",
    "State",
]
