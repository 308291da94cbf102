"""``python -m tools.torture.kill.program COMMAND…``: the ``holdfast`` command in small, with the chosen bug planted.

Small packs, batches of few rows and short waits: a second of work then meets what otherwise takes hours.
"""

from __future__ import annotations

import faulthandler
import signal

from daemon.cli.main import main
from engine import limits
from engine.chunks import segments
from engine.maintain import waiting
from engine.restore import job
from fsmount import worker
from tools.torture.bugs import plant_chosen


def shrink() -> None:
    """Make this process's limits small."""
    limits.PACK_MAX = 2 * limits.MIB
    limits.GC_SWEEP_ROWS = 40
    limits.TICK = 0.1
    limits.COMMIT_INTERVAL = 0.6
    segments.SEAL_ON_CLOSE = 256 * limits.KIB
    waiting._POLL = 0.02  # noqa: SLF001
    worker.TICK = 0.1
    job.HELP_FROM = limits.MIB
    job._ASK_FROM = 16 * limits.KIB  # noqa: SLF001


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    shrink()
    plant_chosen()
    main()
