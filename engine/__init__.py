"""Holdfast's engine: a deduplicating store of recovery points. This is its facade; nothing else is public."""

from engine.errors import HoldfastError
from engine.points.snapshot import PlannedPoint
from engine.points.view import PointView
from engine.progress import Progress, Report
from engine.store import PointInfo, Store

__all__ = [
    "HoldfastError",
    "PlannedPoint",
    "PointInfo",
    "PointView",
    "Progress",
    "Report",
    "Store",
]
