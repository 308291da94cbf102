"""Words to systemd: sd_notify's protocol, one datagram of assignments to the socket that NOTIFY_SOCKET names.

Nothing here raises: a service manager that does not listen is no reason to fail.
"""

from __future__ import annotations

import os
import socket

from daemon.observe.text import printable

SEND_LIMIT = 1.0  # s; who calls may be the event loop's thread
STATUS_MAX = 200  # characters


def notify(state: str) -> bool:
    """Send assignments, one a line: ``READY=1``, ``STOPPING=1``, ``WATCHDOG=1``. False: nobody was told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address.startswith("@"):  # a name without a place in the file system
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.settimeout(SEND_LIMIT)
            to.sendto(state.encode("utf-8", "replace"), os.fsencode(address))
    except (OSError, ValueError):
        return False
    return True


def status(text: str) -> bool:
    """Send the one line that ``systemctl status`` shows; whatever stands in it, it stays one."""
    return notify(f"STATUS={printable(text, STATUS_MAX)}")


def watchdog_interval() -> float | None:
    """Seconds between two ``WATCHDOG=1``, half of what systemd waits; None where it waits for none of this process."""
    meant = os.environ.get("WATCHDOG_PID", "")
    limit = os.environ.get("WATCHDOG_USEC", "")
    if meant and meant != str(os.getpid()):
        return None
    if not (limit.isascii() and limit.isdigit()) or not int(limit[:18]):
        return None
    return int(limit[:18]) / 2_000_000
