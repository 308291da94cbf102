"""``python -m daemon.export``: the exporter, as a child of the daemon or as a unit of its own. Must be root.

--config FILE   the daemon's configuration, which only root may be able to change: who may ask, where mounts are, how
                the server listens
--folder DIR    where the server's files are; root's alone, and kept over restarts of the host
--fd N          serve this connected socket, and end with it; else listen on run_dir/exporter.sock, or on the socket
                that systemd hands over
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import tomllib
from typing import Any

from daemon.export.exporter import Exporter
from daemon.export.ganesha import Settings
from daemon.mounter.places import from_config
from engine.errors import HoldfastError

SOCKET = "exporter.sock"
FOLDER = "/var/lib/holdfast-nfs"
_FIRST = 3  # the first descriptor that systemd hands over


def main(arguments: list[str]) -> int:
    """Serve; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m daemon.export")
    parser.add_argument("--config", required=True)
    parser.add_argument("--folder", default=FOLDER)
    parser.add_argument("--fd", type=int, default=-1)
    given = parser.parse_args(arguments)
    try:
        allowed = from_config(given.config)
        allowed()  # what is wrong is told now
        with open(given.config, "rb") as file:
            config = tomllib.load(file)
        exporter = Exporter(given.folder, _settings(config.get("nfs", {})), allowed)
        if given.fd >= 0:
            exporter.serve(given=socket.socket(fileno=given.fd))
        else:
            exporter.serve(listener=_listener(config.get("run_dir", "/run/holdfast")))
    except (HoldfastError, ValueError, OSError) as error:
        sys.stderr.write(f"exporter: {error}\n")
        return 1
    return 0


def _settings(table: dict[str, Any]) -> Settings:
    usual = Settings()
    return Settings(int(table.get("port", usual.port)), str(table.get("bind", usual.bind)))


def _listener(run_dir: str) -> socket.socket:
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=_FIRST)
    path = os.path.join(run_dir, SOCKET)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    mask = os.umask(0o111)  # anybody may connect; who it is decides
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen()
    return listener


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
