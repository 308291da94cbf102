"""``python -m tools.torture.kill.program COMMAND…``: the ``holdfast`` command in small, with the chosen bug planted."""

from __future__ import annotations

import faulthandler
import signal

from daemon.cli.main import main
from tools.torture.bugs import plant_chosen
from tools.torture.kill.small import shrink


def shrink_worker() -> None:
    """Turns of a worker follow each other sooner."""
    from fsmount import worker  # only a mount needs it, and it takes longer than most commands

    worker.TICK = 0.1


if __name__ == "__main__":
    import sys

    faulthandler.register(signal.SIGUSR1)
    shrink()
    if "mount" in sys.argv:
        shrink_worker()
    plant_chosen()
    main()
