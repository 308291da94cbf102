"""The mounter as a child of a daemon that was started by root: begun first, before the daemon gives up being root."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Child(NamedTuple):
    """A running mounter: the socket for ``Mounter``, and the process. Closing every copy of the socket ends it."""

    socket: socket.socket
    process: subprocess.Popen[bytes]


def spawn(
    roots: Sequence[str], uid: int, gid: int, *, paths: Sequence[str] = (), config: str = ""
) -> Child:
    """Start one for this user; ``config`` names a file that says where may be mounted instead, as it changes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        words = [f"--fd={theirs.fileno()}", f"--uid={uid}", f"--gid={gid}"]
        if config:
            words.append(f"--config={config}")
        else:
            words += [f"--root={one}" for one in roots] + [f"--path={one}" for one in paths]
        here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        process = subprocess.Popen(
            # -P: nothing is imported from the working directory
            [sys.executable, "-P", "-m", "daemon.mounter", *words],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": here},
        )
    return Child(ours, process)
