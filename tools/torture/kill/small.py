"""Small packs, batches of few rows and short waits: a second of work then meets what otherwise takes hours."""

from __future__ import annotations

from engine import limits
from engine.chunks import segments
from engine.maintain import waiting
from engine.restore import job


def shrink() -> None:
    """Make this process's limits small."""
    limits.PACK_MAX = limits.MIB
    limits.GC_SWEEP_ROWS = 20
    limits.TICK = 0.1
    limits.COMMIT_INTERVAL = 0.6
    segments.SEAL_ON_CLOSE = 128 * limits.KIB
    waiting._POLL = 0.02
    job.HELP_FROM = limits.MIB
    job._ASK_FROM = 16 * limits.KIB
