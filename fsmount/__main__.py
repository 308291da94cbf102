"""The process behind a background mount: ``python -m fsmount REQUEST``, started by ``fsmount.background`` only."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from typing import Any

from engine.errors import HoldfastError
from fsmount import background, lifecycle, unprivileged
from fsmount.options import Options


def main(arguments: list[str]) -> int:
    """Serve what the request says; its ``ready_fd`` is told how it went. Returns the exit code."""
    request: dict[str, Any] = json.loads(arguments[0])
    options = Options.from_json(request["options"])
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    told = False

    def tell(answer: dict[str, object]) -> None:
        nonlocal told
        if not told:
            told = True
            background.tell(request["ready_fd"], answer)

    try:
        _become(request, options)
        return lifecycle.serve(
            request["store"],
            request["name"],
            request["point"],
            request["where"],
            options,
            ready=lambda: tell({"pid": os.getpid()}),
        )
    except HoldfastError as error:
        logging.getLogger("holdfast.fsmount").error("%s", error)
        tell({"kind": error.kind.slug, "message": str(error)})
        return error.kind.exit
    finally:
        if "scratch" in request:
            shutil.rmtree(request["scratch"], ignore_errors=True)


def _become(request: dict[str, Any], options: Options) -> None:
    """Give up every privilege before anything of the store is touched."""
    if "user" in request:
        unprivileged.become(*request["user"])
        with background.open_log(request["log"]) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    elif options.fuse_fd >= 0 and os.geteuid():
        unprivileged.become(os.geteuid(), os.getegid())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
