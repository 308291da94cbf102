"""Restore: a point, or part of it, becomes files in a directory again."""

from engine.restore.job import Notice, RestoreReport
from engine.restore.tree import restore

__all__ = ["Notice", "RestoreReport", "restore"]
