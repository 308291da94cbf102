"""``python -m tools.torture.space.command ARG…``: the ``holdfast`` command with small limits and the chosen bug.

It says ``ready`` on its standard output when everything is imported: who wants to kill it at work waits for that.
"""

from __future__ import annotations

import sys

from daemon.cli.main import main
from tools.torture.bugs import plant_chosen
from tools.torture.space.child import small

if __name__ == "__main__":
    plant_chosen()
    small()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    main()
