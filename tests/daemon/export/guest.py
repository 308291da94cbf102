"""The first program of a User-Mode Linux that is a client of NFS: runs what the host tells it, line by line.

    python -m tests.daemon.export.guest DIRECTORY ADDRESS

DIRECTORY is one whose content is not needed: a file system in memory goes there.  Each line from the console is a shell
command; each answer is ``MARK``, its exit status, a blank, and what it printed as hexadecimal digits, on one line.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import termios
import time
import traceback
import tty

MARK = "\x02"
MODULES = (
    "net/sunrpc/sunrpc", "fs/nfs_common/grace", "fs/lockd/lockd", "fs/netfs/netfs", "fs/fscache/fscache", "fs/nfs/nfs",
    "fs/nfs_common/nfs_acl", "fs/nfs/nfsv3", "net/dns_resolver/dns_resolver", "fs/nfs/nfsv4",
)  # fmt: skip
FOLDER = "/usr/lib/uml/modules/{}/kernel/{}.ko"
LIMIT = 60  # s for one command
_FINIT_MODULE = 313
_libc = ctypes.CDLL(None, use_errno=True)


def prepare(folder: str, address: str) -> None:
    """File systems, modules, the network."""
    for kind, place in (("proc", "/proc"), ("tmpfs", folder)):
        subprocess.run(["mount", "-t", kind, kind, place], check=True)
    for name in MODULES:
        fd = os.open(FOLDER.format(platform.release(), name), os.O_RDONLY)
        if _libc.syscall(_FINIT_MODULE, fd, b"", 0):
            raise OSError(ctypes.get_errno(), name)
        os.close(fd)
    for line in ("link set lo up", "link set vec0 up", f"addr add {address}/24 dev vec0"):
        subprocess.run(["ip", *line.split()], check=True)
    os.chdir(folder)
    tty.setraw(0, termios.TCSANOW)


def say(status: int, printed: bytes) -> None:
    sys.stdout.write(f"{MARK}{status} {printed.hex()}\n")
    sys.stdout.flush()


def main() -> None:
    """Until the host ends it."""
    try:
        prepare(*sys.argv[1:])
        say(0, b"ready")
        while line := sys.stdin.readline():
            try:
                done = subprocess.run(
                    ["sh", "-c", line], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    timeout=LIMIT,
                )  # fmt: skip
                say(done.returncode, done.stdout)
            except subprocess.TimeoutExpired:
                say(124, b"too long")
    except BaseException:  # noqa: BLE001  (a first program must not end)
        say(1, traceback.format_exc().encode())
    while True:
        time.sleep(1000)


if __name__ == "__main__":
    main()
