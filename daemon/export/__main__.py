"""``python -m daemon.export``: the exporter, as a child of the daemon or as a unit of its own. Must be root.

--config FILE   the daemon's configuration, which only root may be able to change: who may ask, where mounts are, how
                the server listens
--folder DIR    where the server's files are; root's alone, and kept over restarts of the host
--fd N          serve this connected socket, and end with it; else listen on run_dir/exporter.sock, or on the socket
                that systemd hands over
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tomllib
from typing import Any

from daemon.export.exporter import Exporter
from daemon.export.ganesha import Settings
from daemon.mounter.places import from_config
from daemon.mounter.server import handed_over, listening
from engine.errors import HoldfastError

SOCKET = "exporter.sock"
FOLDER = "/var/lib/holdfast-nfs"
EXPORTS_D = "/etc/exports.d"  # as the configuration has it


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
        nfs = config.get("nfs", {})
        exports_d = str(nfs.get("exports_d", EXPORTS_D)) if nfs.get("server") == "kernel" else ""
        exporter = Exporter(given.folder, _settings(nfs), allowed, exports_d=exports_d)
        if given.fd >= 0:
            exporter.serve(given=socket.socket(fileno=given.fd))
        else:
            path = os.path.join(config.get("run_dir", "/run/holdfast"), SOCKET)
            exporter.serve(listener=handed_over() or listening(path))
    except (HoldfastError, ValueError, OSError) as error:
        sys.stderr.write(f"exporter: {error}\n")
        return 1
    return 0


def _settings(table: dict[str, Any]) -> Settings:
    usual = Settings()
    return Settings(int(table.get("port", usual.port)), str(table.get("bind", usual.bind)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
