"""``python -m daemon.mounter``: the mounter, as a child of the daemon or as a unit of its own. Must be root.

--config FILE   who may ask and where may be mounted: user, mount_root and mounts.*.path of the daemon's configuration;
                root alone may be able to change it. It is read again for each request
--uid, --gid, --root PATH, --path PATH   the same, in place of a configuration
--fd N          serve this connected socket, and end with it; else listen on run_dir/mounter.sock of the configuration,
                or on the socket that systemd hands over
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import tomllib
from collections.abc import Callable

from daemon.mounter import places
from daemon.mounter.server import Server, handed_over, listening

SOCKET = "mounter.sock"


def main(arguments: list[str]) -> int:
    """Serve; returns the exit code."""
    logging.basicConfig(format="mounter: %(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(prog="python -m daemon.mounter")
    parser.add_argument("--config", default="")
    parser.add_argument("--fd", type=int, default=-1)
    parser.add_argument("--uid", type=int, default=0)
    parser.add_argument("--gid", type=int, default=0)
    parser.add_argument("--root", action="append", default=[])
    parser.add_argument("--path", action="append", default=[])
    given = parser.parse_args(arguments)
    try:
        server = Server(_allowed(given))
        if given.fd >= 0:
            server.serve(given=socket.socket(fileno=given.fd))
        else:
            server.serve(listener=_listener(given.config))
    except (ValueError, OSError) as error:
        logging.getLogger("holdfast.mounter").error("%s", error)
        return 1
    return 0


def _allowed(given: argparse.Namespace) -> Callable[[], places.Allowed]:
    if given.config:
        read = places.from_config(given.config)
        read()  # what is wrong is told now
        return read
    fixed = places.allowed(given.uid, given.gid, given.root, given.path)
    return lambda: fixed


def _listener(config: str) -> socket.socket:
    given = handed_over()
    if given is not None:
        return given
    if not config:
        raise ValueError("--config, or a socket to serve, is needed")
    with open(config, "rb") as file:
        return listening(os.path.join(tomllib.load(file).get("run_dir", "/run/holdfast"), SOCKET))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
