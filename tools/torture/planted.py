"""``python -m tools.torture.planted COMMAND…``: the ``holdfast`` command with the chosen bug planted in it."""

from __future__ import annotations

from daemon.cli.main import main
from tools.torture.bugs import plant_chosen

if __name__ == "__main__":
    plant_chosen()
    main()
